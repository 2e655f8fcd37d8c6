"""Fused scaled dot product attention.

The online softmax of Milakov and Gimelshein (arXiv:1805.02867) over tiles, as in FlashAttention (Dao et al. 2022,
arXiv:2205.14135): never a matrix of n_q x n_k in memory. Names follow PyTorch (``attn_mask``, ``is_causal``,
``scale``), FlashAttention (``window_size``, ``softcap``) and ONNX.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from zerocost import _kernels
from zerocost.artifacts.options import check_choice
from zerocost.core.arrays import as_floating
from zerocost.core.artifact_base import AttentionArtifact
from zerocost.core.datatypes import FLOATING
from zerocost.errors import RangeError

__all__ = ["COLDEST", "WINDOW", "ScaledDotProductAttentionArtifact", "attend"]

COLDEST = 1e-30
"""The lowest temperature. A float32 divided by less may be infinite, and inf - inf is NaN."""

WINDOW = {
    "anyOf": [
        {"type": "null"},
        {"type": "integer", "minimum": 1},
        {"type": "array", "items": {"type": "integer", "minimum": -1}, "minItems": 2, "maxItems": 2},
    ]
}
_EXAMPLE = {
    "query": [[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]],
    "key": [[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]],
    "value": [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]],
    "is_causal": True,
}


def _tensor(*shape: str, datatypes: tuple[str, ...] = FLOATING) -> dict[str, Any]:
    declared: dict[str, Any] = {"datatypes": list(datatypes)}
    return {"x-tensor": {**declared, "shape": list(shape)} if shape else declared}


class ScaledDotProductAttentionArtifact(AttentionArtifact):
    """Attention from queries, keys and values in one pass, with masks, windows, grouped heads, soft caps and sinks."""

    main_input: ClassVar[str] = "query"

    is_quick = True
    _is_built_in = True

    def process_attention(
        self,
        query: Annotated[Any, _tensor("...", "n_q", "d")],
        key: Annotated[Any, _tensor("...", "n_k", "d")],
        value: Annotated[Any, _tensor("...", "n_k", "d_v")],
        attn_mask: Annotated[Any, _tensor(datatypes=("BOOL", *FLOATING))] = None,
        is_causal: bool = False,
        scale: float | None = None,
        window_size: Annotated[Any, WINDOW] = None,
        sparsity_ratio: Annotated[float | None, {"minimum": 0, "exclusiveMaximum": 1}] = None,
        softcap: Annotated[float, {"minimum": 0}] = 0.0,
        sinks: Annotated[Any, _tensor("h_q")] = None,
        align: Literal["bottom_right", "top_left"] = "bottom_right",
        *,
        out: Any = None,
    ) -> npt.NDArray[Any]:
        """``softmax(mask(softcap(scale * query @ key.T))) @ value``, the largest scores only under a sparsity ratio.

        A key takes part for a query if causal order, window and mask all allow it, and if it is among the kept ones.
        Keys and values that take no part are never seen in the result, whatever is in them; a query for which no key
        takes part gets zeros. float16 and bfloat16 are computed in float32, float64 in float64. The number of threads
        does not change a bit.

        Args:
            query: ``[..., h_q, n_q, d]`` or ``[n_q, d]``. Leading axes broadcast as in NumPy.
            key: ``[..., h_kv, n_k, d]``, query's dtype. Query head h uses head ``h // (h_q / h_kv)``.
            value: ``[..., h_kv, n_k, d_v]``, query's dtype.
            attn_mask: broadcasts to ``[..., h_q, n_q, n_k]``. Booleans: True takes part. Floats of query's dtype are
                added to the scores, after the cap; -inf masks.
            is_causal: whether a query may only look at keys up to its own position.
            scale: multiplies ``query @ key.T``; None is ``1 / sqrt(d)``. Like the soft cap a number that the type of
                the computation can hold (below 3.4e38 for all but float64).
            window_size: a pair ``(left, right)``, both inclusive, -1 is unbounded; or a whole number w >= 1, which is
                ``(w // 2, w // 2)``, and ``(w - 1, 0)`` when causal. None means no window.
            sparsity_ratio: drops this share of ``n_k`` keys for each query, those with the smallest scores, at least 0
                and below 1. ``max(1, n_k - floor(sparsity_ratio * n_k))`` are kept, ties go to the lower index.
            softcap: c > 0 turns a score s into ``c * tanh(s / c)``, before the mask (Gemma 2).
            sinks: ``[h_q]``, query's dtype: a logit for each head that only adds to the denominator, neither scaled nor
                capped (gpt-oss).
            align: where query 0 stands when ``n_q != n_k``: ``"bottom_right"`` puts the last query opposite the last
                key (a KV cache), ``"top_left"`` the first opposite the first (PyTorch).
            out: an array of the result's shape and dtype to write to; it must not share memory with an input.

        Returns:
            ``[..., h_q, n_q, d_v]`` of query's dtype, with as many axes as the input that has the most; ``out`` if
            given.

        Raises:
            DatatypeError: inputs of another dtype, of unequal dtypes, or an option of a wrong type.
            ShapeError: inputs that do not fit together.
            RangeError: a number outside of what is allowed.
            OverlapError: an ``out`` that is read-only or shares memory with an input.
        """
        return _kernels.scaled_dot_product_attention(
            query, key, value, attn_mask, is_causal, scale, window_size, sparsity_ratio, softcap, sinks, align, out
        )

    def get_schema(self) -> dict[str, Any]:
        """The schema of the signature, with an example."""
        return {**super().get_schema(), "examples": [_EXAMPLE]}

    def output_elements(self, input_data: dict[str, Any]) -> int | None:
        """The leading axes broadcast, times ``h_q * n_q * d_v``."""
        sizes = _sizes(input_data)
        return None if sizes is None else sizes[0] * sizes[-1]

    def operations(self, input_data: dict[str, Any]) -> int | None:
        """Every query with every key: their product, the weight's exponential, and the weight times the value."""
        sizes = _sizes(input_data)
        if sizes is None:
            return None
        queries, keys, d, d_v = sizes
        return queries * keys * (d + d_v + _EXPONENTIAL)

    def attend(self, query: Any, key: Any, value: Any, **params: Any) -> npt.NDArray[Any]:
        """The same as ``process_attention(query, key, value, **params)``: this artifact is fused anyway."""
        return self.process_attention(query, key, value, **params)


_EXPONENTIAL = 16
"""An exponential counts as so many operations."""


def _sizes(input_data: dict[str, Any]) -> tuple[int, int, int, int] | None:
    """The number of all queries, the keys of each, d and d_v; None for shapes that the kernel refuses."""
    query, key, value = (np.shape(input_data[name]) for name in ("query", "key", "value"))
    if min(len(query), len(key), len(value)) < 2:
        return None
    try:
        leading = np.broadcast_shapes(query[:-3], key[:-3], value[:-3])
    except ValueError:
        return None
    return math.prod(leading) * math.prod(query[-3:-1]), key[-2], query[-1], value[-1]


def attend(
    query: Any,
    key: Any,
    value: Any,
    *,
    normalization: str = "softmax",
    temperature: float = 1.0,
    is_causal: bool = False,
    window_size: Any = None,
    sparsity_ratio: float | None = None,
    align: str = "bottom_right",
    out: Any = None,
) -> npt.NDArray[Any]:
    """Attention as an artifact that processes a matrix of scores computes it, without the matrix.

    Equals ``process_attention(query @ key.T / sqrt(d), normalization="softmax", ...) @ value`` up to rounding, with
    grouped heads and broadcasting as in :class:`ScaledDotProductAttentionArtifact`. Any other
    ``normalization`` than ``"softmax"`` is an error: its result would not be attention.

    Raises:
        DatatypeError: inputs of another dtype, of unequal dtypes, or an option of a wrong type.
        ShapeError: inputs that do not fit together.
        RangeError: another normalization, or a temperature that is not a finite number of at least 1e-30.
        OverlapError: an ``out`` that is read-only or shares memory with an input.
    """
    check_choice(normalization, ("softmax",), "normalization")
    given, temperature = temperature, _kernels.number(temperature, "temperature")
    if not COLDEST <= temperature < math.inf:
        raise RangeError(
            f"temperature: {given!r} was given, a finite number of at least {COLDEST} is allowed", "temperature"
        )
    if not isinstance(query, np.ndarray):
        query = as_floating(query, "query")
    d = query.shape[-1:]
    scale = 1 / (math.sqrt(d[0]) * temperature) if d and d[0] else None
    return _kernels.scaled_dot_product_attention(
        query, key, value, None, is_causal, scale, window_size, sparsity_ratio, 0.0, None, align, out
    )
