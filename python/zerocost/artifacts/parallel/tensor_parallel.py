"""Tensor parallelism: an array cut into shards, or a linear layer computed in shards.

Column and row shards are those of Megatron-LM (Shoeybi et al. 2019, arXiv:1909.08053).
"""

from __future__ import annotations

import copy
import math
from contextvars import ContextVar
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from zerocost import _kernels
from zerocost.artifacts.options import check_choice
from zerocost.artifacts.parallel.gather import gather as joined
from zerocost.core.arrays import as_floating
from zerocost.core.artifact_base import ExecutionContext, ParallelArtifact
from zerocost.core.datatypes import FLOATING
from zerocost.core.executor import Executor
from zerocost.errors import DatatypeError, RangeError

__all__ = ["TensorParallelArtifact"]

_context: ContextVar[ExecutionContext | None] = ContextVar("zerocost_shards", default=None)


class TensorParallelArtifact(ParallelArtifact):
    """Cuts an array into views without copying it, or computes a linear layer in shards that run at the same time."""

    _is_built_in = True

    def __init__(self, executor: Executor | None = None) -> None:
        """Makes the artifact.

        Args:
            executor: where the shards of a linear layer run; None: on threads of this process. Views are always made
                here.
        """
        self.executor = executor
        # The kernel runs shards on threads of this process by itself.
        self.remote = None if executor is None or executor.is_local else executor
        self.is_quick = self.remote is None and type(self) is TensorParallelArtifact

    def here(self) -> TensorParallelArtifact:
        """The same artifact with its shards in this process."""
        if self.remote is None:
            return self
        local = copy.copy(self)
        local.executor = local.remote = None
        return local

    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """As every parallel artifact. The context's deadline holds for shards on an executor."""
        if self.remote is None:
            return super().execute(input_data, context)
        token = _context.set(context)
        try:
            return super().execute(input_data, context)
        finally:
            _context.reset(token)

    def process_parallel(
        self,
        tensor: Any,
        num_splits: Annotated[int, {"minimum": 1, "x-parts": True}] = 2,
        axis: int = -1,
        weight: Annotated[Any, {"x-tensor": {"datatypes": list(FLOATING), "shape": ["d_in", "d_out"]}}] = None,
        bias: Annotated[Any, {"x-tensor": {"datatypes": list(FLOATING), "shape": ["d_out"]}}] = None,
        mode: Literal["column", "row"] = "column",
        gather: bool = True,
    ) -> Any:
        """Splits ``tensor``, or multiplies it by ``weight`` in shards.

        Args:
            tensor: an array of any dtype with at least one axis; with a weight ``[..., d_in]``, floating point.
            num_splits: how many shards, at least 1. Their sizes differ by at most one, longer ones come first; beyond
                the length of the axis they are empty.
            axis: the axis that is cut. With a weight it stays the last one.
            weight: ``[d_in, d_out]``, of the tensor's dtype.
            bias: ``[d_out]``, of the tensor's dtype. It is added once.
            mode: ``"column"`` cuts the weight along ``d_out``, each shard gives its columns; ``"row"`` cuts weight and
                tensor along ``d_in``, the partial products are added.
            gather: whether column shards are joined.

        Returns:
            Without a weight the list of views. With one ``[..., d_out]``, equal to the unsplit product up to rounding
            (16-bit types are computed in float32); with ``gather=False`` the list of column shards, views of one array.

        Raises:
            DatatypeError: a ``num_splits`` or an ``axis`` that is not an integer, a ``mode`` that is not text, a
                ``gather`` that is not a bool, or arrays of unequal or other dtypes.
            RangeError: ``num_splits`` below 1 or above 2**24, an axis that the tensor does not have, an unknown mode,
                arguments that need others.
            ShapeError: a tensor without axes, or a weight or bias that does not fit.
        """
        check_choice(mode, ("column", "row"), "mode")
        if not isinstance(gather, bool | np.bool_):
            raise DatatypeError(f"gather: {type(gather).__name__} was given, True or False is needed", "gather")
        if weight is None:
            if bias is not None:
                raise RangeError("bias: a bias was given without a weight to go with", "bias")
            return _kernels.split(tensor, num_splits, axis)
        if mode == "row" and not gather:
            raise RangeError("gather: False was given; only the shards of mode='column' can be left apart", "gather")
        if self.remote is not None:
            context = _context.get() or ExecutionContext("tensor_parallel", "parallel", "zero_cost", {})
            shards = _shards_on(self.remote, context, tensor, weight, bias, num_splits, axis, mode)
            return joined(shards) if gather else shards
        product = _kernels.sharded_linear(tensor, weight, num_splits, axis, bias, mode)
        return product if gather else _kernels.split(product, num_splits, -1)

    def output_elements(self, input_data: dict[str, Any]) -> int | None:
        """The elements of the tensor or of the product, and one for each shard."""
        shape, weight = np.shape(input_data["tensor"]), input_data.get("weight")
        if weight is not None:
            shape = (*shape[:-1], *np.shape(weight)[1:])
        elements: int = math.prod(shape)
        return elements + int(input_data.get("num_splits", 2))


def _shards_on(
    executor: Executor,
    context: ExecutionContext,
    tensor: Any,
    weight: Any,
    bias: Any,
    num_splits: int,
    axis: int,
    mode: str,
) -> list[Any]:
    """The column shards of ``tensor · weight + bias``, computed on the executor; in row mode the one sum."""
    x, w = as_floating(tensor, "tensor"), as_floating(weight, "weight")
    b = None if bias is None else as_floating(bias, "bias")
    # Without its rows: everything is checked, nothing is multiplied.
    _kernels.sharded_linear(x[:0] if x.ndim > 1 else x, w, num_splits, axis, b, mode)
    if mode == "column":
        weights = _kernels.split(w, num_splits, 1)
        biases = [None] * len(weights) if b is None else _kernels.split(b, num_splits, 0)
        return executor.shards(_column, [(x, *shard) for shard in zip(weights, biases, strict=True)], context)
    tensors, weights = _kernels.split(x, num_splits, -1), _kernels.split(w, num_splits, 0)
    partial = executor.shards(_row, list(zip(tensors, weights, strict=True)), context)
    total = partial[0]
    for product in partial[1:]:
        total = total + product
    if b is not None:
        total = total + b.astype(total.dtype)
    return [total.astype(x.dtype, copy=False)]


def _column(x: npt.NDArray[Any], w: npt.NDArray[Any], b: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    return _kernels.sharded_linear(x, w, 1, -1, b, "column")


def _row(x: npt.NDArray[Any], w: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A partial product; 16-bit types stay float32 until all are added."""
    if x.dtype.itemsize == 2:
        x, w = x.astype(np.float32), w.astype(np.float32)
    return _kernels.sharded_linear(x, w, 1, -1, None, "row")
