"""Pooling: one vector for a text from the vectors of its tokens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zerocost.models.packing import Packed

__all__ = ["normalize", "pool"]

Floats = npt.NDArray[np.float32]


def pool(pooling: str, packed: Packed, states: Floats) -> Floats:
    """One vector for each packed sequence, ``[sequences, width]``.

    Args:
        pooling: ``"mean"`` over the tokens, or the ``"first"`` token.
        packed: the batch.
        states: ``[tokens, width]``.
    """
    if pooling == "first":
        return states[packed.offsets[:-1]].copy()
    sums: Floats = np.add.reduceat(states, packed.offsets[:-1], axis=0)
    sums /= np.diff(packed.offsets)[:, None]
    return sums


def normalize(vectors: Floats) -> Floats:
    """Each row divided by its L2 norm, ``[rows, width]``; rows of zeros stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    norms[norms == 0] = 1
    unit: Floats = vectors / norms.astype(np.float32)
    return unit
