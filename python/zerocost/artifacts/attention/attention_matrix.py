"""What the artifacts that take a whole attention matrix have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from zerocost.core.artifact_base import AttentionArtifact
from zerocost.core.datatypes import FLOATING

__all__ = ["MATRIX", "AttentionMatrixArtifact"]

MATRIX = {"x-tensor": {"datatypes": list(FLOATING), "shape": ["...", "n_q", "n_k"]}}


class AttentionMatrixArtifact(AttentionArtifact):
    """Keeps some entries of an attention matrix. A subclass has an ``example``, a value of its own option."""

    example: ClassVar[dict[str, Any]]

    def get_schema(self) -> dict[str, Any]:
        """The schema of the signature, with an example."""
        matrix = [[1.0, 0.5, 0.3], [0.5, 1.0, 0.2], [0.3, 0.2, 1.0]]
        return {**super().get_schema(), "examples": [{"attention_matrix": matrix, **self.example}]}

    def output_schema(self) -> dict[str, Any]:
        """A tensor like the matrix."""
        return dict(MATRIX)
