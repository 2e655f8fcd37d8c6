"""A pipeline on threads: one for each stage, which hand micro-batches on to each other."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy.typing as npt

from zerocost.artifacts.parallel.stages import Stage
from zerocost.core.artifact_base import ExecutionContext
from zerocost.errors import DeadlineExceeded

__all__ = ["run_pipeline"]


def run_pipeline(
    stages: Sequence[Stage],
    batches: Sequence[npt.NDArray[Any]],
    axis: int,
    schedule: str,
    context: ExecutionContext,
) -> list[Any]:
    """Runs every micro-batch through every stage: micro-batch m is in stage s while m + 1 is in stage s - 1.

    Args:
        stages: in order.
        batches: the micro-batches, in order.
        axis: the axis along which the tensor was cut.
        schedule: ``"gpipe"`` lets a stage run ahead of the next ones as far as there are micro-batches; ``"1f1b"``
            bounds what is alive: from stage s of S on there are at most S - s micro-batches that have not left.
        context: of the call; its deadline is looked at before every micro-batch of every stage.

    Returns:
        The micro-batches that leave the last stage, in order.

    Raises:
        DeadlineExceeded: the deadline passed; nothing more is started.
        BaseException: the first exception of a stage, of any kind. It stops the pipeline; no thread is left behind.
    """
    run = _Run(stages, batches, axis, schedule, context)
    if len(stages) == 1 or len(batches) == 1:
        # Nothing could overlap.
        for micro_batch in range(len(batches)):
            for stage in stages:
                run.step(stage, micro_batch)
        return run.batches
    with ThreadPoolExecutor(len(stages), thread_name_prefix="zerocost-stage") as pool:
        futures = [pool.submit(contextvars.copy_context().run, run.work, stage) for stage in stages]
        try:
            for future in futures:
                future.result()
        except BaseException:  # an interrupt of the waiting thread stops the stages as well
            run.stop()
            raise
    if run.failure is not None:
        raise run.failure
    return run.batches


class _Run:
    """What the threads of one pipeline share."""

    def __init__(
        self,
        stages: Sequence[Stage],
        batches: Sequence[npt.NDArray[Any]],
        axis: int,
        schedule: str,
        context: ExecutionContext,
    ) -> None:
        self.batches: list[Any] = list(batches)
        self.failure: BaseException | None = None
        self._count = len(stages)
        self._axis = axis
        self._bounded = schedule == "1f1b"
        self._context = context
        self._deadline = context.metadata.get("deadline")
        self._done = [0] * len(stages)
        self._stopped = False
        self._changed = threading.Condition()

    def step(self, stage: Stage, micro_batch: int) -> None:
        """One micro-batch through one stage. What went in is let go of when the result is there."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            error = DeadlineExceeded(f"the deadline passed {time.monotonic() - self._deadline:.3f} s ago")
            error.add_note(f"before stage {stage.index} ({stage.name}) of the pipeline, micro-batch {micro_batch}")
            raise error
        self.batches[micro_batch] = stage(self.batches[micro_batch], micro_batch, self._axis, self._context)

    def work(self, stage: Stage) -> None:
        """Everything that one stage does, in its own thread."""
        for micro_batch in range(len(self.batches)):
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._may_start(stage.index, micro_batch))  # noqa: B023 (waited for here)
                if self._stopped:
                    return
            try:
                self.step(stage, micro_batch)
            except BaseException as error:  # whatever it is: the other threads, and the caller, wait for this one
                self.stop(error)
                return
            with self._changed:
                self._done[stage.index] += 1
                self._changed.notify_all()

    def stop(self, failure: BaseException | None = None) -> None:
        """Starts nothing more. The first failure is the pipeline's."""
        with self._changed:
            if failure is not None and self.failure is None:
                self.failure = failure
            self._stopped = True
            self._changed.notify_all()

    def _may_start(self, stage: int, micro_batch: int) -> bool:
        if stage > 0 and self._done[stage - 1] <= micro_batch:
            return False
        return not self._bounded or self._done[-1] > micro_batch - (self._count - stage)
