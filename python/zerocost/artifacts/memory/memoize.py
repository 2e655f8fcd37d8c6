"""``@zerocost.memoize``: ``functools.lru_cache`` with the bounds, times to live and single flight of LRUCache."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from types import MethodType
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, Self, TypeVar, cast, overload

from zerocost._kernels import LRUCache
from zerocost.errors import RangeError

__all__ = ["CacheInfo", "Memoized", "memoize"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")

_KEYWORDS = object()


class CacheInfo(NamedTuple):
    """The result of ``cache_info()``, named as in ``functools``; with ``maxbytes`` and ``currbytes``."""

    hits: int
    misses: int
    maxsize: int | None
    currsize: int
    maxbytes: int | None
    currbytes: int


class Memoized(Generic[P, R]):
    """A function with a cache of its results; ``cache`` is the :class:`~zerocost.LRUCache`."""

    __name__: str
    __wrapped__: Callable[P, R]

    def __init__(
        self, function: Callable[P, R], make: Callable[[], LRUCache[Any, Any]], typed: bool, single_flight: bool
    ) -> None:
        functools.update_wrapper(self, function)
        self._async = inspect.iscoroutinefunction(function)
        if self._async:
            if not single_flight:
                raise RangeError("single_flight: False was given, an async function allows True only", "single_flight")
            # Since Python 3.12, so that frameworks await what it returns.
            getattr(inspect, "markcoroutinefunction", lambda _: None)(self)
        self.cache = make()
        self._make = make
        self._function = function
        self._typed = typed
        self._single_flight = single_flight

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result for these arguments, from the cache if it is there."""
        key = self._key(args, kwargs)
        cache = self.cache
        if self._async:
            return cast("R", cache.aget_or_compute(key, lambda: self._function(*args, **kwargs)))
        if self._single_flight:
            return cast("R", cache.get_or_compute(key, lambda: self._function(*args, **kwargs)))
        return cast("R", cache._compute(key, lambda: self._function(*args, **kwargs)))

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self: Memoized[Concatenate[T, Q], R], instance: T, owner: type[T] | None = None) -> Callable[Q, R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Binds to an instance, as functions do."""
        return self if instance is None else MethodType(self, instance)

    def cache_info(self) -> CacheInfo:
        """Hits, misses, bounds and sizes."""
        stats, cache = self.cache.stats(), self.cache
        return CacheInfo(
            stats["hits"], stats["misses"], cache.max_entries, stats["entries"], cache.max_bytes, stats["bytes"]
        )

    def cache_clear(self) -> None:
        """Removes every result and resets the counters."""
        self.cache.clear()
        self.cache = self._make()

    def cache_parameters(self) -> dict[str, Any]:
        """The bounds, and whether types are distinguished."""
        return {"maxsize": self.cache.max_entries, "typed": self._typed, "maxbytes": self.cache.max_bytes}

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        # As in functools: a single int or str is its own key. (No call of a built-in: it may be the memoized function.)
        match args:
            case (only,) if not kwargs and not self._typed and type(only) in (int, str):
                return cast("Hashable", only)
        key = args
        if kwargs:
            key += (_KEYWORDS, *(part for item in kwargs.items() for part in item))
        if self._typed:
            key += (*(type(value) for value in args), *(type(value) for value in kwargs.values()))
        return key


@overload
def memoize(function: Callable[P, R], /, **options: Any) -> Memoized[P, R]: ...
@overload
def memoize(
    *,
    max_entries: int | None = None,
    max_bytes: int | None = None,
    typed: bool = False,
    single_flight: bool = True,
    **options: Any,
) -> Callable[[Callable[P, R]], Memoized[P, R]]: ...
def memoize(
    function: Callable[P, R] | None = None,
    /,
    *,
    max_entries: int | None = None,
    max_bytes: int | None = None,
    typed: bool = False,
    single_flight: bool = True,
    **options: Any,
) -> Any:
    """Caches the results of a function by its arguments.

    For an ``async def`` the awaited result is cached; concurrent tasks with the same arguments wait for one of them.

    Use it as ``@memoize`` (128 entries) or as ``@memoize(max_entries=…, max_bytes=…)``. ``cache_info()``,
    ``cache_clear()``, ``cache_parameters()`` and ``__wrapped__`` are those of :func:`functools.lru_cache`.

    Args:
        function: the function; its arguments must be hashable.
        max_entries: at most this many results; 128 if there is no bound on bytes either.
        max_bytes: at most this many bytes of results.
        typed: distinguish ``f(3)`` from ``f(3.0)``.
        single_flight: concurrent calls with the same arguments wait for one of them. A function that calls itself
            with the same arguments then raises RuntimeError instead of recursing without end.
        options: ``ttl``, ``tti``, ``policy`` and other options of :class:`~zerocost.LRUCache`.
    """
    if max_entries is None and max_bytes is None:
        max_entries = 128

    def make() -> LRUCache[Any, Any]:
        return LRUCache(max_entries, max_bytes, **options)

    if function is not None:
        return Memoized(function, make, typed, single_flight)
    make()  # invalid options raise here, not at the first call
    return lambda decorated: Memoized(decorated, make, typed, single_flight)
