"""Attention of a model's layers through the active artifact, or through the fused kernel without one.

- An artifact with ``attend(query, key, value, **params)`` is called with all sequences of one length.
- One that declares ``normalization`` gets the scores and ``normalization="softmax"``.
- Any other gets the weights after the softmax.

The last two get ``[heads, n, n]``, one sequence at a time; their result is the weights of the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.artifacts.attention.scaled_dot_product_attention import attend as fused
from zerocost.errors import ShapeError
from zerocost.services.active_artifacts import ActiveArtifact
from zerocost.services.artifact_output import as_numbers, check_finite, error_note

__all__ = ["attention_function"]

Floats = npt.NDArray[np.float32]


def attention_function(
    artifact: ActiveArtifact | None, collected: dict[tuple[int, int], Floats] | None = None
) -> Callable[..., object]:
    """The :data:`zerocost.models.encoder.Attention` that runs through an artifact.

    Args:
        artifact: the attention artifact; None for fused dense attention.
        collected: receives the weights ``[heads, n, n]`` by layer and packed sequence. Without it the fused kernel
            does not compute them.
    """
    if artifact is None and collected is None:
        return lambda layer, first, query, key, value, out: fused(query, key, value, out=out)

    def attention(layer: int, first: int, query: Floats, key: Floats, value: Floats, out: Floats) -> None:
        name = "" if artifact is None else artifact.spec.name
        with error_note(f"in layer {layer}, through the attention artifact {name!r}") if artifact else nullcontext():
            weights = _attend(artifact, query, key, value, out, want_weights=collected is not None)
        if collected is not None and weights is not None:
            collected.update(((layer, first + index), weights[index]) for index in range(len(weights)))

    return attention


def _attend(
    artifact: ActiveArtifact | None, query: Floats, key: Floats, value: Floats, out: Floats, *, want_weights: bool
) -> Floats | list[Floats] | None:
    attend = fused if artifact is None else getattr(artifact.spec.implementation, "attend", None)
    params = {} if artifact is None else artifact.params
    if attend is not None:
        if want_weights:
            # Attention over unit vectors returns the weights themselves.
            unit = np.broadcast_to(np.eye(key.shape[-2], dtype=np.float32), (*key.shape[:-1], key.shape[-2]))
            shape = (*query.shape[:-1], key.shape[-2])
            weights = _checked(artifact, attend(query, key, unit, **params), shape, query, key)
            np.matmul(weights, value, out=out)
            return weights
        out[...] = _checked(artifact, attend(query, key, value, **params), out.shape, query, key, value)
        return None
    assert artifact is not None  # noqa: S101 - without an artifact attention is fused
    scores = query @ key.swapaxes(-1, -2)
    scores *= 1 / math.sqrt(query.shape[-1])
    takes_scores = "normalization" in artifact.spec.ports.inputs
    results = []
    for sequence in range(len(scores)):
        if takes_scores:
            weights = artifact.call(scores[sequence], normalization="softmax")
        else:
            weights = artifact.call(_softmax(scores[sequence]))
        results.append(_checked(artifact, weights, scores[sequence].shape, scores[sequence]))
        np.matmul(results[-1], value[sequence], out=out[sequence])
    return results


def _checked(artifact: ActiveArtifact | None, result: Any, shape: tuple[int, ...], *inputs: Floats) -> Floats:
    if artifact is None:
        fused_result: Floats = result
        return fused_result
    # Weights that only mask may be whole numbers or booleans.
    array = as_numbers(artifact, result, "fiub")
    if array.shape != shape:
        raise ShapeError(f"artifact {artifact.spec.name!r} returned shape {list(array.shape)}, {list(shape)} is needed")
    numbers = array.astype(np.float32, copy=False)
    check_finite(artifact, numbers, *inputs)
    return numbers


def _softmax(scores: Floats) -> Floats:
    weights: Floats = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights
