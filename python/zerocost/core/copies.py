"""Counting the bytes that had to be copied on the way into kernels; a chain's trace shows them."""

from __future__ import annotations

import threading
from contextvars import ContextVar

__all__ = ["CopyCount", "count_copy", "counting_copies"]


class CopyCount:
    """Bytes copied on the way into kernels since :func:`counting_copies` began."""

    __slots__ = ("_lock", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.Lock()

    def add(self, nbytes: int) -> None:
        """Counts ``nbytes`` more. Thread-safe."""
        with self._lock:
            self.bytes += nbytes


_counter: ContextVar[CopyCount | None] = ContextVar("zerocost_copies", default=None)


def count_copy(nbytes: int) -> None:
    """Records that ``nbytes`` had to be copied."""
    counter = _counter.get()
    if counter is not None:
        counter.add(nbytes)


class counting_copies:  # noqa: N801 - used as a function; a generator takes a microsecond longer in every request
    """Counts the copies made in this context. They also count for an enclosing counter."""

    __slots__ = ("_copies", "_token")

    def __enter__(self) -> CopyCount:
        """Begins to count."""
        self._copies = CopyCount()
        self._token = _counter.set(self._copies)
        return self._copies

    def __exit__(self, *_: object) -> None:
        """Ends, and tells the enclosing counter."""
        _counter.reset(self._token)
        count_copy(self._copies.bytes)
