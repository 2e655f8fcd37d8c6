"""What a new user tries with artifacts of their own: call, chain, serve, call remotely, each also with a mistake.

Only names of the package's root are used: README's artifact, and one of each other category.
"""

from contextlib import closing
from typing import Annotated

import numpy as np
import pytest

import zerocost
from support.servers import serving
from support.service_artifacts import Dict
from zerocost import ArtifactCommunicationService, DatatypeError, ExecutionContext, RangeError, UndeclaredInput

pytestmark = pytest.mark.timeout(60)

MATRIX = [[0.5, 0.5], [0.25, 0.75]]
Square = Annotated[np.ndarray, {"x-tensor": {"shape": ["...", "n", "n"]}}]
Single = Annotated[np.ndarray, {"x-tensor": {"datatypes": ["FP32"], "shape": [-1]}}]


class Blend(zerocost.AttentionArtifact):
    """Blends attention with the identity."""

    def process_attention(
        self,
        attention_matrix: Square,
        weight: Annotated[float, {"minimum": 0, "maximum": 1}] = 0.5,
        power: Annotated[int, {"minimum": 1}] = 1,
    ):
        n = attention_matrix.shape[-1]
        return ((1 - weight) * attention_matrix + weight * np.eye(n, dtype=attention_matrix.dtype)) ** power


class Halves(zerocost.ParallelArtifact):
    """Halves of a vector."""

    def process_parallel(self, tensor: Single, count: Annotated[int, {"minimum": 1, "maximum": 4}] = 2):
        return np.array_split(tensor, count)


class Total(zerocost.Artifact):
    """A plain one, with a schema of its own."""

    def get_schema(self):
        return {
            "type": "object",
            "properties": {
                "numbers": {"x-tensor": {"datatypes": ["FP64"], "shape": ["n"]}},
                "start": {"type": "number", "minimum": 0},
            },
            "required": ["numbers"],
            "additionalProperties": False,
            "x-outputs": {"total": {"type": "number"}},
        }

    def execute(self, input_data, context):
        return {"total": float(input_data["numbers"].sum()) + input_data.get("start", 0.0)}


@pytest.fixture
def registry():
    registry = zerocost.ArtifactRegistry()
    for name, artifact in (("blend", Blend()), ("halves", Halves()), ("shelf", Dict()), ("total", Total())):
        registry.register_artifact(name, artifact, artifact.interface)
    return registry


@pytest.fixture(params=["call", "execute", "chain", "params", "remote"])
def way(request, registry):
    """A way of calling an artifact by name; ``prefix`` is the place of its inputs in the request."""
    service = ArtifactCommunicationService(registry)

    def context(name):
        return ExecutionContext(name, "test", "zero_cost", {})

    def remote(name, inputs):
        with serving(registry) as client, closing(zerocost.RemoteArtifact(str(client.base_url), name)) as far:
            return far.execute(inputs, context(name))

    def params(name, inputs):
        return service.chain_artifacts([{"artifact": name, "params": inputs}], {})

    def execute(name, inputs):
        if name == "total":  # a plain artifact's execute is its own: the caller binds the inputs
            inputs = registry[name].ports.bind(inputs)
        return registry[name].implementation.execute(inputs, context(name))

    ways = {
        "call": lambda name, inputs: service.call_artifact(name, inputs, context(name)),
        "execute": execute,
        "chain": lambda name, inputs: service.chain_artifacts([{"artifact": name}], inputs),
        "params": params,
        "remote": remote,
    }
    found = ways[request.param]
    prefixes = {"chain": "/initial_input", "params": "/pipeline/0/params"}
    return found, prefixes.get(request.param, "")


FINE = {
    "blend": ({"attention_matrix": MATRIX}, "processed_attention", [[0.75, 0.25], [0.125, 0.875]]),
    "halves": ({"tensor": [1, 2, 3]}, "result", [[1.0, 2.0], [3.0]]),
    "shelf": ({"operation": "put", "key": "a", "value": 3}, "result", True),
    "total": ({"numbers": [1, 2.5]}, "total", 3.5),
}


