"""A ``model.safetensors`` file, memory-mapped: tensors are views of the file's pages, nothing is read until it is used.

The format is a length (eight bytes, little-endian), that many bytes of JSON with dtype, shape and offsets of each
tensor, and the tensors. Everything is checked against the file's length before a view is made.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from zerocost.core.arrays import count_copy, is_finite
from zerocost.errors import InvalidModel

__all__ = ["Checkpoint"]

_LONGEST_HEADER = 100_000_000
"""What the format's own library accepts, in bytes."""
_ITEM_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_PIECE = 1 << 20
"""Numbers that are looked at at a time."""
_WIDENED = ("F16", "BF16")


class Checkpoint:
    """The tensors of one file, by name.

    Args:
        path: the file.

    Raises:
        InvalidModel: there is no such file, or it is truncated or not in this format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._written = _written(os.fstat(file.fileno()))
                size = file.seek(0, 2)
                if size < 8:
                    raise InvalidModel(f"{path}: {size} bytes are no safetensors file; is it truncated?")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            parts = path.with_name(f"{path.name}.index.json")
            if parts.is_file() and not path.exists():
                raise InvalidModel(
                    f"{parts}: a checkpoint in several files is not supported; one {path.name} is"
                ) from None
            raise InvalidModel(f"{path}: cannot be read ({error.strerror or error})") from error
        length = int.from_bytes(self._map[:8], "little")
        if length > _LONGEST_HEADER or length > size - 8:
            raise InvalidModel(
                f"{path}: a header of {length} bytes is announced, the file has {size}; is it truncated?"
            )
        try:
            header = orjson.loads(self._map[8 : 8 + length])
        except orjson.JSONDecodeError as error:
            raise InvalidModel(f"{path}: the header is not JSON ({error})") from error
        if not isinstance(header, dict):
            raise InvalidModel(f"{path}: the header is no JSON object")
        header.pop("__metadata__", None)
        self._start = 8 + length
        self._tensors = {name: self._entry(name, entry, size - self._start) for name, entry in header.items()}

    def _entry(self, name: str, entry: Any, room: int) -> tuple[str, tuple[int, ...], int, int]:
        try:
            dtype, shape = str(entry["dtype"]), tuple(int(length) for length in entry["shape"])
            begin, end = (int(offset) for offset in entry["data_offsets"])
        except (TypeError, KeyError, ValueError) as error:
            raise InvalidModel(f"{self.path}: tensor {name!r} has no dtype, shape and data_offsets") from error
        if not 0 <= begin <= end:
            raise InvalidModel(f"{self.path}: tensor {name!r} lies at bytes {begin} to {end}")
        if end > room:
            raise InvalidModel(
                f"{self.path}: tensor {name!r} ends at byte {end} of the data, the file holds {room}; is it truncated?"
            )
        count = 1
        for length in shape:
            count *= length
        if min(shape, default=0) < 0 or (dtype in _ITEM_SIZES and count * _ITEM_SIZES[dtype] != end - begin):
            raise InvalidModel(
                f"{self.path}: tensor {name!r} of {dtype} {list(shape)} does not fit its {end - begin} bytes"
            )
        return dtype, shape, begin, end

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def tensor(self, name: str, shape: tuple[int, ...], *, is_table: bool = False) -> npt.NDArray[np.float32]:
        """The tensor ``name`` as float32 of ``shape``, read-only.

        float32 is a view of the file; float16 and bfloat16 are converted.

        Args:
            name: its name in the file.
            shape: what it must have.
            is_table: whether single rows are read afterwards: the memory of the others is given back at once.

        Raises:
            InvalidModel: there is no such tensor, it has another shape or dtype, or a number that is not finite.
        """
        if name not in self._tensors:
            raise InvalidModel(f"{self.path}: there is no tensor {name!r}; {self._instead(name)}")
        dtype, given, begin, end = self._tensors[name]
        if given != shape:
            raise InvalidModel(
                f"{self.path}: tensor {name!r} has shape {list(given)}, the configuration needs {list(shape)}"
            )
        if dtype not in ("F32", *_WIDENED):
            raise InvalidModel(f"{self.path}: tensor {name!r} is {dtype}; F32, F16 and BF16 are supported")
        raw = np.frombuffer(self._map, np.uint8, end - begin, self._start + begin)
        array = _converted(raw, dtype).reshape(shape)
        numbers = array.reshape(-1)
        for start in range(0, numbers.size, _PIECE):
            if not is_finite(numbers[start : start + _PIECE]):
                raise InvalidModel(f"{self.path}: tensor {name!r} has numbers that are not finite")
            if is_table:
                self.release()
        array.flags.writeable = False
        return array

    def release(self) -> None:
        """Gives the memory of the file's pages back to the system; what is read again comes from its cache."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal. Computed when it is first asked for.

        Raises:
            InvalidModel: the file was written to or touched after it was opened. One that took its name is another
                file, and does not count.
        """
        with suppress(OSError):  # it is gone from its folder; the mapping holds it
            now = _written(self.path.stat())
            if now[0] == self._written[0] and now != self._written:
                raise InvalidModel(f"{self.path}: was written to or touched after it was loaded; load it again")
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self._map).hexdigest()

    def _instead(self, name: str) -> str:
        similar = [known for known in self._tensors if known.endswith(name)] or list(self._tensors)
        return f"{similar[0]!r} is there" if similar else "there is none at all"


def _written(status: os.stat_result) -> tuple[tuple[int, int], int, int]:
    """Which file it is, and what changes when it is written to."""
    return (status.st_dev, status.st_ino), status.st_size, status.st_mtime_ns


def _converted(raw: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "BF16":
        count_copy(2 * raw.nbytes)
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype == "F16":
        count_copy(2 * raw.nbytes)
        return raw.view(np.float16).astype(np.float32)
    array = raw.view(np.float32)
    if not array.flags.aligned:  # old writers did not pad the header
        count_copy(array.nbytes)
        return array.copy()
    return array
