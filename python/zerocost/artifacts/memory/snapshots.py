"""A cache as one safetensors file.

Tensors are named 0 … n-1 in the cache's order. The manifest in the file's metadata has the key, the kind of value and
the remaining times of each. Keys must be str, values arrays or bytes: nothing is pickled.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zerocost.core import safetensors
from zerocost.errors import DatatypeError, InvalidInput, ZerocostError

if TYPE_CHECKING:
    from zerocost._kernels import LRUCache

__all__ = ["read", "read_entries", "write"]

FORMAT = "zerocost-memory"
VERSION = 1


def write(cache: LRUCache[Any, Any], path: str | os.PathLike[str]) -> None:
    """Writes every entry. The file appears whole or not at all, and is on the disk then.

    Raises:
        DatatypeError: a key that is not a str, or a value that is neither bytes nor an array that safetensors can hold,
            named by its key; nothing is written.
    """
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    manifest = []
    for index, (key, value, live, idle) in enumerate(cache._lifetimes()):
        kind, tensors[str(index)] = _tensor(key, value)
        manifest.append({"key": key, "kind": kind, "live": _finite(live), "idle": _finite(idle)})
    metadata = {"format": FORMAT, "version": str(VERSION), "entries": json.dumps(manifest)}
    safetensors.write(path, tensors, metadata, sync=True)


def read(cache: LRUCache[Any, Any], path: str | os.PathLike[str]) -> list[str]:
    """Puts every entry of the file into the cache, after the whole file has been read and checked.

    Returns the keys of entries that are larger than the whole cache.
    """
    return cache._restore(read_entries(path))


def read_entries(path: str | os.PathLike[str]) -> list[tuple[str, Any, float, float]]:
    """The entries of a snapshot in the order of the cache: key, value, seconds to live and to idle.

    Raises:
        InvalidInput: the file is not a snapshot, is damaged, or comes from a newer version.
        OSError: there is no such file.
    """
    data = Path(path).read_bytes()
    try:
        file = safetensors.Message(data)
    except ZerocostError as error:
        raise InvalidInput(f"path: {path} is damaged or not a safetensors file ({error})", "path") from None
    metadata = file.metadata
    if metadata.get("format") != FORMAT:
        raise InvalidInput(f"path: {path} is a safetensors file, but no snapshot of a cache", "path")
    if metadata.get("version") != str(VERSION):
        version = metadata.get("version")
        raise InvalidInput(f"path: {path} has version {version}, this zerocost reads version {VERSION}", "path")
    try:
        manifest = json.loads(metadata["entries"])
        return [_entry(row, file, str(index)) for index, row in enumerate(manifest)]
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"path: the manifest of {path} is damaged ({error!r})", "path") from None


def _tensor(key: Any, value: Any) -> tuple[str, np.ndarray[Any, Any]]:
    if type(key) is not str:
        raise DatatypeError(f"key: {key!r} is a {type(key).__name__}; a snapshot holds str keys only", "key")
    if isinstance(value, bytes):
        return "bytes", np.frombuffer(value, np.uint8)
    if type(value) is not np.ndarray or safetensors.format_of(value.dtype) is None:
        kind = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise DatatypeError(f"value of key {key!r}: a snapshot holds arrays and bytes, not a {kind}", "value")
    return "array", value


def _entry(row: dict[str, Any], file: safetensors.Message, name: str) -> tuple[str, Any, float, float]:
    key, kind = row["key"], row["kind"]
    if not isinstance(key, str) or kind not in ("array", "bytes"):
        raise ValueError(f"key {key!r} of kind {kind!r}")
    live, idle = (math.inf if row[name] is None else float(row[name]) for name in ("live", "idle"))
    if not (live >= 0 and idle >= 0):
        raise ValueError(f"key {key!r} has {live} and {idle} seconds left")
    if kind == "bytes":
        return key, file.raw(name).tobytes(), live, idle
    # A copy for each array, so that dropping one frees its memory.
    return key, file.array(name).copy(), live, idle


def _finite(seconds: float) -> float | None:
    return None if math.isinf(seconds) else seconds
