"""What a server tells about itself: what it saw, what is pending, what its memory artifacts hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from zerocost.api.calls import Calls
from zerocost.api.telemetry.metrics import MemoryStats, MetricsSnapshot, render_metrics
from zerocost.api.telemetry.workers import WorkerFolder
from zerocost.api.thread_pool import ThreadPool
from zerocost.core.artifact_base import Artifact
from zerocost.core.artifact_registry import ArtifactRegistry

__all__ = ["ServerMetrics"]

_PATIENCE = 0.5
"""Seconds that the page waits for statistics from outside of this process; then it shows what was known before."""


class ServerMetrics:
    """The figures of this process and, where there are several, of its other workers."""

    def __init__(self, calls: Calls, registry: ArtifactRegistry) -> None:
        self._calls = calls
        self._memory = MemoryStats(registry)
        folder = calls.settings.worker_folder
        self._workers = None if folder is None else WorkerFolder(folder, lambda: self._own().snapshot())
        # Threads of their own: the page is behind nothing but itself, whatever a request or a server outside does.
        self._pages = ThreadPool(1, "zerocost-metrics")
        self._outside = ThreadPool(4, "zerocost-stats")
        self._asking: dict[str, asyncio.Task[None]] = {}

    @property
    def running(self) -> int:
        """What the process would wait for if it ended now."""
        return self._pages.jobs + self._outside.jobs

    async def page(self) -> bytes:
        """``/metrics``."""
        await self._ask()
        return await self._pages.run(lambda: render_metrics(self._all()))

    async def figures(self) -> MetricsSnapshot:
        """What this process and its other workers saw."""
        return self._all() if self._workers is None else await self._pages.run(self._all)

    @contextlib.asynccontextmanager
    async def sharing(self) -> AsyncIterator[None]:
        """While it is entered, other workers see what this one counts."""
        writing = None if self._workers is None else asyncio.create_task(self._workers.keep_writing())
        yield
        if writing is not None:
            writing.cancel()
            await asyncio.wait([writing])
        self._pages.close()
        self._outside.close()

    async def _ask(self) -> None:
        for name, artifact in self._memory.stale():
            if name not in self._asking:
                self._asking[name] = asyncio.create_task(self._refresh(name, artifact))
        if self._asking:
            await asyncio.wait(list(self._asking.values()), timeout=_PATIENCE)

    async def _refresh(self, name: str, artifact: Artifact) -> None:
        try:
            await self._outside.run(lambda: self._memory.ask(name, artifact))
        finally:
            del self._asking[name]

    def _own(self, *, of_this_process: bool = True) -> MetricsSnapshot:
        memory = self._memory.known(of_this_process=of_this_process)
        return MetricsSnapshot(self._calls.observations, self._calls.pending, self._calls.is_ready, memory)

    def _all(self) -> MetricsSnapshot:
        own = self._own(of_this_process=False)
        return own if self._workers is None else own.absorb(self._workers.others())
