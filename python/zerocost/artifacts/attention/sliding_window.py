"""The entries of an attention matrix that are in a window along its diagonal."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy.typing as npt

from zerocost import _kernels
from zerocost.artifacts.attention.attention_matrix import MATRIX, AttentionMatrixArtifact
from zerocost.artifacts.attention.scaled_dot_product_attention import COLDEST, WINDOW, attend

__all__ = ["SlidingWindowAttentionArtifact"]


class SlidingWindowAttentionArtifact(AttentionMatrixArtifact):
    """Keeps the entries of an attention matrix that are in a window along its diagonal; the rest becomes 0."""

    is_quick = True
    _is_built_in = True
    example: ClassVar[dict[str, Any]] = {"window_size": [1, 0]}

    def process_attention(
        self,
        attention_matrix: Annotated[Any, MATRIX],
        window_size: Annotated[Any, WINDOW] = 128,
        normalization: Literal["none", "softmax", "sum"] = "none",
        temperature: Annotated[float, {"minimum": COLDEST}] = 1.0,
        is_causal: bool = False,
        align: Literal["bottom_right", "top_left"] = "bottom_right",
        *,
        out: Any = None,
    ) -> npt.NDArray[Any]:
        """A pair ``(left, right)`` keeps key j for query i when ``i - left <= j <= i + right``, both edges included.

        Work and memory traffic follow the window, not the matrix. A row without a kept entry is 0.

        Args:
            attention_matrix: ``[..., n_q, n_k]``, float64, float32, float16 or bfloat16, scores or weights.
            window_size: a pair ``(left, right)`` as in FlashAttention and ONNX, -1 is unbounded, causal order cuts the
                right edge to 0; or a whole number w >= 1: ``(w // 2, w // 2)`` (Longformer), and when causal
                ``(w - 1, 0)``, that is w keys with the query's own (Mistral). None means no window. In JSON a pair is a
                list of two.
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
        return _kernels.sliding_window_attention(
            attention_matrix, window_size, normalization, temperature, is_causal, align, out
        )

    def attend(
        self,
        query: Any,
        key: Any,
        value: Any,
        *,
        window_size: Any = 128,
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
            window_size=window_size,
            normalization=normalization,
            temperature=temperature,
            is_causal=is_causal,
            align=align,
            out=out,
        )
