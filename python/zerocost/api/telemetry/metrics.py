"""``/metrics`` in Prometheus' text format."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from zerocost._kernels import __version__
from zerocost.api.telemetry.observations import BUCKETS, Observations
from zerocost.core.artifact_base import Artifact, ExecutionContext
from zerocost.core.artifact_registry import ArtifactRegistry

__all__ = ["CONTENT_TYPE", "MemoryStats", "MetricsSnapshot", "render_metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS = {
    "hits": "Look-ups that found something.",
    "misses": "Look-ups that found nothing.",
    "loads": "Values that were computed because they were missing.",
    "load_seconds": "Seconds that computing missing values took.",
    "rejected": "Values that were too large to be stored.",
}
_GAUGES = {"entries": "Entries that are stored.", "bytes": "Bytes that are charged for what is stored."}


@dataclass
class MetricsSnapshot:
    """The metrics of one worker process, or of all together.

    Attributes:
        observations: requests and responses.
        pending: requests that compute or wait.
        ready: whether new requests are accepted.
        memory: the statistics of each memory artifact, by its name.
        workers: how many processes serve.
    """

    observations: Observations
    pending: int
    ready: bool
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)
    workers: int = 1

    def to_dict(self) -> dict[str, Any]:
        """The metrics as other workers read them."""
        return {**self.observations.to_dict(), "pending": self.pending, "memory": self.memory}

    def merge(self, others: Iterable[dict[str, Any]]) -> MetricsSnapshot:
        """These metrics and those of other workers (:meth:`WorkerFolder.others`) together."""
        merged = MetricsSnapshot(Observations(), self.pending, self.ready, dict(self.memory), self.workers)
        merged.observations.merge(self.observations.to_dict())
        for other in others:
            merged.observations.merge(other)
            if other["alive"]:
                merged.workers += 1
                merged.pending += other["pending"]
            for name, stats in other["memory"].items():
                # The entries of a process that has ended are gone, but its hits and misses happened.
                kept = stats if other["alive"] else {key: value for key, value in stats.items() if key not in _GAUGES}
                merged.memory[name] = _sum(merged.memory.get(name, {}), kept)
        return merged


class MemoryStats:
    """The statistics of every memory artifact that has some.

    A quick one answers at once. Another, as on Redis, may have to look at every key, or be out of reach: it is asked
    every 15 seconds at most, and :meth:`cached` never waits for it.
    """

    _MAX_AGE = 15.0

    def __init__(self, registry: ArtifactRegistry) -> None:
        self._registry = registry
        self._cache: dict[str, tuple[Artifact, float, dict[str, Any] | None]] = {}

    def __call__(self) -> dict[str, dict[str, Any]]:
        """The statistics by name, after a refresh of those that are too old."""
        for name, artifact in self.stale():
            self.refresh(name, artifact)
        return self.cached()

    def cached(self, *, of_this_process: bool = False) -> dict[str, dict[str, Any]]:
        """The statistics by name, as far as they are known.

        Args:
            of_this_process: only those whose entries are in this process, which may be added up over all workers.
        """
        found = {}
        for name, artifact in self._artifacts():
            if artifact.is_quick:
                stats = _stats_of(name, artifact)
            elif of_this_process:
                continue
            else:
                cached, _, stats = self._cache.get(name, (None, 0.0, None))
                stats = stats if cached is artifact else None
            if stats is not None:
                found[name] = stats
        return found

    def stale(self) -> list[tuple[str, Artifact]]:
        """The artifacts that should be asked again."""
        now = time.monotonic()
        return [
            (name, artifact)
            for name, artifact in self._artifacts()
            if not artifact.is_quick
            and not ((cached := self._cache.get(name)) and cached[0] is artifact and now < cached[1])
        ]

    def refresh(self, name: str, artifact: Artifact) -> None:
        """Asks one of them, which may take a moment."""
        stats = _stats_of(name, artifact)
        # None is cached as well: a server that does not answer costs its time-out.
        self._cache[name] = artifact, time.monotonic() + self._MAX_AGE, stats

    def _artifacts(self) -> list[tuple[str, Artifact]]:
        specs = self._registry.list_artifacts()
        return [(spec.name, spec.implementation) for spec in specs if spec.interface == "memory"]


def _stats_of(name: str, artifact: Artifact) -> dict[str, Any] | None:
    try:
        stats = artifact.execute({"operation": "stats"}, ExecutionContext(name, "memory", "zero_cost"))
    except Exception:  # a third-party one, without statistics or out of reach; the others are shown
        return None
    result = stats.get("result") if isinstance(stats, dict) else None
    return result if isinstance(result, dict) else None


def render_metrics(snapshot: MetricsSnapshot) -> bytes:
    """The page ``/metrics``."""
    registry = CollectorRegistry()
    registry.register(_SnapshotCollector(snapshot))
    if snapshot.workers == 1:
        ProcessCollector(registry=registry)
    return generate_latest(registry)


class _SnapshotCollector(Collector):
    """Reads the server's own counters on demand; counting costs a request next to nothing."""

    def __init__(self, snapshot: MetricsSnapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        """Every metric."""
        snapshot = self._snapshot
        info = GaugeMetricFamily("zerocost_info", "The server.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield GaugeMetricFamily("zerocost_ready", "Whether new requests are accepted.", value=snapshot.ready)
        yield GaugeMetricFamily(
            "zerocost_workers", "Processes that serve; every metric is of all of them.", value=snapshot.workers
        )
        yield GaugeMetricFamily("zerocost_pending_requests", "Requests that compute or wait.", value=snapshot.pending)
        yield from _request_metrics(snapshot.observations)
        yield from _memory_metrics(snapshot.memory)


def _request_metrics(observations: Observations) -> Iterable[Metric]:
    responses = CounterMetricFamily("zerocost_answers", "Responses by status.", labels=["status"])
    for status, count in sorted(observations.responses().items()):
        responses.add_metric([str(status)], count)
    yield responses
    failures = CounterMetricFamily(
        "zerocost_failures", "Requests to an artifact that did not succeed.", labels=["artifact"]
    )
    for artifact, count in observations.failures().items():
        failures.add_metric([artifact], count)
    yield failures
    stages = HistogramMetricFamily(
        "zerocost_stage_seconds",
        "Seconds of each stage of the successful requests to an artifact, a service or a chain.",
        labels=["artifact", "stage"],
    )
    for artifact, stage, counts, seconds in observations.histograms():
        total = 0
        buckets = []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
            total += count
            buckets.append((bound, total))
        stages.add_metric([artifact, stage], buckets, seconds)
    yield stages


def _memory_metrics(memory: dict[str, dict[str, Any]]) -> Iterable[Metric]:
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
        name: kind(f"zerocost_memory_{name}", text, labels=["artifact"])
        for kind, texts in ((CounterMetricFamily, _COUNTERS), (GaugeMetricFamily, _GAUGES))
        for name, text in texts.items()
    }
    evictions = CounterMetricFamily(
        "zerocost_memory_evictions", "Entries that were removed, by cause.", labels=["artifact", "cause"]
    )
    for artifact, stats in memory.items():
        for name, family in families.items():
            if _is_number(stats.get(name)):
                family.add_metric([artifact], stats[name])
        causes = stats.get("evictions")
        for cause, count in causes.items() if isinstance(causes, dict) else ():
            if _is_number(count):
                evictions.add_metric([artifact, str(cause)], count)
    yield from families.values()
    yield evictions


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    result = dict(one)
    for name, value in other.items():
        if isinstance(value, dict):
            result[name] = _sum(result.get(name, {}), value)
        elif _is_number(value):
            result[name] = result.get(name, 0) + value
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