@pytest.mark.parametrize("name", FINE)
def test_lists_become_arrays_on_every_call_path(way, name):
    inputs, output, expected = FINE[name]
    found = way[0](name, inputs)[output]
    found = [part.tolist() for part in found] if isinstance(found, list) else getattr(found, "tolist", lambda: found)()
    assert found == expected


MISTAKES = [
    ("blend", {"attention_matrix": MATRIX, "weight": 2}, RangeError, "/weight"),
    ("blend", {"attention_matrix": MATRIX, "wieght": 0.1}, UndeclaredInput, "/wieght"),
    ("blend", {"attention_matrix": [[1.0, 3.0]]}, zerocost.ShapeError, "/attention_matrix"),
    ("blend", {"attention_matrix": np.zeros((1, 3))}, zerocost.ShapeError, "/attention_matrix"),
    ("blend", {"attention_matrix": [1.0], "power": 1}, zerocost.ShapeError, "/attention_matrix"),
    ("blend", {"attention_matrix": MATRIX, "power": 0}, RangeError, "/power"),
    ("blend", {"attention_matrix": MATRIX, "weight": "much"}, DatatypeError, "/weight"),
    ("halves", {"tensor": np.arange(4, dtype=np.int32)}, DatatypeError, "/tensor"),
    ("halves", {"tensor": [1.0, 2.0], "count": 9}, RangeError, "/count"),
    ("shelf", {"operation": "get", "key": "a", "kye": "b"}, UndeclaredInput, "/kye"),
    ("shelf", {"operation": "burn"}, zerocost.UnknownOperation, "/operation"),
    ("total", {"numbers": [[1.0]]}, zerocost.ShapeError, "/numbers"),
    ("total", {"numbers": [1.0], "start": -1}, RangeError, "/start"),
    ("total", {"numbers": [1.0], "strat": 1}, UndeclaredInput, "/strat"),
]


@pytest.mark.parametrize(("name", "inputs", "kind", "where"), MISTAKES)
def test_a_mistake_is_the_same_on_every_call_path(way, name, inputs, kind, where):
    call, prefix = way
    with pytest.raises(kind) as refused:
        call(name, inputs)
    assert type(refused.value) is kind
    assert [pointer for pointer, _ in refused.value.errors] == [prefix + where]


def test_two_mistakes_are_both_named(way):
    call, prefix = way
    with pytest.raises(zerocost.InvalidInput) as refused:
        call("blend", {"attention_matrix": [1.0], "power": 0})
    assert {pointer for pointer, _ in refused.value.errors} == {prefix + "/attention_matrix", prefix + "/power"}


def test_masked_arrays_are_refused_by_name(registry):
    service = ArtifactCommunicationService(registry)
    masked = np.ma.array(MATRIX, mask=[[True, False], [False, False]])
    with pytest.raises(DatatypeError, match=r"masked.*filled"):
        service.call_artifact("blend", {"attention_matrix": masked}, ExecutionContext("b", "attention", "zero_cost"))


def test_frames_and_labelled_arrays_are_arrays(registry):
    class Frame:
        """As pandas, polars and xarray have it: an array by way of the type's ``__array__``."""

        def __array__(self, dtype=None, copy=None):
            return np.array(MATRIX)

    service = ArtifactCommunicationService(registry)
    result = service.call_artifact(
        "blend", {"attention_matrix": Frame()}, ExecutionContext("b", "attention", "zero_cost")
    )
    assert result["processed_attention"].tolist() == [[0.75, 0.25], [0.125, 0.875]]


def test_coroutines_are_refused_when_they_are_registered(registry):
    class Later(zerocost.Artifact):
        """Would have to be awaited."""

        def get_schema(self):
            return {"type": "object", "properties": {}}

        async def execute(self, input_data, context):
            return {}

    with pytest.raises(DatatypeError, match="write def, not async def"):
        registry.register_artifact("later", Later(), "custom")


def test_the_validator_finds_a_random_artifact():
    class Dice(zerocost.AttentionArtifact):
        """Adds noise."""

        def process_attention(self, attention_matrix: Square):
            return attention_matrix + np.random.default_rng().random(attention_matrix.shape)

    fine, message = zerocost.ArtifactValidator().validate_artifact(Dice())
    assert not fine
    assert "x-deterministic" in message
