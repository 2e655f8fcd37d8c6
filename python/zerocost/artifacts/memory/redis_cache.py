"""The ``lru_cache`` artifact on Redis or Valkey: one cache for all worker processes and machines.

Operations and errors are those of the artifact in the process. Bounds, order and eviction are the server's
(``maxmemory``, ``maxmemory-policy``). Only keys under our prefix are listed and cleared.

A value is stored as one string: the letters ``zc1``, a letter for its kind, a little-endian u32 with the length of a
JSON header, the header, and the raw bytes. It is not safetensors, which has no dtype for text, dates and complex128.
Nothing is pickled.
"""

from __future__ import annotations

import json
import math
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import ml_dtypes
import numpy as np

from zerocost.core.artifact_base import ABSENT, MemoryArtifact
from zerocost.errors import DatatypeError, InvalidInput, PluginError, PreconditionFailed, RangeError, ServiceUnavailable

__all__ = ["RedisCacheArtifact", "decode", "encode"]

_MAGIC = b"zc1"
_SCHEMES = ("redis", "rediss", "unix")
_BATCH = 1000
_FOREVER = 1e12
"""Seconds. A longer life has no end: the server counts milliseconds in 64 bits."""
_PART = b"\xff"
"""Precedes each part of a tuple. UTF-8 has no such byte, so no str is confused with a tuple."""


class RedisCacheArtifact(MemoryArtifact):
    """Holds arrays, bytes, str and JSON values by key on a Redis or Valkey server that processes share.

    A key is a str, or a tuple of str. Services use tuples, which clients cannot send.

    ``put`` answers False when the server has no room for the value and may not evict any.

    Args:
        url: ``redis://[user:password@]host:port/database``, ``rediss://`` for TLS, ``unix://`` for a socket.
        prefix: of our keys on the server.
        timeout: seconds that connecting and each reply may take.

    Raises:
        PluginError: the package ``redis`` is not installed.
        RangeError: the URL has another scheme, or the timeout is not positive.
        ServiceUnavailable: from every operation, if the server does not answer in time or refuses it. The next
            operation tries again.
    """

    waits = True

    def __init__(self, url: str, *, prefix: str = "zerocost:", timeout: float = 2.0) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise PluginError(f"a cache on Redis needs the extra: pip install 'zerocost[redis]' ({error})") from None
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise RangeError(f"url: scheme {parts.scheme!r} was given, redis, rediss or unix is allowed", "url")
        if not timeout > 0:
            raise RangeError(f"timeout: {timeout} was given, more than 0 seconds is allowed", "timeout")
        # For errors: without the password.
        self._place = (parts.hostname and f"{parts.hostname}:{parts.port or 6379}") or parts.path
        self._prefix = prefix.encode()
        self._errors = redis.exceptions
        self._client: Any = redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # One retry, for a connection that the server has closed in the meantime.
            retry=Retry(NoBackoff(), 1),
        )
        self._lock = threading.Lock()
        self._counts = {"hits": 0, "misses": 0, "rejected": 0}

    def retrieve(self, key: str, **kwargs: Any) -> Any:
        """The value stored under ``key``, None if there is none."""
        return self.lookup(key)[1]

    def lookup(self, key: str, **kwargs: Any) -> tuple[bool, Any]:
        """Whether ``key`` is there, and the object stored under it."""
        name = self._name(key)
        with self._talking():
            data = self._client.get(name)
        self._count("misses" if data is None else "hits")
        if data is None:
            return False, None
        return True, decode(data, key)

    def store(self, key: str, value: Any, ttl: float | None = None, **kwargs: Any) -> bool:
        """Stores ``value`` under ``key``; False if the server has no room for it.

        ``ttl``: seconds to live, to the millisecond; None and infinity: as long as the server keeps it.
        """
        name, data, life = self._name(key), encode(value), _milliseconds(ttl)
        with self._talking():
            try:
                self._client.set(name, data, px=life)
            except self._errors.OutOfMemoryError:
                self._count("rejected")
                return False
        return True

    def exchange(
        self, key: str, value: Any, when: Callable[[Any], bool], ttl: float | None = None, **kwargs: Any
    ) -> bool:
        """Stores ``value`` under ``key``, or removes the key, if ``when`` is true; see the base class."""
        name, life = self._name(key), _milliseconds(ttl)
        new = None if value is ABSENT else encode(value)
        with self._talking():
            while True:
                with self._client.pipeline() as transaction:
                    transaction.watch(name)
                    data = transaction.get(name)
                    if not when(ABSENT if data is None else decode(data, key)):
                        raise PreconditionFailed(f"what is stored under {key!r} is something else")
                    transaction.multi()
                    if new is None:
                        transaction.unlink(name)
                    else:
                        transaction.set(name, new, px=life)
                    try:
                        transaction.execute()
                    except self._errors.WatchError:
                        continue  # changed in the meantime
                    except self._errors.OutOfMemoryError:
                        self._count("rejected")
                        return False
                return new is not None or data is not None

    def clear(self, **kwargs: Any) -> bool:
        """Removes every key under our prefix; True."""
        with self._talking():
            for names in self._batches():
                self._client.unlink(*names)
        return True

    def delete(self, key: str, **kwargs: Any) -> bool:
        """Removes ``key``; whether it was there."""
        name = self._name(key)
        with self._talking():
            return bool(self._client.unlink(name))

    def contains(self, key: str, **kwargs: Any) -> bool:
        """Whether ``key`` is there."""
        name = self._name(key)
        with self._talking():
            return bool(self._client.exists(name))

    def stats(self, **kwargs: Any) -> dict[str, Any]:
        """Hits, misses and rejected of this process; bytes and entries under our prefix; the server's evictions."""
        entries = size = 0
        with self._talking():
            for names in self._batches():
                pipeline = self._client.pipeline(transaction=False)
                for name in names:
                    pipeline.strlen(name)
                entries += len(names)
                size += sum(pipeline.execute())
            server: Any = self._client.info("stats")
        evictions = {"size": server.get("evicted_keys", 0), "expired": server.get("expired_keys", 0)}
        with self._lock:
            counts = dict(self._counts)
        return {**counts, "evictions": evictions, "bytes": size, "entries": entries}

    def keys(self, **kwargs: Any) -> list[str | tuple[str, ...]]:
        """Every key under our prefix, sorted, tuples last."""
        with self._talking():
            names = [name for batch in self._batches() for name in batch]
        return [_key(name[len(self._prefix) :]) for name in sorted(names)]

    def _name(self, key: Any) -> bytes:
        if isinstance(key, str):
            return self._prefix + key.encode("utf-8", "surrogatepass")
        if isinstance(key, tuple) and key and all(isinstance(part, str) for part in key):
            return self._prefix + b"".join(_PART + part.encode("utf-8", "surrogatepass") for part in key)
        raise DatatypeError(f"key: {type(key)} was given, a str or a tuple of str is needed on a shared server", "key")

    def _batches(self) -> Iterator[list[bytes]]:
        """Our keys, each once, in batches: the server may list one twice while it grows."""
        escaped = b"".join(b"\\" + bytes([byte]) if byte in b"*?[]\\^-" else bytes([byte]) for byte in self._prefix)
        seen: set[bytes] = set()
        batch: list[bytes] = []
        for name in self._client.scan_iter(match=escaped + b"*", count=_BATCH):
            if name not in seen:
                seen.add(name)
                batch.append(name)
            if len(batch) == _BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    @contextmanager
    def _talking(self) -> Iterator[None]:
        errors = self._errors
        try:
            yield
        except errors.AuthenticationError as error:
            raise ServiceUnavailable(f"the cache at {self._place} refuses our name or password ({error})") from None
        except errors.TimeoutError as error:
            raise ServiceUnavailable(f"the cache at {self._place} does not answer in time ({error})") from None
        except errors.ConnectionError as error:
            raise ServiceUnavailable(f"the cache at {self._place} cannot be reached ({error})") from None
        except errors.RedisError as error:
            raise ServiceUnavailable(f"the cache at {self._place} refuses: {error}") from None


