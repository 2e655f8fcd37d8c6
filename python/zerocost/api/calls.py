"""The one way in: every request that computes or uses a service is admitted, bounded and measured here.

A request that is not answered at once is *pending*: it waits for its turn, or works. There is one limit for all pending
requests; beyond it the response is 429. Only computing takes a thread of the compute pool, which has as many as there
are cores. Requests that wait to be computed in one batch wait without a thread, and their batch takes one. What waits
for something outside of this process, such as a Redis server, has a few threads of its own. Nothing runs on asyncio's
default executor.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from zerocost.api.settings import Settings
from zerocost.api.telemetry.observations import Observations
from zerocost.api.thread_pool import ThreadPool, run_contained
from zerocost.api.wire.body import BodyReader, ClientGone
from zerocost.api.wire.problems import HTTPError
from zerocost.api.wire.request import Request
from zerocost.api.wire.stages import QUEUE, Stages
from zerocost.core.artifact_base import Artifact
from zerocost.errors import DeadlineExceeded, LimitExceeded

__all__ = ["OFFLOAD_BYTES", "Calls", "IOBound"]

Result = TypeVar("Result")

_INLINE_BYTES = 4096
"""Up to this size the bodies of quick artifacts are computed on the event loop: moving to a thread costs more."""

_INLINE_OPERATIONS = 1 << 18
"""The most operations on the event loop, where the size of the body does not bound them: less than a thread hop."""

OFFLOAD_BYTES = 64 << 10
"""Bytes from which on a text is parsed on a thread, so that the event loop goes on."""

_IO_THREADS = 8
"""Threads that wait for what is outside of this process."""

_DEADLINE_PASSED = "the deadline passed before the request was answered"


@dataclass(frozen=True)
class IOBound(Generic[Result]):
    """What a job returns when it finds out that it must wait for something outside of this process: the rest of it."""

    job: Callable[[], Result]


class Calls:
    """What all routes share.

    Attributes:
        compute_pool: the threads that compute.
        io_pool: the threads that wait for something outside of this process.
        bodies: what reads a request's body.
        limits: what one call may ask for.
        observations: where every response is counted.
        is_ready: whether new requests should be sent here.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.compute_pool = ThreadPool(settings.slots or os.cpu_count() or 1, "zerocost-request")
        self.io_pool = ThreadPool(_IO_THREADS, "zerocost-io")
        self.observations = Observations()
        self.is_ready = True
        self.limits = settings.limits
        self._inline_limits = replace(
            self.limits,
            elements=min(_INLINE_BYTES, settings.max_elements),
            fan_out=0,
            operations=min(_INLINE_OPERATIONS, settings.max_operations),
        )
        self.bodies = BodyReader(settings)
        self._admitted = 0

    @property
    def pending(self) -> int:
        """Requests that compute or wait, and jobs that still run though nobody waits for them any more."""
        # A batch runs for requests that are pending themselves, unless all their clients have gone.
        return max(
            self._admitted + self.compute_pool.abandoned + self.io_pool.abandoned,
            self.compute_pool.jobs + self.io_pool.jobs,
        )

    def stop_accepting(self) -> None:
        """Tells load balancers, from now on, to send new requests elsewhere."""
        self.is_ready = False

    def check_ready(self) -> None:
        """Raises HTTPError (503) once new requests should go elsewhere."""
        if not self.is_ready:
            raise HTTPError(503, "not_ready", "the server is shutting down", {"retry-after": "1"})

    def close(self) -> None:
        """Ends the threads once their jobs are done."""
        self.compute_pool.close()
        self.io_pool.close()

    def begin(self, request: Request, name: str) -> tuple[Stages, dict[str, Any]]:
        """Begins a call; errors and metrics know it by ``name``.

        Returns:
            Its stages, and the metadata of its execution context: id, limits, deadline and trace.

        Raises:
            HTTPError: ``Request-Timeout`` is not a number of seconds (400).
        """
        metadata: dict[str, Any] = {"request_id": request.id, "limits": self.limits}
        headers = request.headers
        timeout = self.settings.request_timeout or None
        if b"request-timeout" in headers:
            asked = request.seconds("Request-Timeout") or 0.0
            if not 0 < asked < 1e9:
                raise HTTPError(400, "bad_request", "Request-Timeout must be a number of seconds")
            if timeout is None or asked < timeout:
                timeout = asked
                request.deadline = request.began + asked
        if timeout is not None:
            metadata["deadline"] = request.began + timeout
        if "zerocost.span" in request.scope:
            metadata["span"] = request.scope["zerocost.span"]
        if b"traceparent" in headers:
            metadata["traceparent"] = request.header(b"traceparent")
        stages = request.stages = Stages(name)
        return stages, metadata

    async def offload(self, size: int, job: Callable[[], Result]) -> Result:
        """Parses a text of ``size`` bytes for a request that is admitted; a long one on a thread."""
        return job() if size <= OFFLOAD_BYTES else await self.compute_pool.run(job)

    async def offload_if_room(self, size: int, job: Callable[[], Result]) -> Result:
        """As :meth:`offload` before a request is admitted; raises HTTPError (429) if too many wait already."""
        if size > OFFLOAD_BYTES:
            self._check_room()
        return await self.offload(size, job)

    async def run(
        self,
        request: Request,
        artifact: Artifact | None,
        job: Callable[[], Result | IOBound[Result]],
        size: int,
        metadata: dict[str, Any],
    ) -> Result:
        """Runs a job where it belongs: small work of a quick artifact on the event loop, everything else on a thread.

        Args:
            request: what the job is for; its body has been read.
            artifact: the one that is called, None for a chain.
            job: what to do. It may start twice: one that turns out to be too large for the event loop starts again on a
                thread. One that turns out to wait for something outside returns the rest of it as :class:`IOBound`,
                and gives its thread back.
            size: bytes of the body.
            metadata: of the execution context; ``job`` uses it.

        Raises:
            HTTPError, DeadlineExceeded, ClientGone: as :meth:`admit`.
        """
        deadline = metadata.get("deadline")
        if artifact is not None and size <= _INLINE_BYTES and artifact.is_quick:
            if deadline is not None and time.monotonic() > deadline:
                raise DeadlineExceeded(_DEADLINE_PASSED)
            metadata["limits"] = self._inline_limits
            try:
                done = run_contained(job)
                if not isinstance(done, IOBound):
                    return done
            except LimitExceeded:
                metadata["limits"] = self.limits
        pool = self.io_pool if artifact is not None and artifact.waits else self.compute_pool

        async def work() -> Result:
            done = await self.run_in(request, pool, job)
            return await self.io_pool.run(done.job) if isinstance(done, IOBound) else done

        return await self.admit(request, work(), deadline)

    def run_in(self, request: Request, pool: ThreadPool, job: Callable[[], Result]) -> Coroutine[Any, Any, Result]:
        """Runs a job in a pool; the time until it starts is that of the queue."""
        stages = request.stages

        def start() -> Result:
            if stages is not None:
                stages.end(QUEUE)
            return job()

        return pool.run(start)

    async def admit(self, request: Request, work: Coroutine[Any, Any, Result], deadline: float | None) -> Result:
        """Admits a request and waits for its ``work``, which is cancelled once nobody waits for it any more.

        Args:
            request: what the work is for; its body has been read.
            work: starts at once, and waits for its turn itself.
            deadline: seconds on :func:`time.monotonic`.

        Raises:
            HTTPError: too many requests wait already (429 with Retry-After).
            DeadlineExceeded: the deadline passed. A job that runs on a thread ends on its own and counts until then:
                requests that arrive meanwhile wait, or are told to come back.
            ClientGone: the client disconnected.
        """
        try:
            self._check_room()
        except HTTPError:
            work.close()
            raise
        self._admitted += 1
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._ended)
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            await asyncio.wait((task, gone), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if gone.done():
                raise ClientGone
            raise DeadlineExceeded(_DEADLINE_PASSED)
        finally:
            gone.cancel()
            task.cancel()

    def _check_room(self) -> None:
        if self.pending >= self.compute_pool.size + self.settings.max_waiting:
            wait = max(1, math.ceil(max(self.compute_pool.wait, self.io_pool.wait)))
            raise HTTPError(
                429, "overloaded", "the server has too much to do; try again later", {"retry-after": str(wait)}
            )

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._admitted -= 1
        if not task.cancelled():
            task.exception()  # retrieved, since nobody else may be left to do it


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
