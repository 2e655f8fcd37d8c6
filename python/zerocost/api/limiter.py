"""How many requests compute at the same time: as many as there are cores. What waits is bounded.

A slot is a thread. One request takes one slot, whatever it does in it: branches of its chain bring threads of their
own, so no chain waits for another.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.types import Receive

from zerocost.api.body import ClientGone
from zerocost.api.problems import Refused
from zerocost.errors import DeadlineExceeded

__all__ = ["Limiter", "answered", "contained"]

Result = TypeVar("Result")

_WEIGHT = 0.2
"""How much the latest request counts in the average duration."""


class Limiter:
    """Runs jobs on a bounded number of threads, with a bounded queue in front of them."""

    def __init__(self, slots: int, max_waiting: int) -> None:
        self.slots = slots or os.cpu_count() or 1
        self.max_waiting = max_waiting
        self.pending = 0
        """Jobs that run or wait."""
        self._average = 0.01
        self._threads = ThreadPoolExecutor(self.slots, thread_name_prefix="zerocost-request")

    async def run(self, job: Callable[[], Result], receive: Receive, deadline: float | None) -> Result:
        """Runs ``job`` when a slot is free.

        Args:
            job: what to do; it runs in another thread.
            receive: the request's, whose body has been read: a client that goes away cancels what has not started.
            deadline: seconds on ``time.monotonic()``.

        Raises:
            Refused: too many wait already (429 with Retry-After).
            DeadlineExceeded: the deadline passed; a job that is running then ends on its own, and keeps its slot until
                it has: who comes meanwhile waits, or is told to come back.
            ClientGone: the client went away.
        """
        if self.pending >= self.slots + self.max_waiting:
            wait = math.ceil(self.pending * self._average / self.slots)
            raise Refused(
                429, "overloaded", "the server has too much to do; try again later", {"retry-after": str(max(1, wait))}
            )
        self.pending += 1
        work = [job]
        running: Future[Result] = self._threads.submit(self._timed, work)
        loop = asyncio.get_running_loop()

        def done(future: Future[Result]) -> None:
            if future.cancelled():
                work.clear()  # the threads' queue keeps its entry, and would keep the body, until one is free
            self._done(loop)

        running.add_done_callback(done)
        return await answered(asyncio.wrap_future(running), receive, deadline)

    def close(self) -> None:
        """Ends the threads once their jobs are done."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _timed(self, work: list[Callable[[], Result]]) -> Result:
        start = time.monotonic()
        try:
            return contained(work.pop())
        finally:
            self._average += _WEIGHT * (time.monotonic() - start - self._average)

    def _done(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.call_soon_threadsafe(self._free)
        except RuntimeError:  # the loop has ended meanwhile
            self._free()

    def _free(self) -> None:
        self.pending -= 1


def contained(job: Callable[[], Result]) -> Result:
    """Runs a job for somebody who awaits it; raises RuntimeError for what no future carries and no server obeys."""
    try:
        return job()
    except BaseException as error:
        # A future cannot carry StopIteration, and turns one class of CancelledError into the other.
        if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration | CancelledError):
            raise
        raise RuntimeError(f"the artifact raised {type(error).__name__}") from error


async def answered(result: asyncio.Future[Result], receive: Receive, deadline: float | None) -> Result:
    """Waits for a result while there is somebody to wait for; then cancels it.

    Args:
        result: what is waited for.
        receive: the request's, whose body has been read.
        deadline: seconds on ``time.monotonic()``.

    Raises:
        DeadlineExceeded: the deadline passed.
        ClientGone: the client went away.
    """
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        done, _ = await asyncio.wait((result, gone), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if result in done:
            return result.result()
        if gone in done:
            raise ClientGone
        raise DeadlineExceeded("the deadline passed before the request was answered")
    finally:
        gone.cancel()
        if not result.done():
            result.cancel()


async def _disconnected(receive: Receive) -> Any:
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message
