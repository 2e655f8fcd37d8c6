"""Single flight for asyncio tasks: one computes, the others wait without blocking the event loop.

The part for threads, the table of flights and the graph of waiting tasks are in Rust (``_kernels.Seat``).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from zerocost._kernels import Seat

if TYPE_CHECKING:
    from zerocost._kernels import LRUCache

__all__ = ["acompute"]

_ABSENT = object()


async def acompute(
    cache: LRUCache[Any, Any], key: Any, fn: Callable[[], Awaitable[Any] | Any], ttl: float | None
) -> Any:
    """The value of ``key``: from the cache, from a flight in progress, or from ``fn``, awaited if awaitable."""
    # Not at the top: `import zerocost` loads this module, and a running task has loaded asyncio anyway.
    import asyncio

    result = cache.get(key, _ABSENT)
    while result is _ABSENT:
        with Seat(cache, key, asyncio.current_task()) as seat:
            if not seat.leads:
                await _landing(seat, asyncio.get_running_loop())
                result = seat.outcome(_ABSENT)
                continue
            # Another flight may have landed since the miss.
            result = cache.peek(key, _ABSENT)
            if result is not _ABSENT:
                return result
            started = time.perf_counter()
            try:
                value = fn()
                if inspect.isawaitable(value):
                    value = await value
            finally:
                seat.loaded(time.perf_counter() - started)
            return seat.land(value, ttl)
    return result


async def _landing(seat: Seat, loop: Any) -> None:
    """Suspends this task until the flight is over."""
    landed = loop.create_future()

    def land() -> None:
        if not landed.done():
            landed.set_result(None)

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(land)
        except RuntimeError:
            # A closed loop has no waiting tasks. Any other error (RecursionError, for one) is raised, and retried.
            if not loop.is_closed():
                raise

    if seat.wait(wake):
        await landed
