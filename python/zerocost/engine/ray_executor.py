"""Shards and stages on a Ray cluster: shards are tasks, stages are actors, arrays travel through the object store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from zerocost.core.artifact_base import ExecutionContext
from zerocost.core.executor import PipelineStage
from zerocost.engine.cluster import connect, failure
from zerocost.engine.object_store import ObjectStore
from zerocost.errors import DeadlineExceeded

__all__ = ["RayExecutor"]


class RayExecutor:
    """Runs shards and stages on a Ray cluster. It is an :class:`zerocost.core.executor.Executor`.

    An array is put into the object store once for each call, from where every node fetches it once; workers read it
    there without a copy. What :meth:`share` returned is put there once for all calls, and the shards of large arrays
    run on the same nodes at every call; so a weight that is shared travels once. Lost work is run again; what cannot be
    run again is an error that names it.
    """

    def __init__(self, address: str | None = None, *, retries: int = 3) -> None:
        """Connects; see :func:`zerocost.engine.cluster.connect`.

        Args:
            address: of the cluster; None starts one in this process.
            retries: how often a shard or a stage is run again whose worker died.
        """
        self._ray = connect(address)
        self._retries = retries
        self._tasks: WeakKeyDictionary[Callable[..., Any], Any] = WeakKeyDictionary()
        self._store = ObjectStore(self._ray)

    @staticmethod
    def share(array: npt.ArrayLike) -> npt.NDArray[Any]:
        """A copy that nobody can write to, for weights that many calls use: its parts go to their nodes only once.

        An array that somebody could write to is sent anew at every call, as nobody can know whether it was. The parts
        stay in the object store for as long as the copy, or a view of it, is held.
        """
        given = np.asarray(array)
        return np.ndarray(given.shape, given.dtype, buffer=given.tobytes())

    def shards(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """``function(*call)`` of every call as a Ray task; see :class:`zerocost.core.executor.Executor`."""
        ray = self._ray
        task = self._tasks.get(function)
        if task is None:
            # Ray sends a function to the workers once for each remote function that is made of it.
            task = self._tasks[function] = ray.remote(function)
        put, place = self._store.for_call()
        sent = [tuple(map(put, call)) for call in calls]
        results = [
            task.options(max_retries=self._retries, **place(shard)).remote(*call) for shard, call in enumerate(sent)
        ]
        gathered: list[Any] = []
        try:
            for shard, result in enumerate(results):
                gathered.append(_get(ray, result, f"shard {shard}"))
        except BaseException:
            for result in results[len(gathered) :]:
                ray.cancel(result)
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
            DeadlineExceeded: the context's deadline passed; the stages are stopped.
        """
        ray = self._ray
        metadata = dict(context.metadata)
        deadline = metadata.pop("deadline", None)  # a clock of this machine
        remote = ExecutionContext(context.artifact_name, context.interface, context.mode, metadata)
        kind = ray.remote(_StageActor).options(max_restarts=self._retries, max_task_retries=self._retries)
        actors = [kind.remote(stage) for stage in stages]
        put, _ = self._store.for_call()
        leaving: list[Any] = []
        left: list[Any] = []
        try:
            for micro_batch, batch in enumerate(batches):
                if schedule == "1f1b" and micro_batch >= len(stages):
                    # Not put before it may start: what waits would fill the object store.
                    ray.wait([left[micro_batch - len(stages)]], timeout=_left(deadline))
                reference, gone = put(batch), None
                for stage, actor in enumerate(actors):
                    before = micro_batch - (len(stages) - stage)
                    after = left[before] if schedule == "1f1b" and before >= 0 else None
                    reference, gone = actor.run.options(num_returns=2).remote(
                        reference, micro_batch, axis, remote, after
                    )
                leaving.append(reference)
                left.append(gone)
            what = f"a stage of the pipeline ({', '.join(stage.name for stage in stages)}), micro-batch"
            return [_get(ray, result, f"{what} {index}", deadline) for index, result in enumerate(leaving)]
        finally:
            for actor in actors:
                ray.kill(actor)


class _StageActor:
    """A stage in a process of its own."""

    def __init__(self, stage: PipelineStage) -> None:
        self._stage = stage

    def run(self, batch: Any, micro_batch: int, axis: int, context: ExecutionContext, after: None) -> tuple[Any, None]:
        """The stage's result, and a sign that it is there.

        Ray starts no call before its arguments are there: who must wait for a result takes its sign, which is small.
        """
        return self._stage(batch, micro_batch, axis, context), None


def _get(ray: Any, result: Any, what: str, deadline: float | None = None) -> Any:
    try:
        return ray.get(result, timeout=_left(deadline))
    except ray.exceptions.GetTimeoutError:
        raise DeadlineExceeded(f"the deadline passed before {what} was there") from None
    except Exception as error:
        found = failure(error, what)
        if found is error:
            raise
        if not getattr(found, "__notes__", None):
            found.add_note(f"in {what}, on Ray")
        raise found from None


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
