"""Puts concurrent requests together into one batch, with a bounded wait and a bounded size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from zerocost.services.twins import apart

__all__ = ["Joiner"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class _Batch(Generic[Item, Result]):
    items: list[Item] = field(default_factory=list)
    answers: list[asyncio.Future[Result]] = field(default_factory=list)
    size: int = 0
    full: asyncio.Event = field(default_factory=asyncio.Event)


class Joiner(Generic[Item, Result]):
    """Collects items with equal keys while an earlier batch is computed, and a moment longer.

    One batch is computed at a time, apart (:func:`zerocost.services.twins.apart`): kernels use every core anyway. It
    belongs to one event loop.

    Args:
        compute: a result for each item, or the exception that is its answer. It gets items with equal keys.
        wait: seconds that the first item of a batch waits for company.
        most: the largest sum of sizes in a batch; an item that is larger is computed alone.
    """

    def __init__(
        self, compute: Callable[[Sequence[Item]], Sequence[Result | Exception]], *, wait: float, most: int
    ) -> None:
        self._compute = compute
        self._wait = wait
        self._most = most
        self._open: dict[Hashable, _Batch[Item, Result]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    async def submit(self, item: Item, key: Hashable, size: int) -> Result:
        """The result of ``item``, computed together with others of the same key."""
        batch = self._open.get(key)
        if batch is not None and batch.size + size > self._most:
            batch.full.set()
            batch = None
        if batch is None:
            batch = self._open[key] = _Batch()
            task = asyncio.create_task(self._answer(key, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        batch.items.append(item)
        batch.answers.append(answer)
        batch.size += size
        return await answer

    async def _answer(self, key: Hashable, batch: _Batch[Item, Result]) -> None:
        try:
            async with asyncio.timeout(self._wait):
                await batch.full.wait()
        except TimeoutError:
            pass
        async with self._turn:
            if self._open.get(key) is batch:
                del self._open[key]
            # Who has gone away meanwhile is not computed.
            waiting = [
                (item, answer) for item, answer in zip(batch.items, batch.answers, strict=True) if not answer.done()
            ]
            if not waiting:
                return
            results: Sequence[Result | Exception]
            try:
                results = await apart(lambda: self._compute([item for item, _ in waiting]))
            except Exception as error:  # belongs to those who wait
                results = [error] * len(waiting)
        for (_, answer), result in zip(waiting, results, strict=True):
            if answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)
