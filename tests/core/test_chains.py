"""Chains: wiring, what may run beside what, errors, deadlines, the trace."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zerocost
from support.contract import ArtifactContract
from support.equality import same
from zerocost import (
    Artifact,
    ArtifactCommunicationService,
    ArtifactRegistry,
    AttentionArtifact,
    ChainArtifact,
    ExecutionContext,
    ParallelArtifact,
)


class Scale(AttentionArtifact):
    """Multiplies."""

    def process_attention(self, attention_matrix, factor: float = 2.0, bias: np.ndarray | None = None):
        """Multiplies and adds.

        Args:
            attention_matrix: the matrix.
            factor: what it is multiplied by.
            bias: what is added.
        """
        scaled = attention_matrix * factor
        return scaled if bias is None else scaled + bias


class Cut(ParallelArtifact):
    """Cuts."""

    def process_parallel(self, tensor, num_splits: int = 2):
        """Cuts along the last axis.

        Args:
            tensor: what is cut.
            num_splits: into how many.
        """
        return np.array_split(tensor, num_splits, axis=-1)


class Free(Artifact):
    """Declares nothing at all."""

    def execute(self, input_data, context):
        return {"doubled": next(iter(input_data.values())) * 2, "seen": sorted(input_data)}

    def get_schema(self):
        return {}


class Function(Artifact):
    """Calls a function with x."""

    def __init__(self, function):
        self.function = function

    def execute(self, input_data, context):
        return {"y": self.function(input_data["x"], context)}

    def get_schema(self):
        return {"properties": {"x": {}}, "required": ["x"], "x-outputs": {"y": {}}}


@pytest.fixture
def registry():
    registry = ArtifactRegistry()
    registry.register_artifact("scale", Scale(), "attention")
    registry.register_artifact("cut", Cut(), "parallel")
    registry.register_artifact("free", Free(), "custom")
    return registry


@pytest.fixture
def service(registry):
    return ArtifactCommunicationService(registry)


@pytest.fixture
def matrix():
    return np.random.default_rng(1).standard_normal((3, 4))


def test_the_main_output_becomes_the_main_input(service, matrix):
    result = service.chain_artifacts([{"artifact": "scale"}, {"artifact": "cut"}], {"attention_matrix": matrix})
    assert same(result["result"], np.array_split(matrix * 2, 2, axis=-1))
    assert result["artifact_used"] == "cut"


def test_what_the_caller_puts_in_is_what_the_artifact_gets(service, registry, matrix):
    seen = []
    registry.register_artifact("look", Function(lambda x, context: seen.append(x) or x), "custom")
    result = service.chain_artifacts([{"artifact": "look"}, {"artifact": "look"}], {"x": matrix})
    assert seen[0] is matrix
    assert seen[1] is matrix
    assert result["y"] is matrix


def test_params_win_over_the_running_result_and_inputs_may_not_repeat_them(service, matrix):
    initial = {"attention_matrix": matrix, "factor": 5.0}
    assert same(service.chain_artifacts([{"artifact": "scale"}], initial)["processed_attention"], matrix * 5)
    step = {"artifact": "scale", "params": {"factor": 3.0}}
    assert same(service.chain_artifacts([step], initial)["processed_attention"], matrix * 3)
    with pytest.raises(zerocost.PlanError, match="given in 'inputs' and in 'params'"):
        service.plan([{**step, "inputs": {"factor": "$.factor"}}], initial)


def test_undeclared_keys_of_the_running_result_are_dropped(service, matrix):
    chain = [{"artifact": "scale"}, {"artifact": "scale"}]
    result = service.chain_artifacts(chain, {"attention_matrix": matrix, "artifact_used": "a result's"})
    assert same(result["processed_attention"], matrix * 4)


@pytest.mark.parametrize(
    ("chain", "extra", "message"),
    [
        ([{"artifact": "scale"}], {"something": 1}, "'something' is not an input of the chain; there are"),
        ([{"artifact": "scale"}], {"facto": 1.0}, "did you mean 'factor'"),
        ([{"artifact": "scale"}, {"artifact": "cut"}], {"num_splits": 3}, r"step 1 \(cut\) takes it from its 'params'"),
    ],
)
def test_a_name_in_the_initial_input_that_no_step_takes_is_refused(service, registry, matrix, chain, extra, message):
    name = next(iter(extra))
    for call in (service.chain_artifacts, service.run_chain, service.plan):
        with pytest.raises(zerocost.UndeclaredInput, match=message) as caught:
            call(chain, {"attention_matrix": matrix, **extra})
        assert [where for where, _ in caught.value.errors] == [f"/initial_input/{name}"]
    context = ExecutionContext("c", "chain", "zero_cost", {})
    with pytest.raises(zerocost.UndeclaredInput) as caught:
        ChainArtifact(chain, registry).execute({"attention_matrix": matrix, **extra}, context)
    assert [where for where, _ in caught.value.errors] == [f"/{name}"]


def test_names_in_the_initial_input_that_a_step_takes(service, registry, matrix):
    # Declared by the first step, even where its params win; what a later step requires and nothing gives; `$.name`.
    step = {"artifact": "scale", "params": {"factor": 3.0}}
    assert same(
        service.chain_artifacts([step], {"attention_matrix": matrix, "factor": 5.0})["processed_attention"], matrix * 3
    )
    registry.register_artifact("declares", Renamed(), "custom")
    chain = [{"artifact": "declares"}, {"artifact": "both"}]
    registry.register_artifact("both", Both(), "custom")
    assert service.chain_artifacts(chain, {"x": 1, "later": 2}) == {"sum": 3}
    context = ExecutionContext("c", "chain", "zero_cost", {})
    assert ChainArtifact(chain, registry).execute({"x": 1, "later": 2}, context) == {"sum": 3}
    with pytest.raises(zerocost.PlanError, match="nothing gives its input 'later'"):
        service.chain_artifacts(chain, {"x": 1})
    with pytest.raises(zerocost.MissingInput, match="x required") as caught:
        service.chain_artifacts(chain, {"later": 1})
    assert caught.value.errors == [("/initial_input/x", "x required")]


class Renamed(Artifact):
    """Gives its x as y."""

    def get_schema(self):
        return {"properties": {"x": {}}, "required": ["x"], "x-outputs": {"y": {}}}

    def execute(self, input_data, context):
        return {"y": input_data["x"]}


class Both(Artifact):
    """Adds a y to something that comes later."""

    def get_schema(self):
        return {"properties": {"y": {}, "later": {}}, "required": ["y", "later"], "x-outputs": {"sum": {}}}

    def execute(self, input_data, context):
        return {"sum": input_data["y"] + input_data["later"]}


@pytest.mark.parametrize(
    ("chain", "initial", "kind", "where"),
    [
        ([{"artifact": "scale", "params": {"fcator": 1}}], {}, zerocost.UndeclaredInput, "/pipeline/0/params/fcator"),
        ([{"artifact": "scale", "params": {"factor": "x"}}], {}, zerocost.DatatypeError, "/pipeline/0/params/factor"),
        ([{"artifact": "scale"}], {"factor": "x"}, zerocost.DatatypeError, "/initial_input/factor"),
        (
            [{"artifact": "scale"}],
            {"attention_matrix": [[1], [1, 2]]},
            zerocost.ShapeError,
            "/initial_input/attention_matrix",
        ),
        (
            [{"artifact": "scale"}, {"artifact": "cut", "params": {"num_splits": "many"}}],
            {},
            zerocost.DatatypeError,
            "/pipeline/1/params/num_splits",
        ),
        (
            [
                {"artifact": "scale"},
                {"artifact": "scale", "inputs": {"attention_matrix": "0.processed_attention", "factor": "$.f~"}},
            ],
            {"f~": "x"},
            zerocost.DatatypeError,
            "/initial_input/f~0",
        ),
    ],
)
def test_what_is_wrong_with_a_value_is_said_before_the_first_step_runs(
    service, registry, matrix, chain, initial, kind, where
):
    ran = []

    class Notes(Scale):
        def process_attention(self, attention_matrix, factor: float = 2.0):
            ran.append(factor)
            return attention_matrix

    registry.register_artifact("scale", Notes(), "attention", replace=True)
    with pytest.raises(kind) as caught:
        service.chain_artifacts(chain, {"attention_matrix": matrix, **initial})
    assert type(caught.value) is kind
    assert [place for place, _ in caught.value.errors] == [where]
    assert ran == []


def test_what_another_step_gave_is_the_steps_own(service, registry, matrix):
    registry.register_artifact("text", Function(lambda x, context: "text"), "custom")
    chain = [{"artifact": "text"}, {"artifact": "scale", "inputs": {"attention_matrix": "0.y"}}]
    with pytest.raises(zerocost.DatatypeError) as caught:
        service.chain_artifacts(chain, {"x": 1})
    assert [place for place, _ in caught.value.errors] == ["/pipeline/1"]
    assert caught.value.__notes__ == ["in step 1 (scale) of the chain"]


def test_a_list_is_made_an_array_once_for_all_steps_that_take_it(service, registry):
    seen = []
    registry.register_artifact("look", Seen(seen), "custom")
    chain = [{"artifact": "look"}, {"artifact": "look", "inputs": {"m": "$.m"}}]
    run = service.run_chain(chain, {"m": [[1.0, 2.0]]})
    assert seen[0] is seen[1]
    assert [step.bytes_copied for step in run.trace] == [16, 0]


class Seen(Artifact):
    """Notes its array."""

    def __init__(self, seen):
        self.seen = seen

    def get_schema(self):
        return {"properties": {"m": {"x-tensor": {}}}, "required": ["m"], "x-outputs": {"m": {}}}

    def execute(self, input_data, context):
        self.seen.append(input_data["m"])
        return {"m": input_data["m"]}


def test_mapped_inputs(service, matrix):
    chain = [
        {"artifact": "scale", "id": "twice"},
        {"artifact": "scale", "id": "both", "inputs": {"attention_matrix": "$.attention_matrix"}},
        {
            "artifact": "scale",
            "params": {"factor": 1.0},
            "inputs": {"attention_matrix": "twice.processed_attention", "bias": "both.processed_attention"},
        },
    ]
    result = service.chain_artifacts(chain, {"attention_matrix": matrix})
    assert same(result["processed_attention"], matrix * 4)


def test_each_runs_once_per_element_and_outputs_become_lists(service, matrix):
    chain = [{"artifact": "cut", "params": {"num_splits": 3}}, {"artifact": "scale", "each": True}]
    result = service.chain_artifacts(chain, {"tensor": matrix})
    assert same(result["processed_attention"], [part * 2 for part in np.array_split(matrix, 3, axis=-1)])
    assert result["artifact_used"] == ["scale"] * 3
    named = [{"artifact": "scale", "each": "factor", "params": {"factor": [1.0, 2.0]}}]
    with pytest.raises(zerocost.DatatypeError, match="factor"):
        service.plan(named, {"attention_matrix": matrix})
    mapped = [{"artifact": "scale", "each": "factor", "inputs": {"factor": "$.factors"}}]
    result = service.chain_artifacts(mapped, {"attention_matrix": matrix, "factors": [1.0, 2.0]})
    assert same(result["processed_attention"], [matrix, matrix * 2])


def test_each_over_nothing_gives_empty_lists(service):
    result = service.chain_artifacts([{"artifact": "scale", "each": True}], {"attention_matrix": []})
    assert result == {"processed_attention": [], "artifact_used": []}


def test_each_needs_a_list(service, matrix):
    with pytest.raises(TypeError, match="attention_matrix: ndarray was given, 'each' needs a list"):
        service.chain_artifacts([{"artifact": "scale", "each": True}], {"attention_matrix": matrix})


def test_an_error_in_one_of_each_keeps_its_class_and_leaves_no_thread(service, registry):
    def fail(x, context):
        if x == 3:
            raise LookupError("three")
        return x

    registry.register_artifact("fail", Function(fail), "custom")
    before = threading.active_count()
    with pytest.raises(LookupError, match="three") as caught:
        service.chain_artifacts([{"artifact": "fail", "each": True}], {"x": list(range(100))})
    assert caught.value.__notes__ == ["in step 0 (fail) of the chain"]
    assert threading.active_count() == before


def test_undeclared_outputs_are_bound_by_name_when_it_runs(service, registry, matrix):
    result = service.chain_artifacts([{"artifact": "free"}, {"artifact": "scale"}], {"attention_matrix": matrix})
    assert same(result["processed_attention"], matrix * 4)
    result = service.chain_artifacts([{"artifact": "scale"}, {"artifact": "free"}], {"attention_matrix": matrix})
    assert result["seen"] == ["artifact_used", "processed_attention"]


def test_steps_without_a_common_input_run_beside_each_other(service, registry):
    barrier = threading.Barrier(2, timeout=10)
    registry.register_artifact("meet", Function(lambda x, context: (barrier.wait(), x)[1]), "custom")
    chain = [
        {"artifact": "meet", "id": "a"},
        {"artifact": "meet", "id": "b", "inputs": {"x": "$.x"}},
    ]
    assert service.run_chain(chain, {"x": 1}).outputs == {"a": {"y": 1}, "b": {"y": 1}}


def test_after_orders_steps_that_share_nothing(service, registry):
    order = []

    def note(x, context):
        time.sleep(0.02 if x == "first" else 0)
        order.append(x)
        return x

    registry.register_artifact("note", Function(note), "custom")
    chain = [
        {"artifact": "note", "id": "a", "inputs": {"x": "$.p"}},
        {"artifact": "note", "id": "b", "inputs": {"x": "$.q"}, "after": ["a"]},
        {"artifact": "note", "id": "c", "inputs": {"x": "$.q"}, "after": ["a", "b"]},
    ]
    service.chain_artifacts(chain, {"p": "first", "q": "then"})
    assert order == ["first", "then", "then"]


def test_after_a_failure_waiting_steps_do_not_run(service, registry):
    ran = []
    registry.register_artifact("run", Function(lambda x, context: ran.append(x)), "custom")
    registry.register_artifact("fail", Function(lambda x, context: 1 / 0), "custom")
    chain = [
        {"artifact": "fail", "id": "a", "inputs": {"x": "$.x"}},
        {"artifact": "run", "id": "b", "inputs": {"x": "a.y"}},
    ]
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError) as caught:
        service.chain_artifacts([*chain, {"artifact": "fail", "inputs": {"x": "$.x"}, "after": ["b"]}], {"x": 1})
    assert caught.value.__notes__ == ["in step 0 (fail) of the chain"]
    assert ran == []
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("chain", "step", "port", "message"),
    [
        ([], None, None, "it has no step"),
        ("scale", None, None, "a list of steps is needed"),
        ([3], 0, None, "step 0: int was given"),
        ([{"params": {}}], 0, None, "'artifact' must be the name"),
        ([{"artifact": "scale", "parms": {}}], 0, None, "unknown key 'parms'; did you mean 'params'?"),
        ([{"artifact": "scale", "params": [1]}], 0, None, "params: list was given"),
        ([{"artifact": "scale"}, {"artifact": "cut", "inputs": {"n": "$.n"}}], 1, None, "'n' is not an input"),
        ([{"artifact": "scale", "params": {"bias": np.ones(3, complex)}}], 0, None, None),
        (
            [{"artifact": "scale"}, {"artifact": "scale", "inputs": {}}, {"artifact": "cut", "inputs": {}}],
            2,
            "tensor",
            "nothing gives its input 'tensor'",
        ),
        ([{"artifact": "scale", "id": "a b"}], 0, None, "letters, digits"),
        ([{"artifact": "scale", "id": "1"}, {"artifact": "scale"}], 1, None, "is step 0's already"),
        ([{"artifact": "scale", "inputs": {"attention_matrix": "x.y"}}], 0, None, "no step 'x'"),
        ([{"artifact": "scale", "inputs": {"attention_matrix": "$.y"}}], 0, "attention_matrix", "has no 'y'"),
        (
            [{"artifact": "scale", "inputs": {"attention_matrix": "y"}}],
            0,
            "attention_matrix",
            "'step.port' or '$.name'",
        ),
        ([{"artifact": "scale", "id": "a", "inputs": {"attention_matrix": "a.y"}}], 0, None, "does not come before"),
        (
            [{"artifact": "scale", "inputs": {"attention_matrix": "b.y"}}, {"artifact": "scale", "id": "b"}],
            0,
            None,
            "does not come before this one",
        ),
        (
            [{"artifact": "scale"}, {"artifact": "cut", "inputs": {"tensor": "0.result"}}],
            1,
            "tensor",
            "step '0' has no output 'result'; there are",
        ),
        ([{"artifact": "scale", "after": "0"}], 0, None, "a list of step ids is needed"),
        ([{"artifact": "scale", "after": ["9"]}], 0, None, "after: no step '9'"),
        ([{"artifact": "scale", "each": "factor"}], 0, "factor", "nothing gives the input 'factor'"),
        ([{"artifact": "scale", "each": "nothing"}], 0, "nothing", "'nothing' is not an input"),
        ([{"artifact": "scale"}, {"artifact": "cut", "inputs": {}}], 1, "tensor", "nothing gives its input 'tensor'"),
        (
            [{"artifact": "scale"}, {"artifact": "cut", "inputs": {"tensor": "0.artifact_used"}}],
            1,
            "tensor",
            "is a string",
        ),
    ],
)
def test_a_chain_that_cannot_work_fails_before_its_first_step(service, matrix, chain, step, port, message):
    if message is None:
        service.plan(chain, {"attention_matrix": matrix})  # complex is fine for a tensor of any datatype
        return
    with pytest.raises(zerocost.PlanError) as caught:
        service.chain_artifacts(chain, {"attention_matrix": matrix})
    assert message in str(caught.value)
    assert caught.value.step == step
    if port is not None:
        assert caught.value.port == port
        assert caught.value.artifact == chain[step]["artifact"]


def test_an_unknown_artifact_says_which_step(service, matrix):
    with pytest.raises(zerocost.UnknownArtifact, match="did you mean 'scale'") as caught:
        service.chain_artifacts([{"artifact": "scale"}, {"artifact": "scal"}], {"attention_matrix": matrix})
    assert caught.value.__notes__ == ["in step 1 of the chain"]


def test_a_plan_is_plain_json(service, matrix):
    plan = service.plan(
        [{"artifact": "scale", "params": {"factor": 2}}, {"artifact": "cut", "id": "c"}], ["attention_matrix"]
    )
    assert plan.to_dict() == {
        "inputs": ["attention_matrix"],
        "required": ["attention_matrix"],
        "steps": [
            {
                "index": 0,
                "id": "0",
                "artifact": "scale",
                "waits_for": [],
                "inputs": {"factor": "params", "attention_matrix": "$.attention_matrix"},
            },
            {
                "index": 1,
                "id": "c",
                "artifact": "cut",
                "waits_for": ["0"],
                "inputs": {"tensor": "0.processed_attention"},
            },
        ],
    }


def test_steps_know_where_they_are(service, registry):
    contexts = []
    registry.register_artifact("look", Function(lambda x, context: contexts.append(context)), "custom")
    context = ExecutionContext("c", "chain", "restful", {"request_id": "r1"})
    service.chain_artifacts([{"artifact": "look"}, {"artifact": "look"}], {"x": 1}, context)
    assert [entry.metadata["step"] for entry in contexts] == [0, 1]
    assert {entry.metadata["steps"] for entry in contexts} == {2}
    assert {entry.metadata["request_id"] for entry in contexts} == {"r1"}
    assert len({entry.metadata["chain_id"] for entry in contexts}) == 1
    assert {(entry.mode, entry.interface, entry.artifact_name) for entry in contexts} == {("restful", "chain", "look")}


def test_a_deadline_holds_for_the_whole_chain(service, registry):
    registry.register_artifact("wait", Function(lambda x, context: time.sleep(0.05) or x), "custom")
    context = ExecutionContext("c", "chain", "zero_cost", {"deadline": time.monotonic() + 0.02})
    with pytest.raises(TimeoutError, match="the deadline passed") as caught:
        service.chain_artifacts([{"artifact": "wait"}, {"artifact": "wait"}], {"x": 1}, context)
    assert caught.value.__notes__ == ["in step 1 (wait) of the chain"]


def test_a_deadline_holds_between_the_elements_of_each(service, registry):
    registry.register_artifact("wait", Function(lambda x, context: time.sleep(0.05) or x), "custom")
    context = ExecutionContext("c", "chain", "zero_cost", {"deadline": time.monotonic() + 0.12})
    with pytest.raises(TimeoutError, match="the deadline passed"):
        service.chain_artifacts([{"artifact": "wait", "each": True}], {"x": list(range(100))}, context)


@pytest.mark.parametrize("after", [[[]], [{}], [0], [None]])
def test_after_takes_ids_only(service, matrix, after):
    with pytest.raises(zerocost.PlanError, match="the id of a step is needed"):
        service.plan([{"artifact": "scale", "after": after}], {"attention_matrix": matrix})


@pytest.mark.parametrize("value", [None, [1], "x"])
def test_what_is_no_dict_is_named(service, value):
    context = ExecutionContext("c", "chain", "zero_cost", {})
    with pytest.raises(TypeError, match=r"initial_input: .* was given, a dict is needed"):
        service.chain_artifacts([{"artifact": "scale"}], value)
    with pytest.raises(TypeError, match=r"input_data: .* was given, a dict is needed"):
        service.call_artifact("scale", value, context)


def test_a_list_of_arrays_is_not_stacked(service, registry, matrix):
    class Kernel(AttentionArtifact):
        """Reads as a kernel does."""

        def process_attention(self, attention_matrix):
            return zerocost.core.arrays.as_floating(attention_matrix, "attention_matrix")

    registry.register_artifact("kernel", Kernel(), "attention")
    with pytest.raises(TypeError, match="in a chain 'each' runs a step once"):
        service.chain_artifacts([{"artifact": "cut"}, {"artifact": "kernel"}], {"tensor": matrix})


def test_the_trace_counts_bytes_and_copies(service, registry, matrix):
    class Kernel(AttentionArtifact):
        """Reads as a kernel does."""

        def process_attention(self, attention_matrix):
            return zerocost.core.arrays.as_floating(attention_matrix, "attention_matrix")

    registry.register_artifact("kernel", Kernel(), "attention")
    run = service.run_chain([{"artifact": "kernel"}, {"artifact": "cut"}], {"attention_matrix": matrix})
    assert [(step.bytes_in, step.bytes_out, step.bytes_copied) for step in run.trace] == [(96, 96, 0), (96, 96, 0)]
    assert all(np.shares_memory(part, matrix) for part in run.result["result"])
    assert run.trace[0].thread == threading.current_thread().name
    assert 0 <= run.trace[0].start <= run.trace[1].start
    listed = service.run_chain([{"artifact": "kernel"}], {"attention_matrix": matrix.tolist()})
    assert listed.trace[0].bytes_copied == 96
    assert (
        service.chain_artifacts([{"artifact": "kernel"}], {"attention_matrix": matrix})["processed_attention"] is matrix
    )


def test_an_artifact_that_returns_no_dict_is_named(service, registry):
    class Wrong(Free):
        def execute(self, input_data, context):
            return [1]

    registry.register_artifact("wrong", Wrong(), "custom")
    with pytest.raises(TypeError, match="execute returned list"):
        service.chain_artifacts([{"artifact": "wrong"}], {"x": 1})


class TestChainArtifact(ArtifactContract):
    def make(self):
        registry = ArtifactRegistry()
        registry.register_artifact("scale", Scale(), "attention")
        registry.register_artifact("cut", Cut(), "parallel")
        return ChainArtifact([{"artifact": "scale", "params": {"factor": 3.0}}, {"artifact": "cut"}], registry)

    used = "cut"  # the outputs are the last step's, its name among them


def test_a_chain_is_an_artifact_in_other_chains(registry, service, matrix):
    registry.register_artifact("both", ChainArtifact([{"artifact": "scale"}, {"artifact": "cut"}], registry), "chain")
    schema = registry["both"].implementation.get_schema()
    assert list(schema["properties"]) == ["attention_matrix", "factor", "bias"]
    assert schema["required"] == ["attention_matrix"]
    assert schema["x-main"] == {"input": "attention_matrix", "output": "result"}
    chain = [{"artifact": "both"}, {"artifact": "scale", "each": True}]
    result = service.chain_artifacts(chain, {"attention_matrix": matrix, "factor": 3.0})
    assert same(result["processed_attention"], [part * 2 for part in np.array_split(matrix * 3.0, 2, axis=-1)])


def test_a_chain_follows_the_registry(registry, matrix):
    chain = ChainArtifact([{"artifact": "scale"}], registry)
    spec = registry.register_artifact("chain", chain, "chain")
    context = ExecutionContext("c", "chain", "zero_cost", {})

    class Negate(Scale):
        def process_attention(self, attention_matrix, factor: float = 2.0, bias: np.ndarray | None = None):
            return -attention_matrix

    registry.register_artifact("scale", Negate(), "attention", replace=True)
    assert same(chain.execute({"attention_matrix": matrix}, context)["processed_attention"], -matrix)
    registry.unregister_artifact("scale")
    with pytest.raises(zerocost.UnknownArtifact):
        chain.execute({"attention_matrix": matrix}, context)
    assert spec.ports is chain._ports


def test_a_chain_whose_inputs_would_be_others_says_so(registry, service, matrix):
    chain = ChainArtifact([{"artifact": "scale"}], registry)
    spec = registry.register_artifact("chain", chain, "chain")
    schema = chain.get_schema()

    class Narrow(Scale):
        def process_attention(self, attention_matrix):
            return -attention_matrix

    registry.register_artifact("scale", Narrow(), "attention", replace=True)
    context = ExecutionContext("c", "chain", "zero_cost", {})
    for call in (
        lambda: chain.execute({"attention_matrix": matrix}, context),
        lambda: service.call_artifact("chain", {"attention_matrix": matrix}, context),
        lambda: service.chain_artifacts([{"artifact": "chain"}], {"attention_matrix": matrix}),
    ):
        with pytest.raises(zerocost.PlanError, match="make the chain anew"):
            call()
    assert chain.get_schema() == schema
    assert spec.ports is chain._ports
    assert ChainArtifact([{"artifact": "scale"}], registry).get_schema() != schema


def test_unbound_ports_of_later_steps_become_inputs(registry, matrix):
    registry.register_artifact("add", Function(lambda x, context: x), "custom")
    chain = ChainArtifact([{"artifact": "scale"}, {"artifact": "add", "inputs": {}}], registry)
    assert chain.get_schema()["required"] == ["attention_matrix", "x"]
    context = ExecutionContext("c", "chain", "zero_cost", {})
    assert chain.execute({"attention_matrix": matrix, "x": 5}, context) == {"y": 5}


@given(factors=st.lists(st.floats(-3, 3), min_size=1, max_size=6), splits=st.integers(1, 5))
def test_a_chain_equals_the_calls_one_after_another(factors, splits):
    registry = ArtifactRegistry()
    registry.register_artifact("scale", Scale(), "attention")
    registry.register_artifact("cut", Cut(), "parallel")
    service = ArtifactCommunicationService(registry)
    matrix = np.random.default_rng(splits).standard_normal((2, 7))
    chain = [{"artifact": "scale", "params": {"factor": factor}} for factor in factors]
    chain.append({"artifact": "cut", "params": {"num_splits": splits}})
    expected = matrix
    for factor in factors:
        expected = expected * factor
    result = service.chain_artifacts(chain, {"attention_matrix": matrix})
    assert same(result["result"], np.array_split(expected, splits, axis=-1))


@st.composite
def graphs(draw):
    """Random chains: every step takes its x from an earlier step or from the initial input."""
    size = draw(st.integers(1, 7))
    sources = [draw(st.integers(-1, index - 1)) for index in range(size)]
    after = [draw(st.lists(st.integers(0, index - 1), max_size=2)) if index else [] for index in range(size)]
    return sources, after


@given(graphs())
def test_random_graphs_respect_their_order(graph):
    sources, after = graph
    finished, lock = [], threading.Lock()

    def work(x, context):
        with lock:
            finished.append(context.metadata["step"])
        return x + 1

    registry = ArtifactRegistry()
    registry.register_artifact("f", Function(work), "custom")
    chain = [
        {
            "artifact": "f",
            "id": f"s{index}",
            "inputs": {"x": "$.x" if source < 0 else f"s{source}.y"},
            "after": [f"s{other}" for other in after[index]],
        }
        for index, source in enumerate(sources)
    ]
    run = ArtifactCommunicationService(registry).run_chain(chain, {"x": 0})
    depth = {-1: 0}
    for index, source in enumerate(sources):
        depth[index] = depth[source] + 1
        assert run.outputs[f"s{index}"]["y"] == depth[index]
        position = {step: place for place, step in enumerate(finished)}
        for earlier in {source, *after[index]} - {-1}:
            assert position[earlier] < position[index]
