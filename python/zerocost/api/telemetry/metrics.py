"""``/metrics``: what the server saw, in Prometheus' text format."""

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
from zerocost.artifacts.memory.lru_cache import LRUCacheArtifact
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
    """What one process, or all of them together, have to say.

    Attributes:
        observations: requests and answers.
        pending: requests that compute or wait for a slot.
        ready: whether new requests are taken.
        memory: the statistics of each memory artifact, by its name.
        workers: how many processes answer.
    """

    observations: Observations
    pending: int
    ready: bool
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)
    workers: int = 1

    def snapshot(self) -> dict[str, Any]:
        """The figures for other processes."""
        return {**self.observations.snapshot(), "pending": self.pending, "memory": self.memory}

    def absorb(self, others: Iterable[dict[str, Any]]) -> MetricsSnapshot:
        """These figures and those of other processes (:meth:`WorkerFolder.others`) together."""
        together = MetricsSnapshot(Observations(), self.pending, self.ready, dict(self.memory), self.workers)
        together.observations.absorb(self.observations.snapshot())
        for other in others:
            together.observations.absorb(other)
            if other["alive"]:
                together.workers += 1
                together.pending += other["pending"]
            for name, stats in other["memory"].items():
                # What is gone with its process is stored no more, but its hits and misses happened.
                kept = stats if other["alive"] else {key: value for key, value in stats.items() if key not in _GAUGES}
                together.memory[name] = _sum(together.memory.get(name, {}), kept)
        return together


class MemoryStats:
    """The statistics of every memory artifact that has some.

    One that is not in this process, as on Redis, may look at every key to answer, or not answer at all: it is asked
    every 15 seconds at most, and :meth:`known` never waits for it.
    """

    _EVERY = 15.0

    def __init__(self, registry: ArtifactRegistry) -> None:
        self._registry = registry
        self._remembered: dict[str, tuple[Artifact, float, dict[str, Any] | None]] = {}

    def __call__(self) -> dict[str, dict[str, Any]]:
        """The statistics by name, after asking for what is too old."""
        for name, artifact in self.stale():
            self.ask(name, artifact)
        return self.known()

    def known(self, *, of_this_process: bool = False) -> dict[str, dict[str, Any]]:
        """The statistics by name, as far as they are known.

        Args:
            of_this_process: only those whose contents live in this process, which can be added up over processes.
        """
        found = {}
        for name, artifact in self._artifacts():
            if isinstance(artifact, LRUCacheArtifact):
                stats = _stats_of(name, artifact)
            elif of_this_process:
                continue
            else:
                of, _, stats = self._remembered.get(name, (None, 0.0, None))
                stats = stats if of is artifact else None
            if stats is not None:
                found[name] = stats
        return found

    def stale(self) -> list[tuple[str, Artifact]]:
        """The artifacts outside of this process that should be asked again."""
        now = time.monotonic()
        return [
            (name, artifact)
            for name, artifact in self._artifacts()
            if not isinstance(artifact, LRUCacheArtifact)
            and not ((known := self._remembered.get(name)) and known[0] is artifact and now < known[1])
        ]

    def ask(self, name: str, artifact: Artifact) -> None:
        """Asks one of them, which may take a moment."""
        stats = _stats_of(name, artifact)
        # Also that there are none: a server that does not answer costs its time-out.
        self._remembered[name] = artifact, time.monotonic() + self._EVERY, stats

    def _artifacts(self) -> list[tuple[str, Artifact]]:
        specs = self._registry.list_artifacts()
        return [(spec.name, spec.implementation) for spec in specs if spec.interface == "memory"]


def _stats_of(name: str, artifact: Artifact) -> dict[str, Any] | None:
    try:
        stats = artifact.execute({"operation": "stats"}, ExecutionContext(name, "memory", "zero_cost"))
    except Exception:  # a stranger's, without statistics or out of reach; the others are shown
        return None
    result = stats.get("result") if isinstance(stats, dict) else None
    return result if isinstance(result, dict) else None


def render_metrics(figures: MetricsSnapshot) -> bytes:
    """The page."""
    registry = CollectorRegistry()
    registry.register(_Collected(figures))
    if figures.workers == 1:
        ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Collected(Collector):
    """Reads the server's own counters when they are asked for; counting costs a request next to nothing."""

    def __init__(self, figures: MetricsSnapshot) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """Every metric."""
        figures = self._figures
        info = GaugeMetricFamily("zerocost_info", "The server.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield GaugeMetricFamily("zerocost_ready", "Whether new requests are taken.", value=figures.ready)
        yield GaugeMetricFamily(
            "zerocost_workers", "Processes that answer; every figure is of all of them.", value=figures.workers
        )
        yield GaugeMetricFamily(
            "zerocost_pending_requests", "Requests that compute or wait for a slot.", value=figures.pending
        )
        yield from _of_requests(figures.observations)
        yield from _of_memory(figures.memory)


def _of_requests(observations: Observations) -> Iterable[Metric]:
    answers = CounterMetricFamily("zerocost_answers", "Answers by status.", labels=["status"])
    for status, count in sorted(observations.answers().items()):
        answers.add_metric([str(status)], count)
    yield answers
    failures = CounterMetricFamily(
        "zerocost_failures", "Requests to an artifact that were not answered with success.", labels=["artifact"]
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


def _of_memory(memory: dict[str, dict[str, Any]]) -> Iterable[Metric]:
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
        **{
            name: CounterMetricFamily(f"zerocost_memory_{name}", text, labels=["artifact"])
            for name, text in _COUNTERS.items()
        },
        **{
            name: GaugeMetricFamily(f"zerocost_memory_{name}", text, labels=["artifact"])
            for name, text in _GAUGES.items()
        },
    }
    evictions = CounterMetricFamily(
        "zerocost_memory_evictions", "Entries that went, by cause.", labels=["artifact", "cause"]
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
