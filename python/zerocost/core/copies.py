"""Counting the bytes that had to be copied on the way into kernels; a chain's trace shows them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def counting_copies() -> Iterator[CopyCount]:
    """Counts the copies made in this context. They also count for an enclosing counter."""
    counter = CopyCount()
    token = _counter.set(counter)
    try:
        yield counter
    finally:
        _counter.reset(token)
        count_copy(counter.bytes)
