"""The metrics of the whole server: requests, what is pending, and the statistics of its memory artifacts."""

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

_REFRESH_TIMEOUT = 0.5
"""Seconds that the page waits for statistics from outside of this process; then it shows the last known ones."""


class ServerMetrics:
    """The metrics of this process and, where there are several, of the other workers."""

    def __init__(self, calls: Calls, registry: ArtifactRegistry) -> None:
        self._calls = calls
        self._memory = MemoryStats(registry)
        folder = calls.settings.worker_folder
        self._workers = None if folder is None else WorkerFolder(folder, lambda: self._own_snapshot().to_dict())
        # Threads of their own: neither requests nor a slow server outside can delay the page.
        self._page_pool = ThreadPool(1, "zerocost-metrics")
        self._stats_pool = ThreadPool(4, "zerocost-stats")
        self._refreshing: dict[str, asyncio.Task[None]] = {}

    @property
    def running(self) -> int:
        """Jobs that the process would wait for if it ended now."""
        return self._page_pool.jobs + self._stats_pool.jobs

    async def page(self) -> bytes:
        """``/metrics``."""
        await self._refresh_stale()
        return await self._page_pool.run(lambda: render_metrics(self._snapshot()))

    async def snapshot(self) -> MetricsSnapshot:
        """The metrics of all workers."""
        return self._snapshot() if self._workers is None else await self._page_pool.run(self._snapshot)

    @contextlib.asynccontextmanager
    async def sharing(self) -> AsyncIterator[None]:
        """A context in which the other workers see what this one counts."""
        writing = None if self._workers is None else asyncio.create_task(self._workers.keep_writing())
        yield
        if writing is not None:
            writing.cancel()
            await asyncio.wait([writing])
        self._page_pool.close()
        self._stats_pool.close()

    async def _refresh_stale(self) -> None:
        for name, artifact in self._memory.stale():
            if name not in self._refreshing:
                self._refreshing[name] = asyncio.create_task(self._refresh(name, artifact))
        if self._refreshing:
            await asyncio.wait(list(self._refreshing.values()), timeout=_REFRESH_TIMEOUT)

    async def _refresh(self, name: str, artifact: Artifact) -> None:
        try:
            await self._stats_pool.run(lambda: self._memory.refresh(name, artifact))
        finally:
            del self._refreshing[name]

    def _own_snapshot(self, *, of_this_process: bool = True) -> MetricsSnapshot:
        memory = self._memory.cached(of_this_process=of_this_process)
        return MetricsSnapshot(self._calls.observations, self._calls.pending, self._calls.is_ready, memory)

    def _snapshot(self) -> MetricsSnapshot:
        own = self._own_snapshot(of_this_process=False)
        return own if self._workers is None else own.merge(self._workers.others())
