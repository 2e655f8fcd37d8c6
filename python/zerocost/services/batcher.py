"""Dynamic batching: concurrent requests run as one batch, with a bounded delay and a bounded size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from zerocost.services.request_context import to_thread

__all__ = ["Batcher"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class _Batch(Generic[Item, Result]):
    items: list[Item] = field(default_factory=list)
    answers: list[asyncio.Future[Result]] = field(default_factory=list)
    size: int = 0
    full: asyncio.Event = field(default_factory=asyncio.Event)


class Batcher(Generic[Item, Result]):
    """Collects items with equal keys while an earlier batch is computed, and for a short delay after that.

    One batch is computed at a time, in a thread of the server, because the kernels use every core anyway. A batcher
    belongs to one event loop.

    Args:
        compute: returns a result for each item; it gets items with equal keys. If it raises for several items, it is
            called again with each of them alone: one item must not fail the others.
        max_delay: seconds that the first item of a batch waits for others.
        max_size: the largest sum of sizes in a batch. A larger item is computed alone.
    """

    def __init__(
        self, compute: Callable[[Sequence[Item]], Sequence[Result]], *, max_delay: float, max_size: int
    ) -> None:
        self._compute = compute
        self._max_delay = max_delay
        self._max_size = max_size
        self._open: dict[Hashable, _Batch[Item, Result]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    async def submit(self, item: Item, key: Hashable, size: int) -> Result:
        """The result of ``item``, which is computed together with others of the same key."""
        batch = self._open.get(key)
        if batch is not None and batch.size + size > self._max_size:
            batch.full.set()
            batch = None
        if batch is None:
            batch = self._open[key] = _Batch()
            task = asyncio.create_task(self._run(key, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        batch.items.append(item)
        batch.answers.append(answer)
        batch.size += size
        return await answer

    async def _run(self, key: Hashable, batch: _Batch[Item, Result]) -> None:
        try:
            async with asyncio.timeout(self._max_delay):
                await batch.full.wait()
        except TimeoutError:
            pass
        async with self._turn:
            if self._open.get(key) is batch:
                del self._open[key]
            # Items whose client has left are not computed.
            pairs = zip(batch.items, batch.answers, strict=True)
            waiting = [(item, answer) for item, answer in pairs if not answer.done()]
            if not waiting:
                return
            results: Sequence[Result | Exception]
            try:
                results = await to_thread(lambda: self._results([item for item, _ in waiting]))
            except Exception as error:  # no thread took the work
                results = [error] * len(waiting)
        for (_, answer), result in zip(waiting, results, strict=True):
            if answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

    def _results(self, items: Sequence[Item]) -> Sequence[Result | Exception]:
        try:
            return self._compute(items)
        except Exception as error:
            if len(items) == 1:
                return [error]
            return [result for item in items for result in self._results([item])]
