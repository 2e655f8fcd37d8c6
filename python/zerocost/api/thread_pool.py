"""A bounded number of threads that run jobs for coroutines, with a queue in front.

The queue has no limit of its own: :mod:`zerocost.api.calls` decides which requests are admitted to it.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ThreadPool", "run_contained"]

Result = TypeVar("Result")

_WEIGHT = 0.2
"""How much the latest job counts in the average duration."""


class ThreadPool:
    """Runs jobs that coroutines wait for, on threads that serve nothing else.

    Attributes:
        size: the most threads.
        jobs: how many jobs run or are queued.
        abandoned: how many run though nobody waits for them any more.
    """

    def __init__(self, size: int, name: str) -> None:
        self.size = size
        self.jobs = 0
        self.abandoned = 0
        self._name = name
        self._threads: ThreadPoolExecutor | None = None
        self._average = 0.01

    @property
    def wait(self) -> float:
        """Seconds after which the jobs of now should be done."""
        return self.jobs * self._average / self.size

    async def run(self, job: Callable[[], Result]) -> Result:
        """Runs ``job`` when a thread is free, in a copy of this context.

        When the waiting is cancelled, a queued job is dropped. A job that runs ends on its own, and keeps its thread
        until then.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.size, thread_name_prefix=self._name)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()
        work = [job]
        self.jobs += 1
        future = self._threads.submit(contextvars.copy_context().run, self._do, work)

        def done(future: Future[Result]) -> None:
            if future.cancelled():
                work.clear()  # its queue entry, which would keep the body, stays until a thread is free
            try:
                loop.call_soon_threadsafe(self._done, future, answer)
            except RuntimeError:  # the loop has ended meanwhile
                self.jobs -= 1

        future.add_done_callback(done)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.cancelled() and not future.cancel():
                self.abandoned += 1
            raise

    def close(self) -> None:
        """Ends the threads once their jobs are done."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    def _done(self, future: Future[Result], answer: asyncio.Future[Result]) -> None:
        self.jobs -= 1
        if answer.cancelled():
            self.abandoned -= not future.cancelled()
        elif future.cancelled():
            answer.cancel()
        elif (error := future.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(future.result())

    def _do(self, work: list[Callable[[], Result]]) -> Result:
        start = time.monotonic()
        try:
            return run_contained(work.pop())
        finally:
            self._average += _WEIGHT * (time.monotonic() - start - self._average)


def run_contained(job: Callable[[], Result]) -> Result:
    """Runs a job for a coroutine; an exception that must not pass through a future becomes a RuntimeError."""
    try:
        return job()
    except BaseException as error:
        # A future cannot carry StopIteration, and confuses the two classes of CancelledError.
        # SystemExit must not end the server.
        if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration | CancelledError):
            raise
        raise RuntimeError(f"the artifact raised {type(error).__name__}") from error
