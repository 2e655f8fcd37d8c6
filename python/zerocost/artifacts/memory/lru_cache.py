"""The ``lru_cache`` artifact: objects by key in this process, within a bound on bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from zerocost._kernels import LRUCache
from zerocost.core.artifact_base import ABSENT, MemoryArtifact
from zerocost.errors import PreconditionFailed, RangeError

__all__ = ["DEFAULT_MAX_BYTES", "LRUCacheArtifact", "cache_from_environment", "max_bytes_from_environment"]

DEFAULT_MAX_BYTES = 256 * 1024**2


class LRUCacheArtifact(MemoryArtifact):
    """Holds objects by key and evicts the least recently used entry when room is needed.

    ``get``, ``put``, ``delete``, ``contains``, ``keys``, ``stats`` and ``clear``. Values are held, not copied:
    ``get`` returns the object that was put. ``put`` returns False for a value that is larger than the whole cache.

    Args:
        cache: the cache to use. By default one of 256 MiB, or of as many bytes as ``ZEROCOST_MEMORY_MAX_BYTES`` says.

    Raises:
        RangeError: ``ZEROCOST_MEMORY_MAX_BYTES`` is not a positive whole number.
    """

    is_quick = True

    def __init__(self, cache: LRUCache[Any, Any] | None = None) -> None:
        self.cache: LRUCache[Any, Any] = (
            cache if cache is not None else LRUCache(max_bytes=max_bytes_from_environment())
        )

    def retrieve(self, key: str, **kwargs: Any) -> Any:
        """The object stored under ``key``, None if there is none."""
        return self.cache.get(key)

    def lookup(self, key: str, **kwargs: Any) -> tuple[bool, Any]:
        """Whether ``key`` is there, and the object stored under it."""
        value = self.cache.get(key, ABSENT)
        return (False, None) if value is ABSENT else (True, value)

    def store(self, key: str, value: Any, ttl: float | None = None, **kwargs: Any) -> bool:
        """Stores ``value`` under ``key``; False if it is larger than the whole cache, and then nothing changes.

        ``ttl`` is how many seconds it may live, None for the cache's own.
        """
        return self.cache.put(key, value, ttl)

    def clear(self, **kwargs: Any) -> bool:
        """Removes everything; True."""
        self.cache.clear()
        return True

    def delete(self, key: str, **kwargs: Any) -> bool:
        """Removes ``key``; whether it was there."""
        return self.cache.pop(key, ABSENT) is not ABSENT

    def exchange(
        self, key: str, value: Any, when: Callable[[Any], bool], ttl: float | None = None, **kwargs: Any
    ) -> bool:
        """Stores ``value`` under ``key``, or removes the key, where ``when`` agrees; see the base class."""
        while True:
            found = self.cache.get(key, ABSENT)
            if not when(found):
                raise PreconditionFailed(f"what is stored under {key!r} is something else")
            done = self.cache._exchange(key, found, value, ABSENT, ttl)
            if done is not None:
                return done

    def contains(self, key: str, **kwargs: Any) -> bool:
        """Whether ``key`` is there. It does not count as use of the entry."""
        return key in self.cache

    def stats(self, **kwargs: Any) -> dict[str, Any]:
        """Hits, misses, loads, load seconds, evictions by cause, rejected, bytes and entries."""
        return self.cache.stats()

    def keys(self, **kwargs: Any) -> list[Any]:
        """Every key; the first is the next to be evicted."""
        return list(self.cache)


def max_bytes_from_environment() -> int:
    """``ZEROCOST_MEMORY_MAX_BYTES``, 256 MiB if it is not set."""
    name = "ZEROCOST_MEMORY_MAX_BYTES"
    given = os.environ.get(name, "").strip()
    if not given:
        return DEFAULT_MAX_BYTES
    if not given.isdecimal() or int(given) == 0:
        raise RangeError(f"{name}: {given!r} was given, a whole number of bytes of 1 or more is allowed", name)
    return int(given)


def cache_from_environment() -> MemoryArtifact:
    """The artifact on the server at ``ZEROCOST_MEMORY_URL``, or in this process if that is not set."""
    url = os.environ.get("ZEROCOST_MEMORY_URL", "").strip()
    if not url:
        return LRUCacheArtifact()
    from zerocost.artifacts.memory.redis_cache import RedisCacheArtifact

    return RedisCacheArtifact(url)
