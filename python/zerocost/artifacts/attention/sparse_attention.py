"""The largest entries of each row of an attention matrix."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy.typing as npt

from zerocost import _kernels
from zerocost.artifacts.attention.attention_matrix import MATRIX, AttentionMatrixArtifact
from zerocost.artifacts.attention.scaled_dot_product_attention import COLDEST, attend

__all__ = ["SparseAttentionArtifact"]


class SparseAttentionArtifact(AttentionMatrixArtifact):
    """Keeps the largest entries of each row of an attention matrix; the rest becomes 0."""

    is_quick = True
    _is_built_in = True
    example: ClassVar[dict[str, Any]] = {"sparsity_ratio": 0.8}

    def process_attention(
        self,
        attention_matrix: Annotated[Any, MATRIX],
        sparsity_ratio: Annotated[float, {"minimum": 0, "exclusiveMaximum": 1}] = 0.8,
        normalization: Literal["none", "softmax", "sum"] = "none",
        temperature: Annotated[float, {"minimum": COLDEST}] = 1.0,
        is_causal: bool = False,
        align: Literal["bottom_right", "top_left"] = "bottom_right",
        *,
        out: Any = None,
    ) -> npt.NDArray[Any]:
        """Keeps the k largest allowed entries of each row, ``k = min(n_k, max(1, n_k - floor(ratio * n_k + 1e-9)))``.

        Exactly k are kept; ties go to the lower index. -0.0 equals 0.0; a NaN is larger than any number, as in
        ``torch.topk``, and equal to every other NaN, so that it stays visible. A row without a kept entry is 0.

        Args:
            attention_matrix: ``[..., n_q, n_k]``, float64, float32, float16 or bfloat16, scores or weights.
            sparsity_ratio: the share of a row's entries to drop, at least 0 and below 1. 0.8 keeps 2 of 10, 1 of 5 and
                26 of 128. Under causal order k still comes from n_k, and is at most the number of allowed entries.
            normalization: ``"none"`` gives the kept entries back bit for bit; ``"softmax"`` takes scores and gives
                their softmax over the kept ones; ``"sum"`` takes weights and divides the kept ones by their sum.
            temperature: divides the scores before the softmax, at least 1e-30; 1 without softmax.
            is_causal: whether a query may only look at keys up to its own position.
            align: where query 0 stands when ``n_q != n_k``: ``"bottom_right"`` puts the last query opposite the last
                key (a KV cache), ``"top_left"`` the first opposite the first (PyTorch).
            out: an array of the result's shape and dtype to write to. It may be the matrix itself, but must not
                overlap it in any other way.

        Returns:
            An array of the matrix's shape and dtype; ``out`` if given.

        Raises:
            DatatypeError: a matrix of another dtype, or an option of a wrong type.
            ShapeError: fewer than two axes, or an ``out`` of another shape.
            RangeError: a number outside of what is allowed, or a temperature without softmax.
            OverlapError: an ``out`` that is read-only, or overlaps itself or the matrix.
        """
        return _kernels.sparse_attention(
            attention_matrix, sparsity_ratio, normalization, temperature, is_causal, align, out
        )

    def attend(
        self,
        query: Any,
        key: Any,
        value: Any,
        *,
        sparsity_ratio: float = 0.8,
        normalization: str = "softmax",
        temperature: float = 1.0,
        is_causal: bool = False,
        align: str = "bottom_right",
        out: Any = None,
    ) -> npt.NDArray[Any]:
        """``process_attention(scores, normalization="softmax", ...) @ value`` to rounding, fused: without the scores.

        ``scores`` is ``query @ key.T / sqrt(d)``. Shapes and errors are those of
        :func:`~zerocost.artifacts.attention.scaled_dot_product_attention.attend`, options those of
        :meth:`process_attention`.
        """
        return attend(
            query,
            key,
            value,
            sparsity_ratio=_kernels.number(sparsity_ratio, "sparsity_ratio"),
            normalization=normalization,
            temperature=temperature,
            is_causal=is_causal,
            align=align,
            out=out,
        )
