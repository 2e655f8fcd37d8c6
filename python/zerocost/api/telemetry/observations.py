"""Counts of responses, and the durations of every stage of every artifact, for Prometheus and Triton's statistics."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.api.wire.stages import STAGES, Stages

__all__ = ["BUCKETS", "CLIENT_GONE", "Observations"]

CLIENT_GONE = 499
"""The status, in log and metrics, of a request whose client disconnected before its response; nginx has the same."""

BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""The upper bounds of the histograms' buckets, in seconds."""

_MOST_RECENT = 512
"""Requests of one artifact that are kept before they are sorted into histograms."""


class _Histogram:
    """Counts of durations by bucket, and their sum."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def merge(self, counts: list[int], seconds: float) -> None:
        """Adds another histogram."""
        self.counts = [one + other for one, other in zip(self.counts, counts, strict=True)]
        self.seconds += seconds

    def to_triton(self) -> dict[str, int]:
        """As Triton shows a duration."""
        return {"count": sum(self.counts), "ns": int(self.seconds * 1e9)}


_KINDS = ("success", "fail", *STAGES)


class _Model:
    """The durations of one artifact. The event loop adds them; whatever thread reads them sorts them."""

    __slots__ = ("_histograms", "_lock", "_recent", "last")

    def __init__(self) -> None:
        self.last = 0.0
        self._histograms = {kind: _Histogram() for kind in _KINDS}
        self._recent: deque[tuple[float, ...]] = deque()
        self._lock = threading.Lock()

    def add(self, *seconds: float) -> None:
        """Adds a request that succeeded: how long it took, and each of its stages."""
        self._recent.append(seconds)
        if len(self._recent) >= _MOST_RECENT:
            self.histograms()

    def add_failure(self, seconds: float) -> None:
        """Adds a request that failed."""
        with self._lock:
            self._histograms["fail"].merge(*_sorted(np.array([seconds])))

    def histograms(self) -> dict[str, _Histogram]:
        """The histograms of everything that was added."""
        # Many at once: sorting each by itself into all its histograms takes longer than a small kernel.
        with self._lock:
            recent = [self._recent.popleft() for _ in range(len(self._recent))]
            if recent:
                for kind, column in zip(("success", *STAGES), np.array(recent).T, strict=True):
                    self._histograms[kind].merge(*_sorted(column))
            return self._histograms


def _sorted(seconds: npt.NDArray[np.float64]) -> tuple[list[int], float]:
    """How many of these durations fall into each bucket, and their sum."""
    places = np.searchsorted(BUCKETS, seconds)
    return np.bincount(places, minlength=len(BUCKETS) + 1).tolist(), float(seconds.sum())


class Observations:
    """The counters of one server. Only its event loop counts; anyone may read."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}
        self._responses: dict[int, int] = {}

    def count_response(self, status: int) -> None:
        """Counts a response."""
        self._responses[status] = self._responses.get(status, 0) + 1

    def count_call(self, stages: Stages, duration: float, *, succeeded: bool) -> None:
        """Counts a request to an artifact."""
        model = self._models.get(stages.artifact)
        if model is None:
            model = self._models[stages.artifact] = _Model()
        model.last = time.time()
        if succeeded:
            model.add(duration, *stages.seconds)
        else:
            model.add_failure(duration)

    def responses(self) -> dict[int, int]:
        """Responses by status."""
        return dict(self._responses)

    def failures(self) -> dict[str, int]:
        """Requests that did not succeed, by artifact."""
        return {name: sum(model.histograms()["fail"].counts) for name, model in list(self._models.items())}

    def to_dict(self) -> dict[str, Any]:
        """Everything that was counted, for :meth:`merge` in another process."""
        models = {
            name: {
                "last": model.last,
                "histograms": {key: (one.counts, one.seconds) for key, one in model.histograms().items()},
            }
            for name, model in list(self._models.items())
        }
        return {"answers": {str(status): count for status, count in self._responses.items()}, "models": models}

    def merge(self, snapshot: dict[str, Any]) -> None:
        """Adds what another process counted."""
        for status, count in snapshot["answers"].items():
            self._responses[int(status)] = self._responses.get(int(status), 0) + count
        for name, seen in snapshot["models"].items():
            model = self._models.setdefault(name, _Model())
            model.last = max(model.last, seen["last"])
            for key, (counts, seconds) in seen["histograms"].items():
                model.histograms()[key].merge(counts, seconds)

    def histograms(self) -> Iterator[tuple[str, str, list[int], float]]:
        """(artifact, stage, counts by bucket, sum of seconds) of everything that was counted."""
        for name, model in list(self._models.items()):
            histograms = model.histograms()
            for stage in (*STAGES, "success"):
                histogram = histograms[stage]
                yield name, "total" if stage == "success" else stage, list(histogram.counts), histogram.seconds

    def model_statistics(self, name: str, version: str) -> dict[str, Any]:
        """A model's statistics, as Triton shows them."""
        model = self._models.get(name) or _Model()
        shown = {kind: histogram.to_triton() for kind, histogram in model.histograms().items()}
        none = _Histogram().to_triton()
        count = shown["success"]["count"]
        return {
            "name": name,
            "version": version,
            "last_inference": int(model.last * 1000),
            "inference_count": count,
            "execution_count": count,
            "inference_stats": {
                "success": shown["success"],
                "fail": shown["fail"],
                "queue": shown["queue"],
                "compute_input": shown["read"],
                "compute_infer": shown["compute"],
                "compute_output": shown["write"],
                "cache_hit": none,
                "cache_miss": none,
            },
            "response_stats": {},
            "batch_stats": [],
            "memory_usage": [],
        }
