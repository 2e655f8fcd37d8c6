"""Shards and stages on a Ray cluster: shards are tasks, stages are actors, arrays travel through the object store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from zerocost.core.artifact_base import ExecutionContext
from zerocost.core.executor import PipelineStage
from zerocost.engine.cluster import connect, failure
from zerocost.errors import DeadlineExceeded, LimitExceeded

__all__ = ["RayExecutor"]

_SMALL = 2**20
"""Arrays of up to this many bytes fit any object store (Ray's smallest has 75 MiB)."""


class RayExecutor:
    """Runs shards and stages on a Ray cluster. It is an :class:`zerocost.core.executor.Executor`.

    An array is put into the object store once for each call, from where every node fetches it once; workers read it
    there without a copy. Lost work is run again; what cannot be run again is an error that names it.
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

    def shards(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """``function(*call)`` of every call as a Ray task; see :class:`zerocost.core.executor.Executor`."""
        ray = self._ray
        task = self._tasks.get(function)
        if task is None:
            # Ray sends a function to the workers once for each remote function that is made of it.
            task = self._tasks[function] = ray.remote(function).options(max_retries=self._retries)
        store = _Store(ray)
        results = [task.remote(*map(store.put, call)) for call in calls]
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

        Under ``"1f1b"`` at most as many micro-batches are on the way as there are stages.

        Raises:
            DeadlineExceeded: the context's deadline passed; the stages are stopped.
        """
        ray = self._ray
        metadata = dict(context.metadata)
        deadline = metadata.pop("deadline", None)  # a clock of this machine
        remote = ExecutionContext(context.artifact_name, context.interface, context.mode, metadata)
        kind = ray.remote(_StageActor).options(max_restarts=self._retries, max_task_retries=self._retries)
        actors = [kind.remote(stage) for stage in stages]
        store = _Store(ray)
        leaving: list[Any] = []
        try:
            for micro_batch, batch in enumerate(batches):
                if schedule == "1f1b" and micro_batch >= len(stages):
                    ray.wait([leaving[micro_batch - len(stages)]], timeout=_left(deadline), fetch_local=False)
                reference = store.put(batch)
                for actor in actors:
                    reference = actor.run.remote(reference, micro_batch, axis, remote)
                leaving.append(reference)
            what = f"a stage of the pipeline ({', '.join(stage.name for stage in stages)}), micro-batch"
            return [_get(ray, result, f"{what} {index}", deadline) for index, result in enumerate(leaving)]
        finally:
            for actor in actors:
                ray.kill(actor)


class _StageActor:
    """A stage in a process of its own."""

    def __init__(self, stage: PipelineStage) -> None:
        self._stage = stage

    def run(self, batch: Any, micro_batch: int, axis: int, context: ExecutionContext) -> Any:
        return self._stage(batch, micro_batch, axis, context)


class _Store:
    """Puts each array of a call into the object store once."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._references: dict[int, Any] = {}

    @cached_property
    def _room(self) -> int:
        """The bytes that the smallest object store of a node holds. Asking costs more than a small task."""
        sizes = [node["Resources"].get("object_store_memory", 0) for node in self._ray.nodes() if node["Alive"]]
        return int(min(sizes, default=0))

    def put(self, value: Any) -> Any:
        """A reference to an array; anything else as it is."""
        if not isinstance(value, np.ndarray):
            return value
        if id(value) not in self._references:
            if value.nbytes > _SMALL and value.nbytes > self._room:
                raise LimitExceeded(
                    f"an array of {value.nbytes:,} bytes was given, the object store of a node holds {self._room:,}; "
                    "start Ray with more object_store_memory, or cut the array into more parts"
                )
            # A strided array would be copied into the message itself instead of the store.
            self._references[id(value)] = self._ray.put(np.ascontiguousarray(value))
        return self._references[id(value)]


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
