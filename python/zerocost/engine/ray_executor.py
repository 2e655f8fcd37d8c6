"""Shards and stages on a Ray cluster: shards are tasks, stages are actors, arrays go through the object store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.core.execution_context import ExecutionContext
from zerocost.core.executor import PipelineStage
from zerocost.engine.cluster import connect
from zerocost.engine.object_store import ObjectStore
from zerocost.engine.placement import Nodes, Placement, placements, set_num_threads, threads_for
from zerocost.engine.remote_calls import get_result, pickled, received, sendable
from zerocost.errors import DeadlineExceeded

__all__ = ["RayExecutor"]


class RayExecutor:
    """Runs shards and stages on a Ray cluster. It is an :class:`zerocost.core.executor.Executor`.

    Each call puts an array into the object store once, every node fetches it once, and workers read it there without a
    copy. An array from :meth:`share` is put once for all calls, and the shards of large arrays run on the same nodes at
    every call, so a shared weight travels once. Shards and stages of a node share its CPUs between their kernels'
    threads; ``ZEROCOST_NUM_THREADS`` of this process overrides that. Lost work is run again; work that cannot be run
    again raises an error that names it.
    """

    is_local = False

    def __init__(self, address: str | None = None, *, retries: int = 3) -> None:
        """Connects; see :func:`zerocost.engine.cluster.connect`.

        Args:
            address: of the cluster; None: the one that ``RAY_ADDRESS`` names, or one that this process starts.
            retries: how often a shard or a stage is run again if its worker dies.
        """
        self._ray = connect(address)
        self._retries = retries
        # One for all functions: Ray keeps every remote function as long as the cluster lives.
        self._task = self._ray.remote(_shard)
        self._nodes = Nodes(self._ray)
        self._store = ObjectStore(self._ray, self._nodes)

    @staticmethod
    def share(array: npt.ArrayLike) -> npt.NDArray[Any]:
        """An immutable copy, for weights that many calls use: its parts go to their nodes only once.

        A writeable array is sent again at every call, as it may have changed. The parts stay in the object store as
        long as the copy, or a view of it, is held.
        """
        given = np.asarray(array)
        return np.ndarray(given.shape, given.dtype, buffer=given.tobytes())

    def shards(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], context: ExecutionContext
    ) -> list[Any]:
        """``function(*call)`` of every call as a Ray task; see :class:`zerocost.core.executor.Executor`."""
        ray, deadline = self._ray, context.metadata.get("deadline")
        put, large = self._store.for_call()
        sent = [tuple(map(put, call)) for call in calls]
        if large:
            places = placements(large, len(calls))
        else:
            # Ray chooses the nodes; it may choose the same one for all.
            cpus = min((node.cpus for node in self._nodes.recent()), default=1)
            places = [Placement(threads_for(cpus, len(calls)))] * len(calls)
        results = [
            self._task.options(max_retries=self._retries, **place.options).remote(place.threads, function, *call)
            for place, call in zip(places, sent, strict=True)
        ]
        gathered: list[Any] = []
        try:
            for shard, reference in enumerate(results):
                gathered.append(get_result(ray, reference, f"shard {shard}".__str__, deadline))
        except BaseException as error:
            for reference in results[len(gathered) :]:
                # A late shard may never return: its worker is killed.
                ray.cancel(reference, force=isinstance(error, DeadlineExceeded))
            raise
        return gathered

    def pipeline(
        self,
        stages: Sequence[PipelineStage],
        batches: Sequence[npt.NDArray[Any]],
        axis: int,
        schedule: str,
        context: ExecutionContext,
    ) -> list[Any]:
        """Every micro-batch through every stage, an actor for each stage; micro-batches go from actor to actor.

        Under ``"1f1b"`` stage s of S starts a micro-batch only when at most S - s - 1 of those that it has finished are
        still in the stages behind it.

        Raises:
            DatatypeError: a stage cannot be sent to another process.
            DeadlineExceeded: the context's deadline passed; the stages are stopped.
            ServiceUnavailable: a stage was lost and could not be run again; the message names it and the micro-batch.
        """
        ray, deadline = self._ray, context.metadata.get("deadline")
        remote, seconds = sendable(context)
        put, _ = self._store.for_call()
        actors: list[Any] = []
        outputs: list[Any] = []
        done: list[list[Any]] = []
        """For each micro-batch a small reference per stage that is ready when the stage has finished it."""

        def where(micro_batch: int) -> Callable[[], str]:
            return lambda: _where(ray, stages, done[micro_batch], micro_batch)

        try:
            nodes = self._nodes.current()
            for stage, place in zip(stages, placements(nodes, len(stages), adjacent=True), strict=True):
                actors.append(self._actor(stage, place))
            for micro_batch, batch in enumerate(batches):
                if schedule == "1f1b" and micro_batch >= len(stages):
                    # Put only when it may start: waiting micro-batches would fill the object store.
                    before = micro_batch - len(stages)
                    get_result(ray, done[before][-1], where(before), deadline)
                reference, finished = put(batch), []
                for number, actor in enumerate(actors):
                    before = micro_batch - (len(stages) - number)
                    after = done[before][-1] if schedule == "1f1b" and before >= 0 else None
                    reference, ready = actor.run.options(num_returns=2).remote(
                        reference, micro_batch, axis, remote, seconds, after
                    )
                    finished.append(ready)
                outputs.append(reference)
                done.append(finished)
            return [get_result(ray, reference, where(index), deadline) for index, reference in enumerate(outputs)]
        finally:
            for actor in actors:
                ray.kill(actor)

    def _actor(self, stage: PipelineStage, place: Placement) -> Any:
        # max_restarts bounds the retries: a task's own would be used up before Ray knows that a node is gone.
        kind = self._ray.remote(_StageActor)
        kind = kind.options(max_restarts=self._retries, max_task_retries=-1, **place.options)
        name = f"stage {stage.index} ({stage.name})"
        return pickled(self._ray, lambda: kind.remote(stage, place.threads), name.__str__, f"stages: {name}", "stages")


class _StageActor:
    """A stage in a process of its own."""

    def __init__(self, stage: PipelineStage, threads: int) -> None:
        set_num_threads(threads)
        self._stage = stage

    def run(
        self, batch: Any, micro_batch: int, axis: int, context: ExecutionContext, seconds: float | None, after: None
    ) -> tuple[Any, None]:
        """The stage's result, and a None that is ready when the result is.

        Ray starts a call when its arguments are ready: a call that must wait for a result takes that None as
        ``after`` and so does not fetch the array.
        """
        return self._stage(batch, micro_batch, axis, received(context, seconds)), None


def _shard(threads: int, function: Callable[..., Any], *call: Any) -> Any:
    set_num_threads(threads)
    return function(*call)


def _where(ray: Any, stages: Sequence[PipelineStage], done: list[Any], micro_batch: int) -> str:
    """Names the first stage that has not finished a micro-batch."""
    stage = next((stage for stage, ready in zip(stages, done, strict=True) if not _is_ready(ray, ready)), stages[-1])
    return f"micro-batch {micro_batch} in stage {stage.index} ({stage.name}) of the pipeline"


def _is_ready(ray: Any, reference: Any) -> bool:
    try:
        ray.get(reference, timeout=0)
    except Exception:
        return False
    return True
