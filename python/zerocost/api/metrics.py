"""``/metrics``: what the server saw, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from zerocost.api.limiter import Limiter
from zerocost.api.observations import BUCKETS, Observations

__all__ = ["CONTENT_TYPE", "render_metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Collected(Collector):
    """Reads the server's own counters when they are asked for; counting costs a request next to nothing."""

    def __init__(self, observations: Observations, limiter: Limiter) -> None:
        self._observations = observations
        self._limiter = limiter

    def collect(self) -> Iterable[Metric]:
        """Every metric."""
        answers = CounterMetricFamily("zerocost_answers", "Answers by status.", labels=["status"])
        for status, count in sorted(self._observations.answers().items()):
            answers.add_metric([str(status)], count)
        yield answers
        stages = HistogramMetricFamily(
            "zerocost_stage_seconds",
            "Seconds of each stage of the requests to an artifact.",
            labels=["artifact", "stage"],
        )
        for artifact, stage, counts, seconds in self._observations.histograms():
            total = 0
            buckets = []
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                total += count
                buckets.append((bound, total))
            stages.add_metric([artifact, stage], buckets, seconds)
        yield stages
        pending = GaugeMetricFamily("zerocost_pending_requests", "Requests that compute or wait for a slot.")
        pending.add_metric([], self._limiter.pending)
        yield pending


def render_metrics(observations: Observations, limiter: Limiter) -> bytes:
    """The page."""
    registry = CollectorRegistry()
    registry.register(_Collected(observations, limiter))
    return generate_latest(registry)
