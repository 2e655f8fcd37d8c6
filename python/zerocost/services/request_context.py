"""The context of a request: its deadline, and the threads that do its work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

__all__ = ["RunJob", "current_deadline", "request_context", "to_thread"]

RunJob = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a function in another thread; the result of the function."""


class _Context(NamedTuple):
    deadline: float | None = None
    run_job: RunJob = asyncio.to_thread


_DEFAULT = _Context()
_context: ContextVar[_Context] = ContextVar("zerocost_request", default=_DEFAULT)


@contextmanager
def request_context(deadline: float | None, run_job: RunJob | None = None) -> Iterator[None]:
    """Sets the context for the block.

    Args:
        deadline: in seconds of ``time.monotonic()``, for all artifacts that a service executes; None: no deadline.
        run_job: used by :func:`to_thread`; None: as before, which is ``asyncio.to_thread`` by default.
    """
    token = _context.set(_Context(deadline, _context.get().run_job if run_job is None else run_job))
    try:
        yield
    finally:
        _context.reset(token)


def current_deadline() -> float | None:
    """The deadline in seconds of ``time.monotonic()``, or None."""
    return _context.get().deadline


async def to_thread(job: Callable[[], Any]) -> Any:
    """The result of ``job``, which runs in a thread that the server chooses."""
    return await _context.get().run_job(job)
