"""Pipeline parallelism: assigns the slices of an array to stages, or runs the stages.

Schedules are those of GPipe (Huang et al. 2019, arXiv:1811.06965) and 1F1B (Narayanan et al. 2021, arXiv:2104.04473).
"""

from __future__ import annotations

import copy
from contextvars import ContextVar
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from zerocost import _kernels
from zerocost.artifacts.options import check_choice
from zerocost.artifacts.parallel.gather import gather
from zerocost.artifacts.parallel.schedule import KINDS
from zerocost.artifacts.parallel.stages import resolve_stages
from zerocost.core.arrays import as_tensor
from zerocost.core.artifact_base import ExecutionContext, ParallelArtifact
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.executor import Executor
from zerocost.core.limits import check_fan_out
from zerocost.core.threads import ThreadExecutor
from zerocost.errors import RangeError, ShapeError

__all__ = ["PipelineParallelArtifact"]

_COSTS = ["FP64", "FP32", "FP16", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8"]
_context: ContextVar[ExecutionContext | None] = ContextVar("zerocost_pipeline", default=None)


class PipelineParallelArtifact(ParallelArtifact):
    """Assigns the slices of an array to contiguous stages, as views, or runs them through stages in micro-batches."""

    _is_built_in = True

    def __init__(self, registry: ArtifactRegistry | None = None, executor: Executor | None = None) -> None:
        """Makes the artifact.

        Args:
            registry: where names of stages are looked up; None: stages cannot be given by name.
            executor: where stages run; None: on threads of this process.
        """
        self._registry = registry
        self.executor: Executor = ThreadExecutor() if executor is None else executor

    def here(self) -> PipelineParallelArtifact:
        """The same artifact with its stages in this process: stages that share memory need that."""
        if self.executor.is_local:
            return self
        local = copy.copy(self)
        local.executor = ThreadExecutor()
        return local

    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """As every parallel artifact. Stages get contexts made from this one, and its deadline holds for them."""
        token = _context.set(context)
        try:
            return super().execute(input_data, context)
        finally:
            _context.reset(token)

    def process_parallel(
        self,
        tensor: Any,
        num_stages: Annotated[int, {"minimum": 1, "x-parts": True}] = 4,
        axis: int = 0,
        costs: Annotated[Any, {"x-tensor": {"datatypes": _COSTS, "shape": ["slices"]}}] = None,
        stages: Any = None,
        num_microbatches: Annotated[int | None, {"minimum": 1}] = None,
        schedule: Literal["gpipe", "1f1b"] = "gpipe",
    ) -> Any:
        """Cuts ``tensor`` along ``axis`` into the views of its stages, or runs it through ``stages``.

        Args:
            tensor: an array of any dtype with at least one axis.
            num_stages: how many stages, at least 1; without ``stages`` those beyond the length of the axis are empty.
            axis: the axis whose slices are assigned, or that is cut into micro-batches.
            costs: one finite number of at least 0 for each slice. The largest sum of a stage is then the smallest
                possible; of equal optima the one with the earliest cuts. Without costs the stages are equally long.
            stages: what the stages run, one for each of ``num_stages``: names of artifacts, chain steps
                (``{"artifact": name, "params": {}}``), in process also artifacts and callables of one array.
                Every stage must treat the slices along ``axis`` independently and keep their number.
            num_microbatches: how many micro-batches the tensor is cut into, as ``tensor_parallel`` cuts, but never more
                than there are slices; by default as many as there are stages.
            schedule: how far a stage may run ahead of the next ones: ``"gpipe"`` as far as there are micro-batches,
                ``"1f1b"`` as far as there are stages behind it. The result is the same.

        Returns:
            Without ``stages`` a list of ``num_stages`` views; with them what running them one after another on the
            whole tensor would return.

        Raises:
            DatatypeError: a ``num_stages``, an ``axis`` or a ``num_microbatches`` that is not an integer, costs that
                are not numbers, something in ``stages`` that cannot be run, a schedule that is not text.
            RangeError: ``num_stages`` or ``num_microbatches`` below 1, more than 2**24 stages, an axis that the tensor
                does not have, a cost that is negative or not finite, another number of stages, an unknown schedule.
            ShapeError: a tensor without axes, a number of costs that is not the number of slices, a stage that does not
                keep the number of slices.
            UnknownArtifact: a stage names no artifact of the registry.
            Exception: whatever a stage raises, with a note that names the stage and the micro-batch.
        """
        check_choice(schedule, KINDS, "schedule")
        if stages is None:
            if num_microbatches is not None:
                raise RangeError("num_microbatches: given without stages to run them through", "num_microbatches")
            return _kernels.split_stages(tensor, num_stages, axis, None if costs is None else _as_costs(costs))
        if costs is not None:
            raise RangeError("costs: given together with stages; costs assign slices where nothing is run", "costs")
        wanted = num_stages if num_microbatches is None else num_microbatches
        array = tensor if isinstance(tensor, np.ndarray) else as_tensor(tensor, "tensor")
        resolved = resolve_stages(stages, _kernels.positive(num_stages, "num_stages"), self._registry)
        wanted = _kernels.positive(wanted, "num_microbatches")
        # A slice is the smallest micro-batch; an empty tensor is one empty micro-batch.
        length = _kernels.split(array, 1, axis)[0].shape[axis]
        batches = _kernels.split(array, min(wanted, max(length, 1)), axis)
        context = _context.get() or ExecutionContext("pipeline_parallel", "parallel", "zero_cost", {})
        check_fan_out(resolved, "stages", context.metadata)
        return gather(self.executor.pipeline(resolved, batches, axis, schedule, context), axis)

    def output_elements(self, input_data: dict[str, Any]) -> int | None:
        """The tensor's elements and one for each stage; unknown if stages run."""
        if input_data.get("stages") is not None:
            return None
        return int(np.size(input_data["tensor"])) + int(input_data.get("num_stages", 4))


def _as_costs(costs: Any) -> npt.NDArray[np.float64]:
    numbers = as_tensor(costs, "costs", _COSTS)
    if numbers.ndim != 1:
        raise ShapeError(f"costs: shape {list(numbers.shape)} was given, one number for each slice is needed", "costs")
    return numbers.astype(np.float64, copy=False)
