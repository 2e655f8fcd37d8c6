"""Pipeline parallelism: the slices of an array as the work of contiguous stages."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from zerocost import _kernels
from zerocost.core.arrays import as_tensor
from zerocost.core.artifact_base import ParallelArtifact
from zerocost.errors import ShapeError

__all__ = ["PipelineParallelArtifact"]

_COSTS = ["FP64", "FP32", "FP16", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8"]


class PipelineParallelArtifact(ParallelArtifact):
    """Assigns the slices of an array to contiguous stages, as views; with costs so that no stage is needlessly slow."""

    def process_parallel(  # type: ignore[override]  # the declared parameters, where the base class takes any
        self,
        tensor: Any,
        num_stages: Annotated[int, {"minimum": 1}] = 4,
        axis: int = 0,
        costs: Annotated[Any, {"x-tensor": {"datatypes": _COSTS, "shape": ["slices"]}}] = None,
    ) -> Any:
        """Cuts ``tensor`` along ``axis`` into the views of its stages.

        Args:
            tensor: an array of any dtype with at least one axis.
            num_stages: how many stages, at least 1; those beyond the length of the axis are empty.
            axis: the axis whose slices are assigned.
            costs: one finite number of at least 0 for each slice. The largest sum of a stage is then the smallest
                possible; of equal optima the one with the earliest cuts. Without costs the stages are equally long.

        Returns:
            A list of ``num_stages`` views.

        Raises:
            DatatypeError: a ``num_stages`` or an ``axis`` that is no integer, or costs that are no numbers.
            RangeError: ``num_stages`` below 1, an axis that the tensor does not have, a cost that is negative or not
                finite.
            ShapeError: a tensor without axes, or a number of costs that is not the number of slices.
        """
        if costs is not None:
            costs = _as_costs(costs)
        return _kernels.split_stages(tensor, num_stages, axis, costs)


def _as_costs(costs: Any) -> npt.NDArray[np.float64]:
    numbers = as_tensor(costs, "costs", _COSTS)
    if numbers.ndim != 1:
        raise ShapeError(f"costs: shape {list(numbers.shape)} was given, one number for each slice is needed", "costs")
    return numbers.astype(np.float64, copy=False)
