"""Third-party artifacts for the tests of the server."""

import time
from typing import Annotated, Any

import numpy as np

from zerocost import (
    Artifact,
    ArtifactRegistry,
    AttentionArtifact,
    ChainArtifact,
    MemoryArtifact,
    ParallelArtifact,
    _kernels,
    default_registry,
    num_threads,
)
from zerocost.core.datatypes import DATATYPES


class Scale(AttentionArtifact):
    """Multiplies every score."""

    def process_attention(
        self,
        attention_matrix: Annotated[
            Any, {"x-tensor": {"datatypes": ["FP64", "FP32", "FP16", "BF16"], "shape": ["...", "n", "m"]}}
        ],
        factor: Annotated[float, {"minimum": 0}] = 2.0,
        out: Any = None,
    ):
        """Scales.

        Args:
            attention_matrix: the scores.
            factor: what they are multiplied by.
        """
        return attention_matrix * np.asarray(factor, dtype=attention_matrix.dtype)


class Pieces(ParallelArtifact):
    """Splits along the last axis; views, so that strides must survive."""

    def process_parallel(self, tensor: Annotated[Any, {"x-tensor": {}}], num_splits: int = 2):
        return np.array_split(tensor, num_splits, axis=-1)

    def output_elements(self, input_data):
        return int(np.size(input_data["tensor"])) + input_data.get("num_splits", 2)


class Picky(Artifact):
    """Fails in the way that it is asked to."""

    def get_schema(self):
        return {"type": "object", "properties": {"how": {"type": "string"}}, "required": ["how"]}

    def execute(self, input_data, context):
        how = input_data["how"]
        if how == "value":
            raise ValueError(f"bad value near {object()} in /usr/lib/secret/place.txt")
        if how == "type":
            raise TypeError("bad type")
        if how == "key":
            raise KeyError("/etc/passwd")
        if how == "sleep":
            time.sleep(1.0)
        if how == "no dict":
            return "no dict"
        if how == "metadata":
            return dict(context.metadata, limits=None, span=None)
        if how == "object":
            return {"value": object()}
        if how == "longdouble":
            return {"value": np.longdouble(1)}
        if how == "endless":
            value = np.empty(1, dtype=object)
            value[0] = [value]
            return {"value": value}
        if how == "threads":
            return {"threads": num_threads()}
        if how == "numbers":
            return {
                "values": [
                    float("nan"),
                    float("inf"),
                    -float("inf"),
                    1e300,
                    2**70,
                    np.float32(0.1),
                    True,
                    None,
                    'ü\n"\x01',
                ]
            }
        return {"how": how}


class Stuck(Artifact):
    """Does not end while anybody waits."""

    def get_schema(self):
        return {"type": "object", "properties": {}}

    def execute(self, input_data, context):
        time.sleep(600)
        return {}


class SlowMemory(MemoryArtifact):
    """A memory whose server is slow for every operation."""

    def __init__(self, seconds):
        self.seconds = seconds

    def retrieve(self, key):
        time.sleep(self.seconds)
        return "late"

    def store(self, key, value):
        time.sleep(self.seconds)
        return True

    def delete(self, key):
        time.sleep(self.seconds)
        return True

    def clear(self):
        time.sleep(self.seconds)
        return True

    def stats(self):
        time.sleep(self.seconds)
        return {"entries": 1}


class Panics(Artifact):
    """Calls a kernel that panics, on a thread of the pool."""

    def execute(self, input_data, context):
        _kernels._panic()
        return {}

    def get_schema(self):
        return {"properties": {"x": {}}, "x-outputs": {"y": {}}}


class Huge(Artifact):
    """Returns zeros in the shape that it is asked for. They take no memory unless they are ``written``."""

    def get_schema(self):
        return {
            "type": "object",
            "properties": {
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                "tells": {"type": "boolean"},
                "written": {"type": "boolean"},
            },
            "required": ["shape"],
            "x-outputs": {"zeros": {"x-tensor": {}}},
        }

    def output_elements(self, input_data):
        return int(np.prod([float(n) for n in input_data["shape"]])) if input_data.get("tells", True) else None

    def execute(self, input_data, context):
        zeros = np.zeros(input_data["shape"], dtype=np.int8)
        if input_data.get("written"):
            zeros[...] = 0
        return {"zeros": zeros}


def sample_registry():
    registry = ArtifactRegistry()
    for name, kind in {"scale": Scale, "pieces": Pieces, "picky": Picky, "huge": Huge}.items():
        registry.register_artifact(name, kind(), kind.interface)
    return registry


class Echo(Artifact):
    """Returns its input: tensors of every datatype, and one value of every other kind."""

    def get_schema(self):
        properties = {
            **{f"x_{datatype}": {"x-tensor": {"datatypes": [datatype]}} for datatype in DATATYPES},
            "number": {"type": "number"},
            "integer": {"type": "integer"},
            "boolean": {"type": "boolean"},
            "text": {"type": "string"},
            "list": {"type": "array", "items": {"type": "integer"}},
            "object": {"type": "object"},
            "anything": {},
        }
        return {"type": "object", "properties": properties, "additionalProperties": False}

    def execute(self, input_data, context):
        return dict(input_data)


class Vector(Artifact):
    """One tensor with one variable axis, which may be sent as nothing but its bytes."""

    def get_schema(self):
        return {
            "type": "object",
            "properties": {"v": {"x-tensor": {"datatypes": ["FP32"], "shape": ["n", 2]}}},
            "required": ["v"],
            "x-outputs": {"twice": {"x-tensor": {"datatypes": ["FP32"], "shape": ["n", 2]}}},
        }

    def execute(self, input_data, context):
        return {"twice": input_data["v"] * np.float32(2)}


def echo_registry():
    registry = sample_registry()
    registry.register_artifact("echo", Echo(), "custom", {"version": "7"})
    registry.register_artifact("vector", Vector(), "custom")
    pipeline = [{"artifact": "scale", "params": {"factor": 3}}, {"artifact": "pieces"}]
    registry.register_artifact("both", ChainArtifact(pipeline, registry), "chain")
    return registry


def slow_registry(seconds):
    registry = default_registry()
    registry.register_artifact("lru_cache", SlowMemory(seconds), "memory", replace=True)
    return registry
