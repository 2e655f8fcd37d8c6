"""One third-party artifact of each kind, for tests that compare ways of calling them."""

from typing import Annotated, Any, Literal

import numpy as np

from support.service_artifacts import Dict
from zerocost import (
    Artifact,
    ArtifactRegistry,
    AttentionArtifact,
    ChainArtifact,
    ParallelArtifact,
    default_registry,
)


class Blend(AttentionArtifact):
    """Blends attention with the identity: README's."""

    def process_attention(
        self,
        attention_matrix: Annotated[
            np.ndarray, {"x-tensor": {"datatypes": ["FP32", "FP64"], "shape": ["...", "n", "n"]}}
        ],
        weight: Annotated[float, {"minimum": 0, "maximum": 1}] = 0.5,
        mode: Literal["scores", "weights"] = "scores",
        power: Annotated[int, {"minimum": 1}] = 1,
        window: tuple[int, int] | None = None,
        causal: bool = False,
    ):
        n = attention_matrix.shape[-1]
        weight = attention_matrix.dtype.type(weight)
        return ((1 - weight) * attention_matrix + weight * np.eye(n, dtype=attention_matrix.dtype)) ** min(power, 3)


class Cut(ParallelArtifact):
    """Cuts and turns around. Its first parameter has another name than the input."""

    def process_parallel(self, x, count: Annotated[int, {"minimum": 1, "maximum": 9}] = 2, label: str = "none"):
        return np.array_split(x, count, axis=-1)[::-1]


class Mix(Artifact):
    """A plain artifact with a schema of its own: tensors that must agree, and parameters of every kind."""

    def get_schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {
                "m": {"x-tensor": {"datatypes": ["FP64", "FP32"], "shape": ["...", "q", "k"]}},
                "v": {"x-tensor": {"datatypes": ["FP64", "FP32"], "shape": ["k", 3]}},
                "mask": {"x-tensor": {"datatypes": ["BOOL"], "shape": ["q"]}},
                "ids": {"x-tensor": {"datatypes": ["INT64", "INT32"], "shape": [-1]}},
                "ratio": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "default": 0.25},
                "scale": {"type": ["number", "null"], "default": None},
                "size": {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 1}]},
                "pair": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
                "word": {"type": "string", "pattern": "^[a-z]+$", "examples": ["abc"]},
                "options": {
                    "type": "object",
                    "properties": {"deep": {"type": "integer", "maximum": 5}},
                    "additionalProperties": False,
                },
            },
            "required": ["m", "v"],
            "additionalProperties": False,
            "x-outputs": {"product": {"x-tensor": {"shape": ["...", "q", 3]}}, "said": {}},
        }

    def execute(self, input_data, context):
        product = input_data["m"] @ input_data["v"].astype(input_data["m"].dtype)
        others = {name: value for name, value in input_data.items() if not isinstance(value, np.ndarray)}
        return {"product": product, "said": others}


class Threshold(AttentionArtifact):
    """Made with an argument, which its schema goes by, and refuses more than its schema says."""

    def __init__(self, highest: float):
        self.highest = highest

    def process_attention(self, attention_matrix, threshold: float = 0.0):
        return np.where(attention_matrix > threshold, attention_matrix, 0)

    def get_schema(self):
        schema = super().get_schema()
        schema["properties"]["threshold"]["maximum"] = self.highest
        return schema

    def input_errors(self, input_data):
        errors = super().input_errors(input_data)
        if not errors and input_data["attention_matrix"].ndim > 4:
            return [("/attention_matrix", "more than four axes")]
        return errors


def registry_of_all() -> ArtifactRegistry:
    """The built-in artifacts, and a third-party one of each kind."""
    registry = default_registry()
    for name, artifact in {
        "blend": Blend(),
        "cut": Cut(),
        "shelf": Dict(),
        "mix": Mix(),
        "threshold": Threshold(3.0),
    }.items():
        registry.register_artifact(name, artifact, artifact.interface)
    chain = [
        {"artifact": "blend", "params": {"weight": 0.25}},
        {"artifact": "cut", "inputs": {"tensor": "0.processed_attention", "count": "$.count"}},
    ]
    registry.register_artifact("both", ChainArtifact(chain, registry), "chain")
    return registry
