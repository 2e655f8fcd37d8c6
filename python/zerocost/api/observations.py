"""What the server saw: durations of every stage, per artifact, for Server-Timing, Prometheus and Triton's statistics.

The stages of a request: ``queue`` (waiting for a slot), ``read`` (body to arrays), ``compute`` (the artifact) and
``write`` (arrays to the answer).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

__all__ = ["Observations", "Stages"]

STAGES = ("queue", "read", "compute", "write")


@dataclass(slots=True)
class Stages:
    """The stages of one request: seconds by name."""

    artifact: str
    observations: Observations
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


@dataclass
class _Count:
    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def described(self) -> dict[str, int]:
        return {"count": self.count, "ns": int(self.seconds * 1e9)}


@dataclass
class _Model:
    success: _Count = field(default_factory=_Count)
    fail: _Count = field(default_factory=_Count)
    stages: dict[str, _Count] = field(default_factory=lambda: {name: _Count() for name in STAGES})
    last: int = 0


class Observations:
    """The counters of one server."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}
        self._lock = threading.Lock()

    def begin(self, artifact: str, scope: Scope) -> Stages:
        """The stages of a request for an artifact; they are counted when its answer goes out."""
        stages = scope["zerocost.stages"] = Stages(artifact, self)
        return stages

    def finish(self, stages: Stages, duration: float, *, succeeded: bool) -> None:
        """Counts a request."""
        with self._lock:
            model = self._models.setdefault(stages.artifact, _Model())
            (model.success if succeeded else model.fail).add(duration)
            model.last = int(time.time() * 1000)
            if succeeded:
                for name in STAGES:
                    model.stages[name].add(stages.seconds.get(name, 0.0))

    def of_model(self, name: str, version: str) -> dict[str, Any]:
        """A model's statistics, as Triton shows them."""
        with self._lock:
            model = self._models.get(name, _Model())
            stages = {stage: count.described() for stage, count in model.stages.items()}
            none = _Count().described()
            return {
                "name": name,
                "version": version,
                "last_inference": model.last,
                "inference_count": model.success.count,
                "execution_count": model.success.count,
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
