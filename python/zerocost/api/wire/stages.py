"""The stages of a call, and how long each takes: the queue, reading the body, computing, writing the response."""

from __future__ import annotations

from time import perf_counter

__all__ = ["COMPUTE", "QUEUE", "READ", "STAGES", "WRITE", "Stages"]

STAGES = ("queue", "read", "compute", "write")
QUEUE, READ, COMPUTE, WRITE = range(len(STAGES))


class Stages:
    """The durations of one call. Only one stage runs at a time, on whatever thread.

    Attributes:
        artifact: what is called.
        seconds: of each stage.
        copied: bytes that were copied on the way into the kernel.
    """

    __slots__ = ("_last", "artifact", "copied", "seconds")

    def __init__(self, artifact: str) -> None:
        self.artifact = artifact
        self.seconds = [0.0] * len(STAGES)
        self.copied = 0
        self._last = perf_counter()

    def end(self, stage: int) -> None:
        """Ends a stage, or a part of it; it took the time since the previous end."""
        now = perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def header(self) -> bytes:
        """The value of ``Server-Timing``, in milliseconds."""
        queue, read, compute, write = self.seconds
        waited = b"queue;dur=%.3f, " % (queue * 1e3) if queue else b""
        timing = b'read;dur=%.3f, %bcompute;dur=%.3f, write;dur=%.3f, copied;desc="%d bytes"'
        return timing % (read * 1e3, waited, compute * 1e3, write * 1e3, self.copied)
