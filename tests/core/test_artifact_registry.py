"""Names, look-ups, plug-ins, and what happens when many threads register at once."""

import importlib
import sys
import threading

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import zerocost
from support.threads import together
from zerocost import Artifact, ArtifactRegistry, AttentionArtifact, ChainArtifact


class Same(AttentionArtifact):
    """Returns its input."""

    def process_attention(self, attention_matrix):
        return attention_matrix


@pytest.fixture
def registry():
    registry = ArtifactRegistry()
    registry.register_artifact("sparse_attention", Same(), "attention", {"version": 1})
    return registry


def test_a_registered_artifact_is_found(registry):
    spec = registry.get_artifact("sparse_attention")
    assert spec is registry["sparse_attention"]
    assert (spec.name, spec.interface, spec.metadata) == ("sparse_attention", "attention", {"version": 1})
    assert "sparse_attention" in registry
    assert len(registry) == 1
    assert list(registry) == ["sparse_attention"]
    assert registry.list_artifacts("memory") == []
    assert registry.list_artifacts() == registry.list_artifacts("attention") == [spec]


def test_an_unknown_name_lists_close_ones(registry):
    assert registry.get_artifact("sparse_atention") is None
    with pytest.raises(zerocost.UnknownArtifact) as caught:
        registry["sparse_atention"]
    assert str(caught.value) == "Artifact sparse_atention not found; did you mean 'sparse_attention'?"
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(KeyError):
        registry.unregister_artifact("nothing")


def test_a_taken_name_is_refused_unless_it_is_replaced(registry):
    with pytest.raises(zerocost.DuplicateArtifact, match="replace=True"):
        registry.register_artifact("sparse_attention", Same(), "attention")
    other = Same()
    registry.register_artifact("sparse_attention", other, "attention", replace=True)
    assert registry["sparse_attention"].implementation is other
    assert registry.unregister_artifact("sparse_attention").implementation is other
    assert "sparse_attention" not in registry


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a%2e", "ä", "a\0", "a\n", "x" * 201, None, 3])
def test_other_names_are_refused(registry, name):
    with pytest.raises(ValueError, match=r"^name: "):
        registry.register_artifact(name, Same(), "attention")


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "...", "x" * 200])
def test_these_names_are_fine(registry, name):
    registry.register_artifact(name, Same(), "attention")


@pytest.mark.parametrize("implementation", [Same, object(), None, dict])
def test_objects_that_are_not_artifacts_are_refused(registry, implementation):
    with pytest.raises(TypeError, match=r"^implementation: "):
        registry.register_artifact("a", implementation, "attention")


def test_the_schema_is_read_once(registry):
    class Counting(Same):
        reads = 0

        def get_schema(self):
            Counting.reads += 1
            return super().get_schema()

    registry.register_artifact("counting", Counting(), "attention")
    for _ in range(3):
        assert registry["counting"].ports.main_input == "attention_matrix"
    assert Counting.reads == 1


def test_a_spec_cannot_be_changed(registry):
    with pytest.raises(AttributeError):
        registry["sparse_attention"].name = "other"


def test_an_invalid_schema_is_refused_by_name(registry):
    class Broken(Same):
        def get_schema(self):
            return {"type": 3}

    with pytest.raises(zerocost.InvalidSchema, match="artifact 'broken': /type"):
        registry.register_artifact("broken", Broken(), "attention")
    assert "broken" not in registry


def test_a_chain_that_reaches_itself_is_refused(registry):
    registry.register_artifact("inner", ChainArtifact([{"artifact": "sparse_attention"}], registry), "chain")
    outer = ChainArtifact([{"artifact": "inner"}], registry)
    with pytest.raises(
        zerocost.PlanError, match=r"'sparse_attention' would reach itself: .*→ inner → sparse_attention"
    ):
        registry.register_artifact("sparse_attention", outer, "chain", replace=True)
    assert registry["sparse_attention"].interface == "attention"


def test_threads_lose_no_registration():
    registry = ArtifactRegistry()
    barrier = threading.Barrier(8)

    def work(thread):
        barrier.wait()
        for index in range(20):
            registry.register_artifact(f"{thread}-{index}", Same(), "attention")
            assert list(registry)

    assert together(8, work) == [None] * 8
    assert len(registry) == 160


class RegistryMachine(RuleBasedStateMachine):
    """The registry against a dict."""

    names = st.sampled_from(["a", "b", "c"])

    def __init__(self):
        super().__init__()
        self.registry, self.model = ArtifactRegistry(), {}

    @rule(name=names, replace=st.booleans())
    def register(self, name, replace):
        artifact = Same()
        if name in self.model and not replace:
            with pytest.raises(zerocost.DuplicateArtifact):
                self.registry.register_artifact(name, artifact, "attention")
        else:
            self.registry.register_artifact(name, artifact, "attention", replace=replace)
            self.model[name] = artifact

    @rule(name=names)
    def unregister(self, name):
        if name in self.model:
            assert self.registry.unregister_artifact(name).implementation is self.model.pop(name)
        else:
            with pytest.raises(zerocost.UnknownArtifact):
                self.registry.unregister_artifact(name)

    @invariant()
    def agrees(self):
        assert {name: self.registry[name].implementation for name in self.registry} == self.model


TestRegistryMachine = RegistryMachine.TestCase

