"""The contract mixin and the validator on third-party artifacts, and that both can fail."""

import asyncio
import sys
import threading
from typing import Annotated, Literal

import numpy as np
import pytest

import zerocost
from support.contract import ArtifactContract, context
from support.equality import same
from zerocost import Artifact, ArtifactValidator, AttentionArtifact, ExecutionContext, MemoryArtifact, ParallelArtifact
from zerocost.cli.asgi_transport import serve_in_process


class Blend(AttentionArtifact):
    """Blends scores with the identity."""

    def process_attention(
        self,
        attention_matrix,
        weight: Annotated[float, {"minimum": 0, "maximum": 1}] = 0.5,
        mode: Literal["scores", "weights"] = "scores",
        window: tuple[int, int] | None = None,
    ):
        """Blends.

        Args:
            attention_matrix: the matrix, ``[n, n]``.
            weight: how much of the identity.
            mode: what the matrix holds.
            window: not used,
                on two lines.
        """
        return (1 - weight) * attention_matrix + weight * np.eye(*attention_matrix.shape[-2:])


class TestBlend(ArtifactContract):
    def make(self):
        return Blend()


class Halves(ParallelArtifact):
    """Cuts in halves."""

    def process_parallel(self, tensor):
        """Cuts.

        Args:
            tensor: what to cut.
        """
        middle = tensor.shape[-1] // 2
        return [tensor[..., :middle], tensor[..., middle:]]


class TestHalves(ArtifactContract):
    def make(self):
        return Halves()


class Shelf(MemoryArtifact):
    """A dict."""

    def __init__(self):
        self.kept = {}

    def retrieve(self, key, **kwargs):
        return self.kept.get(key)

    def store(self, key, value, **kwargs):
        self.kept[key] = value
        return True

    def clear(self, **kwargs):
        self.kept.clear()
        return True


class TestShelf(ArtifactContract):
    def make(self):
        return Shelf()

    def required(self, artifact):
        return ["key"]  # the schema's conditions need it for the example's operation


def test_the_schema_of_a_signature():
    schema = Blend().get_schema()
    assert schema["properties"] == {
        "attention_matrix": {"description": "the matrix, ``[n, n]``.", "x-tensor": {}},
        "weight": {
            "description": "how much of the identity.",
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0.5,
        },
        "mode": {"description": "what the matrix holds.", "enum": ["scores", "weights"], "default": "scores"},
        "window": {
            "description": "not used, on two lines.",
            "anyOf": [
                {
                    "type": "array",
                    "prefixItems": [{"type": "integer"}, {"type": "integer"}],
                    "minItems": 2,
                    "maxItems": 2,
                },
                {"type": "null"},
            ],
            "default": None,
        },
    }
    assert schema["required"] == ["attention_matrix"]
    assert schema["additionalProperties"] is False
    assert schema["x-main"] == {"input": "attention_matrix", "output": "processed_attention"}


def test_a_memory_artifact_s_schema_has_its_operations():
    shelf = Shelf()
    assert shelf.get_schema()["properties"]["operation"]["enum"] == ["get", "put", "clear"]
    value = object()
    assert shelf.execute({"operation": "put", "key": "a", "value": value}, context())["result"] is True
    found = shelf.execute({"key": "a"}, context())
    assert found["result"] is value
    assert found["found"] is True
    assert shelf.execute({"key": "b"}, context())["found"] is False
    with pytest.raises(ValueError, match="Unknown operation: stats"):
        shelf.execute({"operation": "stats"}, context())
    with pytest.raises(zerocost.MissingInput, match="value required for 'put'"):
        shelf.execute({"operation": "put", "key": "a"}, context())
    assert shelf.input_errors({"operation": "put", "key": "a"}) == [("/value", "value required for 'put'")]
    assert shelf.input_errors({"operation": "stats"}) == [
        ("/operation", "Unknown operation: stats; there are get, put, clear")
    ]
    assert shelf.input_errors({"operation": "clear"}) == []
    assert shelf.input_errors({"operation": "put", "key": "a", "value": value}) == []
    assert shelf.input_errors({}) != []


def test_another_mode_is_refused():
    with pytest.raises(ValueError, match="'turbo' was given"):
        ExecutionContext("a", "b", "turbo", {})


class Open(Artifact):
    """Takes anything."""

    def execute(self, input_data, context):
        return dict(input_data)

    def get_schema(self):
        return {}


def test_an_artifact_without_properties_takes_anything():
    assert ArtifactValidator().validate_artifact(Open()) == (True, "Valid artifact")
    assert Open().input_errors({"anything": object()}) == []


