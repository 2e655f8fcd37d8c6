"""Third-party artifacts unlike the built-in ones: each works, or is refused by name, on every call path."""

import copy
import pickle
from typing import Annotated

import numpy as np
import pytest
from starlette.testclient import TestClient

import zerocost
from zerocost import Artifact, ArtifactCommunicationService, ArtifactRegistry, AttentionArtifact, MemoryArtifact
from zerocost.core.chain_cache import PlanCache
from zerocost.core.ports import Ports
from zerocost.core.safetensors import to_pieces


def taking(datatype):
    class Typed(AttentionArtifact):
        def process_attention(self, attention_matrix: Annotated[np.ndarray, {"x-tensor": {"datatypes": [datatype]}}]):
            return attention_matrix

    return Typed()


@pytest.fixture
def service():
    registry = ArtifactRegistry()
    registry.register_artifact("single", taking("FP32"), "attention")
    registry.register_artifact("double", taking("FP64"), "attention")
    return ArtifactCommunicationService(registry)


SHARED = [{"artifact": "single"}, {"artifact": "double", "inputs": {"attention_matrix": "$.attention_matrix"}}]


def test_steps_of_other_datatypes_convert_a_list_themselves(service):
    result = service.chain_artifacts(SHARED, {"attention_matrix": [[0.1]]})["processed_attention"]
    assert result.dtype == np.float64
    assert result[0, 0] == 0.1
    app = zerocost.create_app(service.registry)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        body = {"pipeline": SHARED, "initial_input": {"attention_matrix": [[0.1]]}}
        answer = client.post("/chains/execute", json=body)
        assert answer.json()["data"]["processed_attention"] == [[0.1]], answer.text


def test_one_array_is_made_for_steps_of_one_type(service):
    pipeline = [{"artifact": "single"}, {**SHARED[1], "artifact": "single"}]
    run = service.run_chain(pipeline, {"attention_matrix": [[0.1]]})
    first, second = (run.outputs[name]["processed_attention"] for name in ("0", "1"))
    assert first is second


@pytest.mark.parametrize(
    "pipeline",
    [
        [{"artifact": "single", "id": "x"}, {"artifact": "single", "after": "x"}],
        [{"artifact": "double", "params": "attention_matrix"}],
    ],
)
def test_an_invalid_chain_is_refused_after_a_valid_one(service, pipeline):
    right = copy.deepcopy(pipeline)
    for step in right:
        if "after" in step:
            step["after"] = [step["after"]]
        if "params" in step:
            step["params"] = {step["params"]: np.ones((1, 1))}
    given = {"attention_matrix": np.ones((1, 1), np.float32 if len(pipeline) > 1 else np.float64)}
    with pytest.raises(zerocost.PlanError):
        service.chain_artifacts(pipeline, given)
    service.chain_artifacts(right, given)
    with pytest.raises(zerocost.PlanError):
        service.chain_artifacts(pipeline, given)


def test_plans_with_long_names_are_not_cached(service):
    plans = PlanCache(service.registry)
    plans.plan([{"artifact": "single", "id": "x" * 9000}], ["attention_matrix"])
    named = [{"artifact": "single", "id": "a", "inputs": {"attention_matrix": "$." + "y" * 9000}}]
    plans.plan(named, ["y" * 9000])
    assert len(plans) == 0
    plans.plan([{"artifact": "single", "id": "x" * 90}], ["attention_matrix"])
    assert len(plans) == 1


class Counting(AttentionArtifact):
    """Has attributes of names that the base class might have."""

    def __init__(self):
        self._calls, self._process = 0, "gpu"

    def process_attention(self, attention_matrix):
        """Counts.

        Args:
            attention_matrix: what comes back.
        """
        self._calls += 1
        return attention_matrix


def test_an_artifact_s_own_attributes_are_copied():
    artifact = Counting()
    context = zerocost.ExecutionContext("counting", "attention", "zero_cost", {})
    artifact.execute({"attention_matrix": [[1.0]]}, context)
    for made in (copy.deepcopy(artifact), pickle.loads(pickle.dumps(artifact))):
        made.execute({"attention_matrix": [[1.0]]}, context)
        assert (made._calls, made._process) == (2, "gpu")


