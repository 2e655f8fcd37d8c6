"""The executor that runs shards and stages on threads of this process."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy.typing as npt

from zerocost.core.artifact_base import ExecutionContext
from zerocost.core.executor import PipelineStage
from zerocost.errors import DeadlineExceeded, Place

__all__ = ["ThreadExecutor"]


class ThreadExecutor:
    """Runs shards and stages on threads of this process. It is an :class:`zerocost.core.executor.Executor`.

    The parallel artifacts use it where they are given none. ``tensor_parallel`` leaves its shards to the kernel, which
    has threads of its own.
    """

    is_local = True

    @staticmethod
    def shards(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], context: ExecutionContext) -> list[Any]:
        """``function(*call)`` of every call, each on a thread; see :class:`zerocost.core.executor.Executor`.

        A thread cannot be stopped: shards that have begun are waited for, also when the deadline passes.
        """

        def run(shard: int, call: tuple[Any, ...]) -> Any:
            try:
                context.check_deadline()
                return function(*call)
            except Exception as error:
                error.add_note(Place(f"in shard {shard}"))
                raise

        with ThreadPoolExecutor(max(1, len(calls)), thread_name_prefix="zerocost-shard") as pool:
            futures = [
                pool.submit(contextvars.copy_context().run, run, shard, call) for shard, call in enumerate(calls)
            ]
            return [future.result() for future in futures]

    @staticmethod
    def pipeline(
        stages: Sequence[PipelineStage],
        batches: Sequence[npt.NDArray[Any]],
        axis: int,
        schedule: str,
        context: ExecutionContext,
    ) -> list[Any]:
        """Every micro-batch through every stage: micro-batch m is in stage s while m + 1 is in stage s - 1.

        Args:
            stages: in order.
            batches: the micro-batches, in order.
            axis: the axis along which the tensor was cut.
            schedule: ``"gpipe"`` lets a stage run ahead of the next ones as far as there are micro-batches; ``"1f1b"``
                bounds what is alive: from stage s of S on, at most S - s micro-batches have not left the pipeline.
            context: of the call; its deadline is checked before every micro-batch of every stage.

        Returns:
            The micro-batches that leave the last stage, in order.

        Raises:
            DeadlineExceeded: the deadline passed; nothing more is started.
            BaseException: the first exception of a stage, of any kind. It stops the pipeline; no thread is left behind.
        """
        run = _Pipeline(len(stages), batches, axis, schedule, context)
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


class _Pipeline:
    """The state that the threads of one pipeline share."""

    def __init__(
        self, num_stages: int, batches: Sequence[npt.NDArray[Any]], axis: int, schedule: str, context: ExecutionContext
    ) -> None:
        self.batches: list[Any] = list(batches)
        self.failure: BaseException | None = None
        self._axis = axis
        self._bounded = schedule == "1f1b"
        self._context = context
        self._done = [0] * num_stages
        self._stopped = False
        self._changed = threading.Condition()

    def step(self, stage: PipelineStage, micro_batch: int) -> None:
        """One micro-batch through one stage. Its input is released when the result is there."""
        try:
            self._context.check_deadline()
        except DeadlineExceeded as error:
            error.add_note(
                Place(f"before stage {stage.index} ({stage.name}) of the pipeline, micro-batch {micro_batch}")
            )
            raise
        self.batches[micro_batch] = stage(self.batches[micro_batch], micro_batch, self._axis, self._context)

    def work(self, stage: PipelineStage) -> None:
        """Everything that one stage does, in its own thread."""
        for micro_batch in range(len(self.batches)):
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._may_start(stage.index, micro_batch))  # noqa: B023 (waited for here)
                if self._stopped:
                    return
            try:
                self.step(stage, micro_batch)
            except BaseException as error:  # of any kind: the other threads and the caller wait for this one
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
        return not self._bounded or self._done[-1] > micro_batch - (len(self._done) - stage)