def _milliseconds(ttl: float | None) -> int | None:
    if ttl is None or ttl >= _FOREVER:
        return None
    if not ttl > 0:
        raise RangeError(f"ttl: {ttl!r} was given, seconds above 0 are allowed", "ttl")
    return max(1, math.ceil(ttl * 1000))


def _key(name: bytes) -> str | tuple[str, ...]:
    parts = [part.decode("utf-8", "surrogatepass") for part in name.split(_PART)]
    return parts[0] if len(parts) == 1 else tuple(parts[1:])


def encode(value: Any) -> bytes:
    """A value as one string of bytes.

    Raises:
        DatatypeError: it is neither an array of numbers, nor bytes, str or a JSON value.
    """
    if isinstance(value, np.ndarray):
        kind, header, data = b"A", json.dumps(_array_header(value)).encode(), value.tobytes()
    elif isinstance(value, bytes):
        kind, header, data = b"B", b"", value
    elif type(value) is str:
        kind, header, data = b"S", b"", value.encode("utf-8", "surrogatepass")
    elif _is_json(value):
        kind, header, data = b"J", b"", json.dumps(value, separators=(",", ":")).encode()
    else:
        raise DatatypeError(
            f"value: {type(value)} was given; a shared cache holds arrays of numbers, bytes, str and JSON values "
            "(dict with str keys, list, number, bool, None)",
            "value",
        )
    return b"".join((_MAGIC, kind, struct.pack("<I", len(header)), header, data))


def decode(data: bytes, key: str) -> Any:
    """What :func:`encode` was given.

    Raises:
        InvalidInput: the bytes are not ours, or damaged.
    """
    try:
        magic, kind, length = data[:3], data[3:4], int.from_bytes(data[4:8], "little")
        header, body = data[8 : 8 + length], data[8 + length :]
        if magic != _MAGIC or len(header) != length:
            raise ValueError("it does not begin as ours do")
        if kind == b"A":
            about = json.loads(header)
            name = about["dtype"]
            dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
            if dtype.hasobject:
                raise ValueError(f"dtype {dtype}")
            return np.frombuffer(body, dtype).reshape(about["shape"]).copy()
        if kind == b"B":
            return body
        if kind == b"S":
            return body.decode("utf-8", "surrogatepass")
        if kind == b"J":
            return json.loads(body)
        raise ValueError(f"kind {kind!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"key {key!r}: what is stored is not a value of zerocost ({error})", "key") from None


def _array_header(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    bfloat16 = array.dtype == ml_dtypes.bfloat16
    if type(array) is not np.ndarray or not (bfloat16 or array.dtype.kind in "biufcmMSU"):
        raise DatatypeError(f"value: {type(array)} of {array.dtype} cannot be stored on a shared server", "value")
    return {"dtype": "bfloat16" if bfloat16 else array.dtype.str, "shape": array.shape}


def _is_json(value: Any, depth: int = 0) -> bool:
    """Whether JSON gives exactly this value back."""
    if value is None or type(value) in (bool, int, float, str):
        return True
    if depth > 100:
        return False
    if type(value) is list:
        return all(_is_json(item, depth + 1) for item in value)
    if type(value) is dict:
        return all(type(name) is str and _is_json(item, depth + 1) for name, item in value.items())
    return False