def test_a_copied_spec_has_the_ports_of_its_artifact():
    registry = ArtifactRegistry()
    registry.register_artifact("counting", Counting(), "attention")
    spec = registry.get_artifact("counting")
    for made in (copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert made.ports is made.implementation._ports


class Picky(AttentionArtifact):
    """Names an input where a pointer belongs."""

    def process_attention(self, attention_matrix, weight: float = 1.0):
        """Refuses.

        Args:
            attention_matrix: the matrix.
            weight: what it does not like.
        """
        return attention_matrix

    def input_errors(self, input_data):
        return [("weight", "bad")]


def test_names_with_slashes_are_escaped_on_every_call_path():
    registry = ArtifactRegistry()
    registry.register_artifact("picky", Picky(), "attention")
    service = ArtifactCommunicationService(registry)
    inputs = {"attention_matrix": np.ones((1, 1)), "weight": 2.0}
    with pytest.raises(zerocost.InvalidInput) as called:
        service.call_artifact("picky", inputs, zerocost.ExecutionContext("picky", "attention", "zero_cost", {}))
    assert called.value.errors == [("/weight", "bad")]
    with pytest.raises(zerocost.InvalidInput) as chained:
        service.chain_artifacts([{"artifact": "picky"}], inputs)
    assert chained.value.errors == [("/initial_input/weight", "bad")]


@pytest.mark.parametrize("method", ["validate_input", "input_errors", "output_elements", "operations"])
def test_no_method_of_an_artifact_may_be_a_coroutine(method):
    async def asked(self, input_data):
        return False

    kind = type("Asking", (Counting,), {method: asked})
    with pytest.raises(TypeError, match=method):
        ArtifactRegistry().register_artifact("asking", kind(), "attention")


class Open(Artifact):
    def execute(self, input_data, context):
        return {"seen": dict(input_data)}

    def get_schema(self):
        return SCHEMA


SCHEMA = {
    "type": "object",
    "properties": {"weight": {"type": "number", "maximum": 1}},
    "additionalProperties": {"type": "integer"},
}


def test_names_must_be_text_and_numpy_s_numbers_are_numbers():
    ports = Open()._ports
    with pytest.raises(zerocost.UndeclaredInput, match="'1' is not an input"):
        ports.bind({1: 2})
    assert type(ports.bind({"more": np.int64(3)})["more"]) is int


def test_changing_a_schema_after_registration_changes_nothing():
    schema = copy.deepcopy(SCHEMA)
    ports = Ports(schema)
    schema["properties"]["weight"]["maximum"] = 100
    with pytest.raises(zerocost.RangeError):
        ports.bind({"weight": 50})


@pytest.mark.parametrize(
    ("operations", "message"),
    [({"go": 5}, "a list"), ({"go": "abc"}, "a list"), ({"go": ["key"]}, "'key'")],
)
def test_unknown_operations_are_refused(operations, message):
    schema = {"type": "object", "properties": {"operation": {"enum": ["go"]}}, "x-operations": operations}
    with pytest.raises(zerocost.InvalidSchema, match=message):
        Ports(schema)


class Shelf(MemoryArtifact):
    def __init__(self):
        self._calls = {}

    def retrieve(self, key):
        return self._calls.get(key)

    def store(self, key, value):
        self._calls[key] = value
        return True

    def clear(self):
        self._calls.clear()
        return True


def test_a_memory_artifact_may_have_any_attributes():
    shelf, context = Shelf(), zerocost.ExecutionContext("shelf", "memory", "zero_cost", {})
    assert shelf.execute({"operation": "put", "key": "a", "value": 1}, context)["result"] is True
    assert copy.deepcopy(shelf).execute({"key": "a"}, context)["result"] == 1


@pytest.mark.parametrize("shape", [["...", "n", "n"], [2, "n", "n"], ["m", "n", "m", 3], ["...", 3], []])
def test_shapes_are_distinguished_as_declared(shape):
    ports = Ports({"type": "object", "properties": {"x": {"x-tensor": {"shape": shape}}}})
    rng = np.random.default_rng(0)
    fits = 0
    for _ in range(300):
        given = tuple(rng.integers(1, 4, rng.integers(0, 5)))
        axes = shape[1:] if shape[:1] == ["..."] else shape
        tail = given[len(given) - len(axes) :] if len(given) >= len(axes) else None
        sizes = {}
        expected = (
            tail is not None
            and (axes is not shape or len(given) == len(axes))
            and all(
                length == axis if isinstance(axis, int) else sizes.setdefault(axis, length) == length
                for axis, length in zip(axes, tail, strict=True)
            )
        )
        try:
            ports.bind({"x": np.zeros(given)})
            fitted = True
        except zerocost.ShapeError:
            fitted = False
        assert fitted == expected, (given, shape)
        fits += fitted
    assert 0 < fits < 300


@pytest.mark.parametrize("kind", ["application/json", "application/vnd.safetensors"])
def test_a_raw_entry_is_a_value_in_the_process(kind):
    registry = zerocost.default_registry()
    body = b"[[1.5, 2]]" if kind == "application/json" else b"".join(to_pieces({"m": np.array([[1.5, 2]])}, "{}"))
    with TestClient(zerocost.create_app(registry), base_url="http://127.0.0.1") as client:
        put = client.put("/services/memory/entries/m", content=body, headers={"content-type": kind})
    assert put.status_code == 204
    get = [{"artifact": "lru_cache", "params": {"key": "m"}}]
    held = ArtifactCommunicationService(registry).chain_artifacts(get, {})["result"]
    assert (held if kind == "application/json" else held["m"].tolist()) == [[1.5, 2]]