def _defective(**methods):
    def execute(self, input_data, context):
        return {"y": input_data["x"] * 2}

    def get_schema(self):
        return {
            "type": "object",
            "properties": {"x": {"x-tensor": {"datatypes": ["FP32"], "shape": ["n"]}}, "k": {"type": "integer"}},
            "required": ["x"],
            "x-outputs": {"y": {"x-tensor": {"shape": ["n"]}}},
        }

    return type("Defective", (Artifact,), {"execute": execute, "get_schema": get_schema, **methods})()


def _changes_its_input(self, input_data, context):
    input_data["x"] *= 2
    return {"y": input_data["x"]}


def _grows_its_input(self, input_data, context):
    input_data["more"] = 1
    return {"y": input_data["x"]}


async def _awaited(self, input_data, context):
    return {"y": input_data["x"]}


def _random(size):
    return np.random.default_rng().random(size).astype(np.float32)


def _counts_up(self, input_data, context):
    self.count = getattr(self, "count", 0) + 1
    return {"y": input_data["x"], "count": self.count}


def _schema(**keywords):
    return lambda self: {"type": "object", "properties": {"x": {"x-tensor": {}}}, "required": ["x"], **keywords}


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"execute": lambda self, input_data: {}}, "must take (input_data, context)"),
        ({"execute": _awaited}, "execute must not be a coroutine function"),
        (
            {"execute": lambda self, input_data, context: {"y": input_data["x"] + _random(4)}},
            "called again with the same",
        ),
        ({"execute": _counts_up}, "called again with the same input: 'count'"),
        ({"get_schema": lambda self, name: {}}, "must take no argument"),
        ({"get_schema": lambda self: "schema"}, "Invalid schema"),
        ({"get_schema": _schema(type="objekt")}, "Invalid schema: /type"),
        ({"get_schema": _schema(**{"$ref": "http://localhost/x"})}, "only references within the schema"),
        ({"get_schema": _schema(**{"x-main": {"input": "z"}})}, "x-main names the input 'z'"),
        ({"get_schema": lambda self: 1 / 0}, "get_schema failed: division by zero"),
        ({"execute": lambda self, input_data, context: [1]}, "execute must return dict"),
        ({"execute": lambda self, input_data, context: {"y": {1}}}, "holds set, which has no form outside"),
        ({"execute": lambda self, input_data, context: {"y": [1j]}}, "holds complex, which has no form outside"),
        ({"execute": lambda self, input_data, context: {}}, "does not return the declared output 'y'"),
        ({"execute": lambda self, input_data, context: {"y": [1]}}, "declared as a tensor"),
        ({"execute": lambda self, input_data, context: {"y": input_data["x"][:1]}}, "with n = 4 as in x"),
        ({"execute": _changes_its_input}, "execute changes its input: x"),
        ({"execute": _grows_its_input}, "execute changes its input: more"),
        ({"execute": lambda self, input_data, context: 1 / 0}, "Execution failed: division by zero"),
        ({"execute": lambda self, input_data, context: sys.exit(3)}, "Execution failed: 3"),
        ({"validate_input": lambda self, input_data: True}, "validate_input accepts input without the required 'x'"),
    ],
)
def test_the_validator_finds_what_is_wrong(methods, message):
    valid, problem = ArtifactValidator().validate_artifact(_defective(**methods))
    assert not valid
    assert message in problem


def test_the_validator_accepts_a_correct_artifact():
    assert ArtifactValidator().validate_artifact(_defective()) == (True, "Valid artifact")


class Noise(AttentionArtifact):
    """Adds noise, as in the case that was seen."""

    def process_attention(self, attention_matrix):
        return attention_matrix + np.random.default_rng().random()


class KnownNoise(Noise):
    """Says that it adds noise."""

    def get_schema(self):
        return {**super().get_schema(), "x-deterministic": False}


def test_a_random_result_is_found_unless_it_is_declared():
    valid, problem = ArtifactValidator().validate_artifact(Noise())
    assert not valid
    assert "'processed_attention'" in problem
    assert '"x-deterministic": false' in problem
    assert ArtifactValidator().validate_artifact(KnownNoise()) == (True, "Valid artifact")
    assert ArtifactValidator(serve=serve_in_process).validate_artifact(KnownNoise()) == (True, "Valid artifact")


def test_a_reused_result_is_accepted():
    class Reuses(AttentionArtifact):
        """Writes into one array again and again."""

        def process_attention(self, attention_matrix):
            if not hasattr(self, "out"):
                self.out = np.zeros_like(attention_matrix)
            self.out += attention_matrix
            return self.out

    valid, problem = ArtifactValidator().validate_artifact(Reuses())
    assert not valid
    assert "called again" in problem


