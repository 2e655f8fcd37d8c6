"""What the server saw: durations of every stage, per artifact, for Server-Timing, Prometheus and Triton's statistics.

The stages of a request: ``queue`` (waiting for a slot), ``read`` (body to arrays), ``compute`` (the artifact) and
``write`` (arrays to the answer).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

__all__ = ["Observations", "Stages"]

BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""The upper bounds of the histograms' buckets, in seconds."""

STAGES = ("queue", "read", "compute", "write")


@dataclass(slots=True)
class Stages:
    """The stages of one request: seconds by name."""

    artifact: str
    seconds: dict[str, float] = field(default_factory=dict)
    copied: int = 0
    """Bytes that were copied on the way into the kernel."""

    def add(self, name: str, start: float) -> float:
        """Adds the time since ``start`` (of :func:`time.perf_counter`) and returns the time that it is now."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - start
        return now

    def header(self) -> str:
        """The value of ``Server-Timing``: milliseconds."""
        timings = "".join([f"{name};dur={seconds * 1000:.3f}, " for name, seconds in self.seconds.items()])
        return f'{timings}copied;desc="{self.copied} bytes"'


class _Histogram:
    """Counts of durations by bucket, and their sum."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def absorb(self, counts: list[int], seconds: float) -> None:
        """Adds another histogram."""
        self.counts = [one + other for one, other in zip(self.counts, counts, strict=True)]
        self.seconds += seconds

    def described(self) -> dict[str, int]:
        """As Triton shows a duration."""
        return {"count": sum(self.counts), "ns": int(self.seconds * 1e9)}


class _Model:
    """What is known about one artifact."""

    __slots__ = ("fail", "last", "stages", "success")

    def __init__(self) -> None:
        self.success = _Histogram()
        self.fail = _Histogram()
        self.stages = {name: _Histogram() for name in STAGES}
        self.last = 0.0


class Observations:
    """The counters of one server. Only its event loop counts; anyone may read."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}
        self._answers: dict[int, int] = {}

    def begin(self, artifact: str, scope: Scope) -> Stages:
        """The stages of a request for an artifact; they are counted when its answer goes out."""
        stages = scope["zerocost.stages"] = Stages(artifact)
        return stages

    def answered(self, status: int) -> None:
        """Counts an answer."""
        self._answers[status] = self._answers.get(status, 0) + 1

    def finish(self, stages: Stages, duration: float, *, succeeded: bool) -> None:
        """Counts a request for an artifact."""
        model = self._models.get(stages.artifact)
        if model is None:
            model = self._models[stages.artifact] = _Model()
        model.last = time.time()
        if not succeeded:
            model.fail.add(duration)
            return
        model.success.add(duration)
        seconds = stages.seconds
        for name, histogram in model.stages.items():
            if name in seconds:
                histogram.add(seconds[name])
            else:
                histogram.counts[0] += 1

    def answers(self) -> dict[int, int]:
        """Answers by status."""
        return dict(self._answers)

    def failures(self) -> dict[str, int]:
        """Requests that were not answered with success, by artifact."""
        return {name: sum(model.fail.counts) for name, model in list(self._models.items())}

    def snapshot(self) -> dict[str, Any]:
        """Everything that was counted, for :meth:`absorb` in another process."""
        models = {}
        for name, model in list(self._models.items()):
            histograms = {"success": model.success, "fail": model.fail, **model.stages}
            models[name] = {
                "last": model.last,
                "histograms": {key: (one.counts, one.seconds) for key, one in histograms.items()},
            }
        return {"answers": {str(status): count for status, count in self._answers.items()}, "models": models}

    def absorb(self, snapshot: dict[str, Any]) -> None:
        """Adds what another process counted."""
        for status, count in snapshot["answers"].items():
            self._answers[int(status)] = self._answers.get(int(status), 0) + count
        for name, seen in snapshot["models"].items():
            model = self._models.setdefault(name, _Model())
            model.last = max(model.last, seen["last"])
            for key, (counts, seconds) in seen["histograms"].items():
                own = {"success": model.success, "fail": model.fail}.get(key) or model.stages[key]
                own.absorb(counts, seconds)

    def histograms(self) -> Iterator[tuple[str, str, list[int], float]]:
        """(artifact, stage, counts by bucket, sum of seconds) for everything seen so far."""
        for name, model in list(self._models.items()):
            for stage, histogram in (*model.stages.items(), ("total", model.success)):
                yield name, stage, list(histogram.counts), histogram.seconds

    def of_model(self, name: str, version: str) -> dict[str, Any]:
        """A model's statistics, as Triton shows them."""
        model = self._models.get(name) or _Model()
        stages = {stage: histogram.described() for stage, histogram in model.stages.items()}
        none = _Histogram().described()
        count = sum(model.success.counts)
        return {
            "name": name,
            "version": version,
            "last_inference": int(model.last * 1000),
            "inference_count": count,
            "execution_count": count,
            "inference_stats": {
                "success": model.success.described(),
                "fail": model.fail.described(),
                "queue": stages["queue"],
                "compute_input": stages["read"],
                "compute_infer": stages["compute"],
                "compute_output": stages["write"],
                "cache_hit": none,
                "cache_miss": none,
            },
            "response_stats": {},
            "batch_stats": [],
            "memory_usage": [],
        }
