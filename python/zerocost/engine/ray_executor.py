"""Shards and stages on a Ray cluster: shards are tasks, stages are actors, arrays travel through the object store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.core.artifact_base import ExecutionContext
from zerocost.core.executor import PipelineStage
from zerocost.engine.cluster import connect, failure
from zerocost.engine.journey import arrived, packed, result
from zerocost.engine.object_store import ObjectStore
from zerocost.engine.placement import Nodes, Place, places, set_num_threads, threads_for
from zerocost.errors import DatatypeError, DeadlineExceeded

__all__ = ["RayExecutor"]


class RayExecutor:
    """Runs shards and stages on a Ray cluster. It is an :class:`zerocost.core.executor.Executor`.

    An array is put into the object store once for each call, from where every node fetches it once; workers read it
    there without a copy. What :meth:`share` returned is put there once for all calls, and the shards of large arrays
    run on the same nodes at every call; so a weight that is shared travels once. Shards and stages of a node share its
    CPUs between their kernels' threads (``ZEROCOST_NUM_THREADS``, where it is set here, holds instead). Lost work is
    run again; what cannot be run again is an error that names it.
    """

    def __init__(self, address: str | None = None, *, retries: int = 3) -> None:
        """Connects; see :func:`zerocost.engine.cluster.connect`.

        Args:
            address: of the cluster; None: the one that ``RAY_ADDRESS`` names, or one that this process starts.
            retries: how often a shard or a stage is run again whose worker died.
        """
        self._ray = connect(address)
        self._retries = retries
        # One for all functions: Ray keeps each remote function that is made for as long as the cluster is there.
        self._task = self._ray.remote(_shard)
        self._nodes = Nodes(self._ray)
        self._store = ObjectStore(self._ray, self._nodes)

    @staticmethod
    def share(array: npt.ArrayLike) -> npt.NDArray[Any]:
        """A copy that nobody can write to, for weights that many calls use: its parts go to their nodes only once.

        An array that somebody could write to is sent anew at every call, as nobody can know whether it was. The parts
        stay in the object store for as long as the copy, or a view of it, is held.
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
            homes = places(large, len(calls))
        else:
            # Ray chooses the nodes, and may choose the same one for all.
            cpus = min((node.cpus for node in self._nodes.lately()), default=1)
            homes = [Place(threads_for(cpus, len(calls)))] * len(calls)
        results = [
            self._task.options(max_retries=self._retries, **home.options).remote(home.threads, function, *call)
            for home, call in zip(homes, sent, strict=True)
        ]
        gathered: list[Any] = []
        try:
            for shard, reference in enumerate(results):
                gathered.append(result(ray, reference, f"shard {shard}".__str__, deadline))
        except BaseException as error:
            for reference in results[len(gathered) :]:
                # What is late may never look up from its work again: its worker is ended.
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

        Under ``"1f1b"`` stage s of S starts a micro-batch only when at most S - s - 1 others that it has finished, or
        stages behind it, have not left the pipeline.

        Raises:
            DatatypeError: a stage cannot be sent to another process.
            DeadlineExceeded: the context's deadline passed; the stages are stopped.
            ServiceUnavailable: a stage was lost and could not be run again; the message names it and the micro-batch.
        """
        ray, deadline = self._ray, context.metadata.get("deadline")
        remote, seconds = packed(context)
        put, _ = self._store.for_call()
        actors: list[Any] = []
        leaving: list[Any] = []
        signs: list[list[Any]] = []

        def where(micro_batch: int) -> Callable[[], str]:
            return lambda: _where(ray, stages, signs[micro_batch], micro_batch)

        try:
            for stage, home in zip(stages, places(self._nodes.now(), len(stages), neighbours=True), strict=True):
                actors.append(self._actor(stage, home))
            for micro_batch, batch in enumerate(batches):
                if schedule == "1f1b" and micro_batch >= len(stages):
                    # Not put before it may start: what waits would fill the object store.
                    before = micro_batch - len(stages)
                    result(ray, signs[before][-1], where(before), deadline)
                reference, passed = put(batch), []
                for number, actor in enumerate(actors):
                    before = micro_batch - (len(stages) - number)
                    after = signs[before][-1] if schedule == "1f1b" and before >= 0 else None
                    reference, sign = actor.run.options(num_returns=2).remote(
                        reference, micro_batch, axis, remote, seconds, after
                    )
                    passed.append(sign)
                leaving.append(reference)
                signs.append(passed)
            return [result(ray, reference, where(index), deadline) for index, reference in enumerate(leaving)]
        finally:
            for actor in actors:
                ray.kill(actor)

    def _actor(self, stage: PipelineStage, home: Place) -> Any:
        ray = self._ray
        # Restarts bound the retries. Counted by themselves they are used up while nobody knows yet that a node is gone.
        kind = ray.remote(_StageActor).options(max_restarts=self._retries, max_task_retries=-1, **home.options)
        try:
            return kind.remote(stage, home.threads)
        except ray.exceptions.RayError as error:
            raise failure(error, f"stage {stage.index} ({stage.name})".__str__) from error
        except Exception as error:  # whatever the stage's own objects raise when they are asked to be pickled
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DatatypeError(
                f"stages: stage {stage.index} ({stage.name}) cannot be sent to another process ({reason})", "stages"
            ) from error


class _StageActor:
    """A stage in a process of its own."""

    def __init__(self, stage: PipelineStage, threads: int) -> None:
        set_num_threads(threads)
        self._stage = stage

    def run(
        self, batch: Any, micro_batch: int, axis: int, context: ExecutionContext, seconds: float | None, after: None
    ) -> tuple[Any, None]:
        """The stage's result, and a sign that it is there.

        Ray starts no call before its arguments are there: who must wait for a result takes its sign, which is small.
        """
        return self._stage(batch, micro_batch, axis, arrived(context, seconds)), None


def _shard(threads: int, function: Callable[..., Any], *call: Any) -> Any:
    set_num_threads(threads)
    return function(*call)


def _where(ray: Any, stages: Sequence[PipelineStage], signs: list[Any], micro_batch: int) -> str:
    """The first stage that a micro-batch has not passed, in words."""
    stage = next((stage for stage, sign in zip(stages, signs, strict=True) if not _is_there(ray, sign)), stages[-1])
    return f"micro-batch {micro_batch} in stage {stage.index} ({stage.name}) of the pipeline"


def _is_there(ray: Any, sign: Any) -> bool:
    try:
        ray.get(sign, timeout=0)
    except Exception:
        return False
    return True
