"""The safetensors format: tensors by name, everything else as one JSON text in the metadata.

This is the only module that knows the format. It is the same on the wire, in files and in a memory's raw entries:
https://github.com/huggingface/safetensors, an 8-byte little-endian length, a JSON header, the tensors end to end. A
list of arrays is ``name.0``, ``name.1``, …; the JSON text is the metadata's entry ``json``.
"""

from __future__ import annotations

import math
import mmap
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from zerocost.core.datatypes import check_size, datatype_of, dtype_of
from zerocost.core.files import atomic_file
from zerocost.errors import DatatypeError, LimitExceeded, MalformedJSON, ShapeError

__all__ = [
    "LONGEST_HEADER",
    "MEDIA_TYPE",
    "Message",
    "Slot",
    "aligned_empty",
    "format_of",
    "from_bytes",
    "grouped",
    "header_size",
    "numbered",
    "parse_header",
    "split_values",
    "to_pieces",
    "write",
]

MEDIA_TYPE = "application/vnd.safetensors"
LONGEST_HEADER = 100_000_000
"""Bytes. The format's own library accepts as many."""

_NAMES = {
    "FP64": "F64",
    "FP32": "F32",
    "FP16": "F16",
    "BF16": "BF16",
    "BOOL": "BOOL",
    **{f"{sign}INT{bits}": f"{sign or 'I'}{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
_DATATYPES = {name: datatype for datatype, name in _NAMES.items()}
_COMPLEX = np.dtype(np.complex64)
"""``C64``: files may hold it, messages to artifacts do not."""
_ANY = 1 << 62
_ALIGNMENT = 64
_ELEMENT = re.compile(r"(.+)\.(0|[1-9][0-9]*)")


class Slot(NamedTuple):
    """A tensor that the header announces.

    Attributes:
        format: its dtype by the format's name (``"F32"``). A file may have one that no array can have here.
        begin: its first byte, counted from where the data begin.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the array. Raises DatatypeError where there is none."""
        dtype = _dtype(self.format)
        if dtype is None:
            raise DatatypeError(f"{self.name}: dtype {self.format!r} is not one of {', '.join(_DATATYPES)}", self.name)
        return dtype


class Message:
    """A whole message in memory, or in a file that is mapped into it. Its arrays are read-only views.

    Args:
        data: the message.
        max_elements: of a tensor, each axis counting at least one.

    Attributes:
        slots: the tensors by name, in the order of their data.
        metadata: text by name.

    Raises:
        MalformedJSON, DatatypeError, ShapeError, LimitExceeded: ``data`` is not such a message, or is truncated.
    """

    def __init__(self, data: bytes | mmap.mmap, max_elements: int = _ANY) -> None:
        if len(data) < 8:
            raise ShapeError(f"{len(data)} bytes are not a safetensors file; is it truncated?")
        size = header_size(data[:8], min(LONGEST_HEADER, len(data) - 8))
        try:
            header = orjson.loads(data[8 : 8 + size])
        except orjson.JSONDecodeError as error:
            raise MalformedJSON(f"the safetensors header is not JSON ({error})") from None
        slots, self.metadata = parse_header(header, max_elements, is_file=True)
        self.slots = {slot.name: slot for slot in slots}
        self.data, self._start = data, 8 + size
        announced = self._start + sum(slot.nbytes for slot in slots)
        if announced != len(data):
            raise ShapeError(f"the header announces {announced} bytes, there are {len(data)}; is it truncated?")

    @classmethod
    def of_file(cls, file: BinaryIO) -> Message:
        """The message in an open file, which is mapped: nothing is read until it is used. The file may be closed."""
        return cls(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.seek(0, 2) else b"")

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """The bytes of a tensor."""
        slot = self.slots[name]
        return np.frombuffer(self.data, np.uint8, slot.nbytes, self._start + slot.begin)

    def array(self, name: str) -> npt.NDArray[Any]:
        """A tensor. It may not be aligned: some writers do not pad the header."""
        slot = self.slots[name]
        return self.raw(name).view(slot.dtype).reshape(slot.shape)


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A fresh array that begins at a multiple of 64 bytes."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def split_values(values: Mapping[str, Any]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The arrays by the names that they travel under, and everything else."""
    tensors: dict[str, npt.NDArray[Any]] = {}
    others: dict[str, Any] = {}
    for name, value in values.items():
        if _is_tensor(value):
            tensors[name] = value
        elif isinstance(value, list | tuple) and value and all(map(_is_tensor, value)):
            tensors.update(numbered(name, value))
        else:
            others[name] = value
    return tensors, others


def numbered(name: str, items: Iterable[Any]) -> dict[str, Any]:
    """The items of a list as ``name.0``, ``name.1``, …."""
    return {f"{name}.{index}": item for index, item in enumerate(items)}


def grouped(tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """``name.0``, ``name.1``, … as lists again, in any order: a file has the largest elements first."""
    values: dict[str, Any] = {}
    for name, array in tensors.items():
        match = _ELEMENT.fullmatch(name)
        if match is None:
            values[name] = array
            continue
        if match[1] in tensors:
            raise ShapeError(f"{match[1]}: given as a tensor and as a list", match[1])
        elements = values.setdefault(match[1], [])
        while (following := f"{match[1]}.{len(elements)}") in tensors:
            elements.append(tensors[following])
        if len(match[2]) > 9 or int(match[2]) >= len(elements):
            raise ShapeError(f"{name}: the elements of a list must be numbered from 0 without a gap", match[1])
    return values


def header_size(start: bytes, most: int) -> int:
    """The length of the header, from the first 8 bytes of a message; raises ShapeError for more than ``most``."""
    size = int.from_bytes(start, "little")
    if size > most:
        raise ShapeError(f"a safetensors header of {size} bytes is announced, at most {most} are possible")
    return size


def to_pieces(tensors: Mapping[str, npt.NDArray[Any]], text: str) -> list[bytes | memoryview]:
    """The message: its header, and a view of every array (a copy only where its layout is not C-contiguous)."""
    return _pieces(tensors, {"json": text})


def _pieces(tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    header: dict[str, Any] = {"__metadata__": metadata}
    pieces: list[bytes | memoryview] = []
    offset = 0
    for name, array in tensors.items():
        array_format = format_of(array.dtype)
        if array_format is None:
            raise DatatypeError(f"{name}: dtype {array.dtype} is not one that the safetensors format has", name)
        block = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        header[name] = {
            "dtype": array_format,
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(block)],
        }
        offset += len(block)
        pieces.append(block)
    encoded = orjson.dumps(header)
    encoded += b" " * (-len(encoded) % 8)
    return [len(encoded).to_bytes(8, "little") + encoded, *pieces]


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, npt.NDArray[Any]],
    metadata: Mapping[str, str],
    *,
    sync: bool = False,
) -> None:
    """Writes a file, whole or not at all; see :func:`zerocost.core.files.atomic_file`.

    Args:
        path: the file.
        tensors: arrays by name, in native byte order.
        metadata: text by name; ``json`` is the JSON of everything that is not a tensor.
        sync: whether it is on the disk when this returns.

    Raises:
        DatatypeError: an array of a dtype that the format does not have; nothing is written.
        OSError: the file cannot be written.
    """
    # Large elements first: then every tensor is aligned for those who map the file.
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))
    pieces = _pieces(ordered, metadata)
    with atomic_file(path, sync=sync) as file:
        for piece in pieces:
            file.write(piece)


