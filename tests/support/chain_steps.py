"""Artifacts for the steps of chains."""

import numpy as np

from zerocost import Artifact, AttentionArtifact, ParallelArtifact


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
