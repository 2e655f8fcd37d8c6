"""The deadline of the current request, for all artifacts that a service executes on its behalf."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["current_deadline", "deadline_at"]

_deadline: ContextVar[float | None] = ContextVar("zerocost_deadline", default=None)


@contextmanager
def deadline_at(deadline: float | None) -> Iterator[None]:
    """Sets the deadline for the block, in seconds of ``time.monotonic()``; None means no deadline."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


def current_deadline() -> float | None:
    """The deadline in seconds of ``time.monotonic()``, or None."""
    return _deadline.get()
