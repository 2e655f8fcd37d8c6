"""The safetensors format as a message: tensors by name, everything else as one JSON string in the metadata.

A list of arrays is ``name.0``, ``name.1``, …; the JSON string is the metadata's entry ``json``. The format is that of
https://github.com/huggingface/safetensors: an 8-byte little-endian length, a JSON header, the tensors end to end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from zerocost.core.arrays import check_size, datatype_of, dtype_of
from zerocost.errors import DatatypeError, LimitExceeded, MalformedJSON, ShapeError

__all__ = [
    "MEDIA_TYPE",
    "Slot",
    "aligned_empty",
    "from_bytes",
    "grouped",
    "parse_header",
    "split_values",
    "to_pieces",
]

MEDIA_TYPE = "application/vnd.safetensors"

_NAMES = {
    "FP64": "F64",
    "FP32": "F32",
    "FP16": "F16",
    "BF16": "BF16",
    "BOOL": "BOOL",
    **{f"{sign}INT{bits}": f"{sign or 'I'}{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
_DATATYPES = {name: datatype for datatype, name in _NAMES.items()}
_ALIGNMENT = 64
_ELEMENT = re.compile(r"(.+)\.(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Slot:
    """A tensor that the header announces."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


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
            tensors.update({f"{name}.{index}": item for index, item in enumerate(value)})
        else:
            others[name] = value
    return tensors, others


def grouped(tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """``name.0``, ``name.1``, … as lists again."""
    values: dict[str, Any] = {}
    for name, array in tensors.items():
        match = _ELEMENT.fullmatch(name)
        if match is None:
            if name in values:
                raise ShapeError(f"{name}: given as a tensor and as a list", name)
            values[name] = array
            continue
        elements = values.setdefault(match[1], [])
        if not isinstance(elements, list) or match[2] != str(len(elements)):
            raise ShapeError(f"{name}: the elements of a list must be numbered from 0 without a gap", match[1])
        elements.append(array)
    return values


def to_pieces(tensors: Mapping[str, npt.NDArray[Any]], text: str) -> list[bytes | memoryview]:
    """The message: its header, and a view of every array (a copy only where its layout is not C-contiguous)."""
    header: dict[str, Any] = {"__metadata__": {"json": text}}
    pieces: list[bytes | memoryview] = []
    offset = 0
    for name, array in tensors.items():
        datatype = datatype_of(array.dtype)
        block = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        header[name] = {
            "dtype": _NAMES[datatype or ""],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(block)],
        }
        offset += len(block)
        pieces.append(block)
    encoded = orjson.dumps(header)
    encoded += b" " * (-len(encoded) % 8)
    return [len(encoded).to_bytes(8, "little") + encoded, *pieces]


def from_bytes(data: bytes) -> dict[str, Any]:
    """What a whole message holds, which is in memory already: read-only arrays over ``data``, and the other values.

    Raises:
        MalformedJSON, DatatypeError, ShapeError: it is no such message.
    """
    size = int.from_bytes(data[:8], "little")
    try:
        header = orjson.loads(data[8 : 8 + size])
        slots, text = parse_header(header, len(data), len(data))
        others = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedJSON(f"the safetensors header: {error}") from None
    if 8 + size + sum(slot.nbytes for slot in slots) != len(data) or not isinstance(others, dict):
        raise ShapeError("the safetensors header does not describe the data")
    tensors, at = {}, 8 + size
    for slot in slots:
        flat = np.frombuffer(data, slot.dtype, math.prod(slot.shape), at)
        tensors[slot.name], at = flat.reshape(slot.shape), at + slot.nbytes
    return {**grouped(tensors), **others}


def parse_header(header: Any, max_elements: int, max_parts: int) -> tuple[list[Slot], str]:
    """The tensors in the order of their data, and the JSON string (``"{}"`` if there is none).

    Args:
        header: what its JSON says. Who reads it knows what it may cost: a server has limits, and refuses names that
            are there twice.
        max_elements: of a tensor, each axis counting at least one.
        max_parts: tensors.

    Raises:
        MalformedJSON: the header is no JSON object.
        DatatypeError, ShapeError: an entry that is none, or data that is not end to end.
        LimitExceeded: more than a limit allows.
    """
    if not isinstance(header, dict):
        raise MalformedJSON("the safetensors header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DatatypeError("the safetensors metadata must be text by name")
    json = metadata.get("json", "{}")
    if len(header) > max_parts:
        raise LimitExceeded(f"{len(header)} tensors were given, {max_parts} are allowed")
    slots: list[tuple[int, int, Slot]] = []
    for name, entry in header.items():
        slots.append(_slot(name, entry, max_elements))
    slots.sort(key=lambda item: item[:2])
    at = 0
    for start, end, slot in slots:
        if start != at or end - start != slot.nbytes:
            raise ShapeError(f"{slot.name}: data_offsets must be end to end and fit the shape", slot.name)
        at = end
    return [slot for _, _, slot in slots], json


def _slot(name: str, entry: Any, max_elements: int) -> tuple[int, int, Slot]:
    dtype = entry.get("dtype") if isinstance(entry, dict) else None
    if not isinstance(dtype, str) or dtype not in _DATATYPES:
        given = f"a {type(dtype).__name__}" if isinstance(dtype, list | dict) else repr(dtype)  # it may be deep
        raise DatatypeError(f"{name}: dtype {given} is not one of {', '.join(_DATATYPES)}", name)
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _are_sizes(shape) or len(shape) > 32 or not _are_sizes(offsets) or len(offsets) != 2:
        raise ShapeError(f"{name}: shape and data_offsets must be lists of whole numbers", name)
    element = dtype_of(_DATATYPES[dtype])
    check_size(name, shape, element.itemsize, max_elements)
    return offsets[0], offsets[1], Slot(name, element, tuple(shape))


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, np.ndarray) and datatype_of(value.dtype) in _NAMES
