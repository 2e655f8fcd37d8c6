"""A linear layer in shards on an executor; the results are joined or added here."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost import _kernels
from zerocost.artifacts.parallel.gather import gather
from zerocost.core.arrays import as_floating
from zerocost.core.artifact_base import ExecutionContext
from zerocost.core.executor import Executor

__all__ = ["linear_on"]


def linear_on(
    executor: Executor,
    context: ExecutionContext,
    tensor: Any,
    weight: Any,
    bias: Any,
    *,
    num_splits: int,
    axis: int,
    mode: str,
    joined: bool,
) -> Any:
    """``tensor · weight + bias`` with every shard on the executor; arguments and errors are ``tensor_parallel``'s."""
    x, w = as_floating(tensor, "tensor"), as_floating(weight, "weight")
    b = None if bias is None else as_floating(bias, "bias")
    # Without its rows: everything is checked, nothing is multiplied.
    _kernels.sharded_linear(x[:0] if x.ndim > 1 else x, w, num_splits, axis, b, mode)
    if mode == "column":
        weights = _kernels.split(w, num_splits, 1)
        biases = [None] * len(weights) if b is None else _kernels.split(b, num_splits, 0)
        parts = executor.shards(_column, [(x, *shard) for shard in zip(weights, biases, strict=True)], context)
        return gather(parts) if joined else parts
    tensors, weights = _kernels.split(x, num_splits, -1), _kernels.split(w, num_splits, 0)
    partial = executor.shards(_row, list(zip(tensors, weights, strict=True)), context)
    total = partial[0]
    for product in partial[1:]:
        total = total + product
    if b is not None:
        total = total + b.astype(total.dtype)
    return total.astype(x.dtype, copy=False)


def _column(x: npt.NDArray[Any], w: npt.NDArray[Any], b: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    return _kernels.sharded_linear(x, w, 1, -1, b, "column")


def _row(x: npt.NDArray[Any], w: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A partial product; 16-bit types stay float32 until all are added."""
    if x.dtype.itemsize == 2:
        x, w = x.astype(np.float32), w.astype(np.float32)
    return _kernels.sharded_linear(x, w, 1, -1, None, "row")
