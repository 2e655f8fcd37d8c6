"""How the layers of a model attend: through the active artifact, or fused.

An artifact that has ``attend(query, key, value, **params)`` is called with all sequences of one length. One that
declares ``normalization`` gets the scores and ``normalization="softmax"``. Any other gets the softmaxed weights. The
last two see ``[heads, n, n]``, one sequence at a time, and what they return multiplies the values as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.artifacts.attention.scaled_dot_product_attention import attend as fused
from zerocost.core.arrays import is_finite
from zerocost.errors import InvalidInput, ShapeError
from zerocost.services.active import Active
from zerocost.services.results import as_numbers, blamed

__all__ = ["attention_of"]

Floats = npt.NDArray[np.float32]


def attention_of(active: Active | None, kept: dict[tuple[int, int], Floats] | None = None) -> Callable[..., object]:
    """What an encoder calls as its attention.

    Args:
        active: the artifact, None for fused dense attention.
        kept: gets the weights ``[heads, n, n]`` by layer and packed sequence; None: they are not computed where
            attention is fused.
    """
    if active is None and kept is None:
        return lambda layer, first, query, key, value, out: fused(query, key, value, out=out)

    def attention(layer: int, first: int, query: Floats, key: Floats, value: Floats, out: Floats) -> None:
        blame = nullcontext() if active is None else blamed(active, f"layer {layer}")
        with blame:
            weights = _apply(active, query, key, value, out, want_weights=kept is not None)
        if kept is not None and weights is not None:
            kept.update(((layer, first + index), weights[index]) for index in range(len(weights)))

    return attention


def _apply(
    active: Active | None, query: Floats, key: Floats, value: Floats, out: Floats, *, want_weights: bool
) -> Floats | list[Floats] | None:
    attend = fused if active is None else getattr(active.spec.implementation, "attend", None)
    params = {} if active is None else active.params
    if attend is not None:
        if want_weights:
            # Attending over the unit vectors gives the weights themselves.
            unit = np.broadcast_to(np.eye(key.shape[-2], dtype=np.float32), (*key.shape[:-1], key.shape[-2]))
            weights = _checked(
                active, attend(query, key, unit, **params), (*query.shape[:-1], key.shape[-2]), query, key
            )
            np.matmul(weights, value, out=out)
            return weights
        out[...] = _checked(active, attend(query, key, value, **params), out.shape, query, key, value)
        return None
    assert active is not None  # noqa: S101 - without one attention is fused
    scores = query @ key.swapaxes(-1, -2)
    scores *= 1 / math.sqrt(query.shape[-1])
    takes_scores = "normalization" in active.spec.ports.inputs
    every = []
    for sequence in range(len(scores)):
        if takes_scores:
            weights = active.call(scores[sequence], normalization="softmax")
        else:
            weights = active.call(_softmax(scores[sequence]))
        every.append(_checked(active, weights, scores[sequence].shape, scores[sequence]))
        np.matmul(every[-1], value[sequence], out=out[sequence])
    return every


def _checked(active: Active | None, result: Any, shape: tuple[int, ...], *inputs: Floats) -> Floats:
    if active is None:
        fused_result: Floats = result
        return fused_result
    # A mask of weights may be of whole numbers or booleans.
    array = as_numbers(active, result, "fiub")
    if array.shape != shape:
        raise ShapeError(f"artifact {active.spec.name!r} returned shape {list(array.shape)}, {list(shape)} is needed")
    numbers = array.astype(np.float32, copy=False)
    if not is_finite(numbers) and is_finite(*inputs):
        raise InvalidInput(f"artifact {active.spec.name!r} gave NaN or infinity for finite numbers")
    return numbers


def _softmax(scores: Floats) -> Floats:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    normal: Floats = weights
    return normal