class Looks(Blend):
    """Gives another result over HTTP."""

    def execute(self, input_data, context):
        result = super().execute(input_data, context)
        return (
            result
            if context.mode == "zero_cost"
            else {**result, "processed_attention": result["processed_attention"] * 2}
        )


class Tuples(Artifact):
    """Returns what JSON cannot write: tuples, NumPy's numbers, infinity."""

    def get_schema(self):
        return {"properties": {"x": {"type": "number"}}, "required": ["x"], "x-outputs": {"y": {}}}

    def execute(self, input_data, context):
        return {"y": (1, np.float32(0.1), np.int8(3), [float("inf"), float("nan")], {"deep": (True, None)})}


@pytest.mark.parametrize("artifact", [Blend(), Halves(), Shelf(), Tuples(), _defective()])
def test_a_served_copy_gives_the_same(artifact):
    assert ArtifactValidator(serve=serve_in_process).validate_artifact(artifact) == (True, "Valid artifact")


def test_serving_a_copy_leaves_no_threads():
    before = set(threading.enumerate())
    for _ in range(3):
        assert ArtifactValidator(serve=serve_in_process).validate_artifact(Halves()) == (True, "Valid artifact")
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    assert not [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("zerocost-")]


def test_the_validator_finds_a_served_copy_that_differs():
    assert ArtifactValidator().validate_artifact(Looks()) == (True, "Valid artifact")
    valid, problem = ArtifactValidator(serve=serve_in_process).validate_artifact(Looks())
    assert not valid
    assert problem == "a served copy gives something else than a call in the process: 'processed_attention'"


def test_the_validator_can_be_asked_inside_an_event_loop():
    async def ask():
        return ArtifactValidator(serve=serve_in_process).validate_artifact(Blend())

    assert asyncio.run(ask()) == (True, "Valid artifact")


def test_an_artifact_without_methods_is_named():
    assert ArtifactValidator().validate_artifact(object()) == (False, "Missing execute method")


def test_same_sees_a_changed_bit():
    a = np.array([0.0, 1.0])
    assert same(a, a.copy())
    assert not same(a, np.array([-0.0, 1.0]))
    assert not same([a], [a.astype(np.float32)])


@pytest.mark.parametrize(
    "subschema",
    [
        {"type": "integer", "minimum": 3, "maximum": 4},
        {"type": "integer", "exclusiveMinimum": 3, "multipleOf": 5},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.1},
        {"type": "string", "minLength": 9},
        {"type": "string", "maxLength": 2},
        {"enum": ["b", "c"]},
        {"const": 7},
        {"type": ["null", "integer"]},
        {"anyOf": [{"type": "array", "items": {"type": "integer"}, "minItems": 2}, {"type": "null"}]},
        {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2},
        {"type": "string", "format": "date", "examples": ["2020-02-20"]},
    ],
)
def test_generated_input_fits_its_schema(subschema):
    schema = {"type": "object", "properties": {"p": subschema}, "required": ["p"]}
    generated = ArtifactValidator().generate_test_input(schema)

    class Holder(Open):
        def get_schema(self):
            return schema

    assert Holder().input_errors(generated) == []
    assert "p" in generated


def test_references_are_followed():
    schema = {
        "properties": {"p": {"$ref": "#/$defs/node"}},
        "required": ["p"],
        "$defs": {
            "size": {"type": "integer", "minimum": 3},
            "node": {"type": "object", "properties": {"size": {"$ref": "#/$defs/size"}}, "required": ["size"]},
        },
    }
    assert ArtifactValidator().generate_test_input(schema) == {"p": {"size": 4}}


def test_equal_symbols_get_equal_sizes():
    tensor = lambda *shape: {"x-tensor": {"datatypes": ["FP64"], "shape": list(shape)}}  # noqa: E731 - a table
    schema = {"properties": {"a": tensor("...", "n", "d"), "b": tensor("d", 3)}, "required": ["a", "b"]}
    generated = ArtifactValidator().generate_test_input(schema)
    assert generated["a"].shape[-1] == generated["b"].shape[0]
    assert generated["a"].shape[0] != generated["a"].shape[1]
    assert generated["a"].dtype == np.float64


def test_text_with_a_pattern_needs_an_example():
    schema = {"properties": {"p": {"type": "string", "pattern": "^a+$"}}, "required": ["p"]}
    with pytest.raises(zerocost.InvalidInput, match="needs 'examples'"):
        ArtifactValidator().generate_test_input(schema)