PLUGIN = """
from zerocost import AttentionArtifact

class Fine(AttentionArtifact):
    '''Fine.'''
    def process_attention(self, attention_matrix):
        return attention_matrix

class Raises(Fine):
    def __init__(self):
        raise RuntimeError("no luck")

class Other:
    pass

class Exits(Fine):
    def __init__(self):
        raise SystemExit(3)
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(PLUGIN)
    information = tmp_path / "stranger-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[zerocost.artifacts]\n"
        "fine = stranger:Fine\n"
        "missing = not_installed_anywhere:Thing\n"
        "raises = stranger:Raises\n"
        "other = stranger:Other\n"
        "exits = stranger:Exits\n"
        "sparse_attention = stranger:Fine\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("stranger", None)


@pytest.mark.usefixtures("plugins")
def test_a_failing_plugin_does_not_affect_others(registry):
    failures = registry.load_plugins()
    assert registry["fine"].interface == "attention"
    assert sorted(failures) == ["exits", "missing", "other", "raises", "sparse_attention"]
    assert "'missing' (not_installed_anywhere:Thing) was not loaded: ModuleNotFoundError" in str(failures["missing"])
    assert "no luck" in str(failures["raises"])
    assert "a subclass of Artifact is needed" in str(failures["other"])
    assert "is registered" in str(failures["sparse_attention"])


@pytest.mark.usefixtures("plugins")
def test_an_artifact_from_a_module(registry):
    spec = registry.register_from("mine=stranger:Fine")
    assert (spec.name, spec.interface) == ("mine", "attention")
    for text, message in [
        ("stranger:Fine", "NAME=MODULE:CLASS is needed"),
        ("a=stranger", "MODULE:CLASS is needed"),
        ("a=stranger:Nothing", "could not be loaded: AttributeError"),
        ("a=nowhere_at_all:Fine", "could not be loaded: ModuleNotFoundError"),
        ("a=stranger:Raises", "no luck"),
    ]:
        with pytest.raises(zerocost.PluginError, match=message):
            registry.register_from(text)


class Awaited(AttentionArtifact):
    """A coroutine function where a function is called."""

    async def process_attention(self, attention_matrix):
        return attention_matrix


class AwaitedItself(Same):
    """The same one level up."""

    async def execute(self, input_data, context):
        return {}


class AwaitedMemory(zerocost.MemoryArtifact):
    """And in a memory."""

    def retrieve(self, key):
        return None

    async def store(self, key, value):
        return True

    def clear(self):
        return True


class AwaitedQuietly(AttentionArtifact):
    """A function that returns a coroutine."""

    def process_attention(self, attention_matrix):
        return Awaited.process_attention(self, attention_matrix)


class AwaitedQuietlyItself(Same):
    """The same one level up."""

    def execute(self, input_data, context):
        return AwaitedItself.execute(self, input_data, context)


@pytest.mark.parametrize(
    ("kind", "method"),
    [(Awaited, "process_attention"), (AwaitedItself, "execute"), (AwaitedMemory, "store")],
)
def test_coroutine_functions_are_refused_by_name(registry, kind, method):
    with pytest.raises(
        TypeError, match=rf"{kind.__name__}\.{method} is a coroutine function.*write def, not async def"
    ):
        registry.register_artifact("awaited", kind(), "attention")
    assert "awaited" not in registry


@pytest.mark.parametrize("kind", [AwaitedQuietly, AwaitedQuietlyItself])
def test_a_coroutine_as_a_result_is_refused(registry, kind):
    registry.register_artifact("quiet", kind(), "attention")
    service = zerocost.ArtifactCommunicationService(registry)
    inputs = {"attention_matrix": np.eye(2)}
    context = zerocost.ExecutionContext("quiet", "attention", "zero_cost")
    for call in (
        lambda: service.call_artifact("quiet", inputs, context),
        lambda: service.chain_artifacts([{"artifact": "quiet"}], inputs),
        lambda: zerocost.ArtifactRESTAPI(registry).run("quiet", inputs),
    ):
        with pytest.raises(zerocost.InvalidOutput, match="returned a coroutine"):
            call()


def test_a_category_s_method_refuses_coroutines_too():
    context = zerocost.ExecutionContext("x", "x", "zero_cost")
    with pytest.raises(zerocost.InvalidOutput, match=r"Awaited\.process_attention returned a coroutine"):
        Awaited().execute({"attention_matrix": np.eye(2)}, context)
    with pytest.raises(zerocost.InvalidOutput, match=r"AwaitedMemory\.store returned a coroutine"):
        AwaitedMemory().execute({"operation": "put", "key": "a", "value": 1}, context)


def test_a_result_that_is_not_a_dict_is_refused_by_name(registry):
    class Wrong(Same):
        def execute(self, input_data, context):
            return [1]

    registry.register_artifact("wrong", Wrong(), "attention")
    service = zerocost.ArtifactCommunicationService(registry)
    with pytest.raises(zerocost.InvalidOutput, match="artifact 'wrong': execute returned list, a dict is needed"):
        service.call_artifact(
            "wrong", {"attention_matrix": np.eye(2)}, zerocost.ExecutionContext("w", "x", "zero_cost")
        )


def test_an_artifact_has_one_ports_under_whatever_names(registry):
    artifact = Same()
    artifact.execute({"attention_matrix": np.eye(2)}, zerocost.ExecutionContext("x", "x", "zero_cost"))
    specs = [registry.register_artifact(name, artifact, "attention") for name in ("a", "b")]
    assert specs[0].ports is specs[1].ports is artifact._ports


def test_artifact_is_abstract():
    with pytest.raises(TypeError):
        Artifact()
