"""One computation per key: who computes, who waits, and who must not wait.

A flight is the computation of one key's value. The first caller leads it; threads and tasks that come meanwhile wait.
Before a caller waits, it follows who waits for whom: if that leads back to itself, it would wait forever, and raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from zerocost import _kernels

if TYPE_CHECKING:
    from zerocost._kernels import LRUCache

__all__ = ["acompute", "compute"]

_ABSENT = object()


class Owner:
    """Who leads a flight or waits for one: a thread, or a task on the thread of its loop."""

    __slots__ = ("task", "thread")

    def __init__(self, task: asyncio.Task[Any] | None = None) -> None:
        self.thread = threading.get_ident()
        self.task = task


class Flight(_kernels.Flight):
    """A computation in progress; ``result`` and ``error`` once it is done, neither if its leader gave up."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.done = False
        self.result: Any = _ABSENT
        self.error: BaseException | None = None
        self._landed = threading.Lock()
        self._landed.acquire()
        self._wake: list[Callable[[], None]] = []

    def finish(self, result: Any = _ABSENT, error: BaseException | None = None) -> None:
        """Wakes everyone who waits."""
        self.result, self.error = result, error
        with _graph.lock:
            self.done = True
            waiting, self._wake = self._wake, []
        self._landed.release()
        for wake in waiting:
            wake()

    def wait(self) -> None:
        """Blocks this thread until the flight is done."""
        with _graph.waiting(Owner(), self), self._landed:
            pass

    async def await_(self) -> None:
        """Suspends this task until the flight is done."""
        loop = asyncio.get_running_loop()
        woken = loop.create_future()

        def landed() -> None:
            if not woken.done():
                woken.set_result(None)

        def wake() -> None:
            # A closed loop: nobody waits there any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(landed)

        with _graph.waiting(Owner(asyncio.current_task()), self):
            with _graph.lock:
                if self.done:
                    return
                self._wake.append(wake)
            await woken


class _Waiting:
    """While it is entered, the graph knows that ``who`` waits for ``flight``."""

    def __init__(self, graph: _Graph, who: Owner, flight: Flight) -> None:
        self.graph, self.flight = graph, flight
        self.who = who
        self.node = who.thread if who.task is None else who.task

    def __enter__(self) -> None:
        with self.graph.lock:
            if self.graph.leads_to(self.flight, self.who):
                raise RuntimeError("this computation would wait for itself, directly or through others")
            self.graph.waits.setdefault(self.node, []).append(self.flight)

    def __exit__(self, *_: object) -> None:
        with self.graph.lock:
            flights = self.graph.waits[self.node]
            flights.remove(self.flight)
            if not flights:
                del self.graph.waits[self.node]


class _Graph:
    """Who waits for which flights: threads by their number, tasks by themselves."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.lock = threading.Lock()
        self.waits: dict[int | asyncio.Task[Any], list[Flight]] = {}

    def waiting(self, who: Owner, flight: Flight) -> _Waiting:
        return _Waiting(self, who, flight)

    def leads_to(self, flight: Flight, who: Owner) -> bool:
        """Whether ``flight`` can only end after ``who``, which is about to wait for it, has gone on."""
        open_, seen = [flight], set()
        while open_:
            here = open_.pop()
            if here.done or id(here) in seen:
                continue
            seen.add(id(here))
            leader = here.owner
            if leader.task is None:
                # A thread's own computation, below on its stack.
                if leader.thread == who.thread:
                    return True
            else:
                # A blocked thread runs none of its tasks; a task that awaits lets the others run.
                if leader.task is who.task or (who.task is None and leader.thread == who.thread):
                    return True
                open_ += self.waits.get(leader.task, [])
            open_ += self.waits.get(leader.thread, [])
        return False


_graph = _Graph()
# The threads that waited are not in the child.
os.register_at_fork(after_in_child=_graph.reset)


def _join(cache: LRUCache[Any, Any], key: Any, owner: Owner) -> tuple[Flight, bool]:
    """The flight for ``key``, and whether this caller leads it."""
    own = Flight(owner)
    flights: LRUCache[Any, Any] = cache._flights()
    flight: Flight = flights.setdefault(key, own)
    return flight, flight is own


def _outcome(flight: Flight) -> Any:
    """What a waiter gets; ``_ABSENT`` if the leader gave up."""
    if flight.error is not None:
        raise flight.error
    return flight.result


def _leave(cache: LRUCache[Any, Any], key: Any, flight: Flight, result: Any, error: BaseException | None) -> None:
    # Out of the table first: who comes now finds the value, or starts anew.
    try:
        cache._flights()._discard(key, flight)
    finally:
        # An interrupt or a cancellation is the leader's own; somebody who waits takes over.
        flight.finish(result, error if isinstance(error, Exception) else None)


def compute(cache: LRUCache[Any, Any], key: Any, fn: Callable[[], Any], ttl: float | None) -> Any:
    """The value of ``key``, from the cache, from a flight in progress, or from ``fn``."""
    while True:
        flight, leads = _join(cache, key, Owner())
        if not leads:
            flight.wait()
            result = _outcome(flight)
            if result is not _ABSENT:
                return result
            continue
        try:
            # Another flight may have landed since the miss.
            result = cache.peek(key, _ABSENT)
            if result is _ABSENT:
                started = time.perf_counter()
                try:
                    value = fn()
                except BaseException:
                    cache._loaded(time.perf_counter() - started)
                    raise
                result = cache._land(key, value, ttl, flight, time.perf_counter() - started)
        except BaseException as error:
            _leave(cache, key, flight, _ABSENT, error)
            raise
        _leave(cache, key, flight, result, None)
        return result


async def acompute(
    cache: LRUCache[Any, Any], key: Any, fn: Callable[[], Awaitable[Any] | Any], ttl: float | None
) -> Any:
    """As :func:`compute`, in a task; what ``fn`` returns is awaited if it can be."""
    result = cache.get(key, _ABSENT)
    if result is not _ABSENT:
        return result
    while True:
        flight, leads = _join(cache, key, Owner(asyncio.current_task()))
        if not leads:
            await flight.await_()
            result = _outcome(flight)
            if result is not _ABSENT:
                return result
            continue
        try:
            result = cache.peek(key, _ABSENT)
            if result is _ABSENT:
                started = time.perf_counter()
                try:
                    value = fn()
                    if inspect.isawaitable(value):
                        value = await value
                except BaseException:
                    cache._loaded(time.perf_counter() - started)
                    raise
                result = cache._land(key, value, ttl, flight, time.perf_counter() - started)
        except BaseException as error:
            _leave(cache, key, flight, _ABSENT, error)
            raise
        _leave(cache, key, flight, result, None)
        return result
