"""Third-party artifacts for the tests of the command line."""

from typing import Annotated

import numpy as np

from zerocost import Artifact, AttentionArtifact, ParallelArtifact


class Scale(AttentionArtifact):
    """Multiplies every entry.

    Its factor is a number.
    """

    def process_attention(
        self,
        attention_matrix,
        factor: Annotated[float, {"minimum": 0, "description": "What to multiply with."}] = 2.0,
        mask: np.ndarray | None = None,
    ):
        matrix = np.asarray(attention_matrix)
        scaled = matrix * matrix.dtype.type(factor)
        return scaled if mask is None else np.where(mask, scaled, 0).astype(matrix.dtype)


class Split(ParallelArtifact):
    """Cuts a tensor into views."""

    def process_parallel(self, tensor, num_splits: int = 2, axis: int = -1):
        return np.array_split(tensor, num_splits, axis)


class Free(Artifact):
    """Takes anything and returns it."""

    interface = "free"

    def execute(self, input_data, context):
        return {"object": input_data}

    def get_schema(self):
        return {"type": "object"}


class Fails(AttentionArtifact):
    """Raises the exception that it is asked for."""

    ERRORS = (KeyError, ValueError, KeyboardInterrupt, BrokenPipeError)

    def process_attention(self, attention_matrix, kind: str = "KeyError"):
        raise next(error for error in self.ERRORS if error.__name__ == kind)("as told")


class ChangesItsInput(AttentionArtifact):
    """Breaks the contract."""

    def process_attention(self, attention_matrix):
        attention_matrix[...] = 0
        return attention_matrix
