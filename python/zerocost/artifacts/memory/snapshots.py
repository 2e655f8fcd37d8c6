"""A cache as one safetensors file.

Tensors are named 0 … n-1 in the cache's order; the manifest in the file's metadata has the key, the kind of value and
what remained of its time for each. Only str keys, and arrays or bytes as values: nothing is pickled.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from zerocost.errors import DatatypeError, InvalidInput

if TYPE_CHECKING:
    from zerocost._kernels import LRUCache

__all__ = ["read", "read_entries", "write"]

FORMAT = "zerocost-memory"
VERSION = 1

_DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
    "C64": np.complex64,
}
_STORABLE = frozenset(np.dtype(kind) for kind in _DTYPES.values())


def write(cache: LRUCache[Any, Any], path: str | os.PathLike[str]) -> None:
    """Writes every entry, to a temporary file beside ``path`` that is renamed once it is complete.

    Raises:
        DatatypeError: a key that is no str, or a value that is neither bytes nor an array that safetensors can hold,
            named by its key; nothing is written.
    """
    from safetensors.numpy import save_file

    tensors: dict[str, np.ndarray[Any, Any]] = {}
    manifest = []
    for index, (key, value, live, idle) in enumerate(cache._lifetimes()):
        kind, tensors[str(index)] = _tensor(key, value)
        manifest.append({"key": key, "kind": kind, "live": _finite(live), "idle": _finite(idle)})
    metadata = {"format": FORMAT, "version": str(VERSION), "entries": json.dumps(manifest)}
    target = Path(path)
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        part.touch(exist_ok=False)
        mode = part.stat().st_mode
        save_file(tensors, part, metadata)
        # As the umask has it; the writer makes a file that only its owner may read.
        part.chmod(mode)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def read(cache: LRUCache[Any, Any], path: str | os.PathLike[str]) -> list[str]:
    """Puts every entry of the file into the cache, once the whole file has been read, checked and weighed.

    Returns the keys of the entries that are larger than the whole cache.
    """
    return cache._restore(read_entries(path))


def read_entries(path: str | os.PathLike[str]) -> list[tuple[str, Any, float, float]]:
    """Every entry of a snapshot: key, value, seconds to live and to idle, in the order of the cache.

    Raises:
        InvalidInput: the file is no snapshot, is damaged, or comes from a newer version.
        OSError: there is no such file.
    """
    from safetensors import SafetensorError, deserialize

    data = Path(path).read_bytes()
    try:
        header_length = int.from_bytes(data[:8], "little")
        tensors = dict(deserialize(data))  # type: ignore[no-untyped-call]  # its stub has no types
        metadata = json.loads(data[8 : 8 + header_length]).get("__metadata__") or {}
    except (SafetensorError, ValueError, RecursionError) as error:
        raise InvalidInput(f"path: {path} is damaged or no safetensors file ({error})", "path") from None
    if metadata.get("format") != FORMAT:
        raise InvalidInput(f"path: {path} is a safetensors file, but no snapshot of a cache", "path")
    if metadata.get("version") != str(VERSION):
        version = metadata.get("version")
        raise InvalidInput(f"path: {path} has version {version}, this zerocost reads version {VERSION}", "path")
    try:
        manifest = json.loads(metadata["entries"])
        return [_entry(row, tensors[str(index)]) for index, row in enumerate(manifest)]
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"path: the manifest of {path} is damaged ({error!r})", "path") from None


def _tensor(key: Any, value: Any) -> tuple[str, np.ndarray[Any, Any]]:
    if type(key) is not str:
        raise DatatypeError(f"key: {key!r} is a {type(key).__name__}; a snapshot holds str keys only", "key")
    if isinstance(value, bytes):
        return "bytes", np.frombuffer(value, np.uint8)
    if type(value) is not np.ndarray or value.dtype not in _STORABLE or not value.dtype.isnative:
        kind = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise DatatypeError(f"value of key {key!r}: a snapshot holds arrays and bytes, not a {kind}", "value")
    # A copy where it is needed: the writer takes the memory as it lies. (`ascontiguousarray` would add an axis to a
    # scalar.)
    return "array", value if value.flags.c_contiguous else value.copy(order="C")


def _entry(row: dict[str, Any], tensor: dict[str, Any]) -> tuple[str, Any, float, float]:
    key, kind = row["key"], row["kind"]
    if not isinstance(key, str) or kind not in ("array", "bytes"):
        raise ValueError(f"key {key!r} of kind {kind!r}")
    live, idle = (math.inf if row[name] is None else float(row[name]) for name in ("live", "idle"))
    if not (live >= 0 and idle >= 0):
        raise ValueError(f"key {key!r} has {live} and {idle} seconds left")
    if kind == "bytes":
        return key, bytes(tensor["data"]), live, idle
    # A copy of its own for each array, so that dropping one frees its memory.
    array = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"]).copy()
    return key, array, live, idle


def _finite(seconds: float) -> float | None:
    return None if math.isinf(seconds) else seconds