def from_bytes(data: bytes) -> dict[str, Any]:
    """What a whole message holds: read-only arrays over ``data``, and the other values.

    Raises:
        MalformedJSON, DatatypeError, ShapeError, LimitExceeded: ``data`` is not such a message.
    """
    message = Message(data, max_elements=len(data))
    try:
        others = orjson.loads(message.metadata.get("json", "{}"))
    except orjson.JSONDecodeError as error:
        raise MalformedJSON(f"the safetensors metadata: {error}") from None
    if not isinstance(others, dict):
        raise ShapeError("the JSON in the metadata must be an object")
    return {**grouped({name: message.array(name) for name in message.slots}), **others}


def parse_header(
    header: Any, max_elements: int = _ANY, max_parts: int = _ANY, *, is_file: bool = False
) -> tuple[list[Slot], dict[str, str]]:
    """The tensors in the order of their data, and the metadata; its ``json`` is the JSON of everything else.

    Args:
        header: its JSON, read. The reader knows what it may cost: a server has limits, and refuses names that are there
            twice.
        max_elements: of a tensor, each axis counting at least one.
        max_parts: tensors.
        is_file: whether dtypes are allowed that no message has.

    Raises:
        MalformedJSON: the header is not a JSON object.
        DatatypeError, ShapeError: an invalid entry, or data that is not end to end.
        LimitExceeded: more than a limit allows.
    """
    if not isinstance(header, dict):
        raise MalformedJSON("the safetensors header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DatatypeError("the safetensors metadata must be text by name")
    if len(header) > max_parts:
        raise LimitExceeded(f"{len(header)} tensors were given, {max_parts} are allowed")
    slots = [_slot(name, entry, max_elements, is_file=is_file) for name, entry in header.items()]
    slots.sort(key=lambda slot: (slot.begin, slot.nbytes))
    at = 0
    for slot in slots:
        dtype = _dtype(slot.format)
        needed = max(0, slot.nbytes) if dtype is None else math.prod(slot.shape) * dtype.itemsize
        if (slot.begin, slot.nbytes) != (at, needed):
            raise ShapeError(
                f"{slot.name}: data_offsets must be end to end and fit the shape: [{slot.begin}, "
                f"{slot.begin + slot.nbytes}] was given, [{at}, {at + needed}] is needed",
                slot.name,
            )
        at += needed
    return slots, metadata


def _slot(name: str, entry: Any, max_elements: int, *, is_file: bool) -> Slot:
    given = entry.get("dtype") if isinstance(entry, dict) else None
    if not isinstance(given, str) or (given not in _DATATYPES and not is_file):
        shown = f"a {type(given).__name__}" if isinstance(given, list | dict) else repr(given)  # it may be deep
        raise DatatypeError(f"{name}: dtype {shown} is not one of {', '.join(_DATATYPES)}", name)
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _are_sizes(shape) or len(shape) > 32 or not _are_sizes(offsets) or len(offsets) != 2 or max(offsets) > _ANY:
        raise ShapeError(f"{name}: shape and data_offsets must be lists of whole numbers", name)
    dtype = _dtype(given)
    check_size(name, shape, 1 if dtype is None else dtype.itemsize, max_elements)
    return Slot(name, given, tuple(shape), offsets[0], offsets[1] - offsets[0])


def format_of(dtype: np.dtype[Any]) -> str | None:
    """The format's name of a dtype; None where it has none (objects, text, dates, foreign byte order)."""
    return _NAMES.get(datatype_of(dtype) or "") or ("C64" if dtype == _COMPLEX else None)


@lru_cache(64)
def _dtype(name: str) -> np.dtype[Any] | None:
    if name == "C64":
        return _COMPLEX
    return dtype_of(_DATATYPES[name]) if name in _DATATYPES else None


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, np.ndarray) and datatype_of(value.dtype) in _NAMES
