"""The tensors in an Open Inference request: what the JSON declares, and the elements of BYTES."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost._kernels import read_tensor
from zerocost.api.settings import Settings
from zerocost.api.wire.json import LazyJSON, read_document
from zerocost.core.datatypes import DATATYPES, check_size, datatype_refusal, dtype_of
from zerocost.core.ports import Ports
from zerocost.errors import DatatypeError, InvalidInput, ShapeError

__all__ = ["InputTensor", "bytes_array", "input_tensor", "raw_tensor", "read_bytes_elements"]


@dataclass
class InputTensor:
    """An input as the JSON declares it. ``array`` is None until its binary data has been read."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    array: npt.NDArray[Any] | None
    binary_size: int | None = None
    data: bytes | None = None
    """The elements of a binary BYTES tensor, as they were sent."""


def input_tensor(members: LazyJSON, ports: Ports, settings: Settings) -> InputTensor:
    """An input from its JSON, with the array if its data is there.

    Raises:
        InvalidInput: it breaks a rule of the protocol, or the artifact declares another datatype.
        LimitExceeded: it is beyond a limit.
    """
    entry = members.values("name", "datatype", "shape", "parameters")
    name = entry.get("name")
    if not isinstance(name, str):
        raise DatatypeError("inputs: every input needs a 'name'", "inputs")
    for _, message in ports.undeclared([name]):
        raise InvalidInput(f"unexpected inference input: {message}", name)
    datatype = entry.get("datatype")
    if datatype not in DATATYPES:
        raise DatatypeError(f"{name}: datatype {datatype!r} is not one of {', '.join(DATATYPES)}", name)
    allowed = ports.datatypes(name) if ports.is_tensor(name) else None
    if allowed is not None and datatype not in allowed:
        raise DatatypeError(datatype_refusal(dtype_of(datatype), name, allowed), name)
    shape = _shape(entry.get("shape"), name)
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise DatatypeError("parameters: an object is needed", "parameters")
    if "shared_memory_region" in parameters:
        raise InvalidInput(f"{name}: shared memory is not offered", name)
    count = math.prod(shape)
    itemsize = dtype_of(datatype).itemsize
    size = parameters.get("binary_data_size")
    if (size is None) == ("data" not in members.spans):
        raise InvalidInput(f"{name}: Input must set only one of the following fields: 'data', 'binary_data_size'", name)
    if size is None:
        text = members.text("data")
        # An element takes at least one byte, so a shape with more elements is wrong, not too large.
        if count > len(text):
            raise ShapeError(f"{name}: the shape asks for {count} elements, more than the data can hold", name)
        check_size(name, shape, itemsize, settings.max_elements)
        return InputTensor(name, datatype, shape, _json_array(text, name, datatype, shape, settings))
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise DatatypeError(f"{name}: binary_data_size must be a whole number from 0 up", name)
    if datatype != "BYTES" and size != count * itemsize:
        raise ShapeError(f"{name}: unexpected size {size}, {count * itemsize} bytes are needed", name)
    if datatype == "BYTES" and size < 4 * count:
        raise ShapeError(f"{name}: unexpected size {size} for {count} elements of BYTES", name)
    check_size(name, shape, itemsize, settings.max_elements)
    return InputTensor(name, datatype, shape, None, size)


def raw_tensor(ports: Ports, size: int) -> InputTensor:
    """The artifact's one tensor, for a body of ``size`` bytes that is only its data.

    Raises:
        InvalidInput: the artifact needs more than one input, or the size does not determine the shape.
    """
    needed = [name for name in ports.required if name in ports.inputs]
    if len(needed) != 1 or not ports.is_tensor(needed[0]):
        raise InvalidInput("raw binary requests need a model with exactly one tensor that is required")
    name = needed[0]
    declared = ports.inputs[name]["x-tensor"].get("shape") or [-1]
    variable = [index for index, axis in enumerate(declared) if not isinstance(axis, int) or axis < 0]
    if len(variable) > 1 or "..." in declared:
        raise InvalidInput("raw binary requests need a model whose tensor has at most one variable axis")
    datatype = (ports.datatypes(name) or ("FP32",))[0]
    if datatype == "BYTES":
        return InputTensor(name, datatype, (1,), None, size)
    fixed = math.prod(axis for axis in declared if isinstance(axis, int) and axis >= 0)
    width = dtype_of(datatype).itemsize * fixed
    if width == 0 or size % width or (not variable and size != width):
        raise ShapeError(f"{name}: {size} bytes do not fill {declared} of {datatype}", name)
    shape = tuple(size // width if index in variable else int(axis) for index, axis in enumerate(declared))
    return InputTensor(name, datatype, shape, None, size)


def _shape(shape: Any, name: str) -> tuple[int, ...]:
    if not isinstance(shape, list) or len(shape) > 32:
        raise ShapeError(f"{name}: 'shape' must be a list of at most 32 whole numbers", name)
    for axis in shape:
        if isinstance(axis, bool) or not isinstance(axis, int) or not 0 <= axis < 1 << 63:
            raise ShapeError(f"{name}: 'shape' must be a list of whole numbers from 0 to 2^63 - 1", name)
    return tuple(shape)


def _json_array(
    text: memoryview, name: str, datatype: str, shape: tuple[int, ...], settings: Settings
) -> npt.NDArray[Any]:
    if bytes(text[:1]) != b"[":
        raise DatatypeError(f"{name}: 'data' must be a list", name)
    if datatype != "BYTES":
        try:
            return read_tensor(text, datatype, shape, max_depth=settings.max_depth, max_elements=settings.max_elements)
        except InvalidInput as error:
            raise type(error)(f"{name}: {error.message}", name) from None
    return bytes_array(_texts(read_document(text, settings), shape, name), shape, name)


def _texts(data: list[Any], shape: tuple[int, ...], name: str) -> list[bytes]:
    """The elements of BYTES in JSON: a flat list, or nested lists as the shape says."""
    if any(isinstance(item, list) for item in data):
        items: list[Any] = [data]
        for length in shape:
            if not all(isinstance(item, list) and len(item) == length for item in items):
                raise ShapeError(f"{name}: 'data' must be a flat list, or nested as the shape says", name)
            items = [element for item in items for element in item]
        data = items
    _check_count(len(data), shape, name)
    if not all(isinstance(item, str) for item in data):
        raise DatatypeError(f"{name}: BYTES must be given as text", name)
    return [item.encode() for item in data]


def read_bytes_elements(data: bytes, name: str) -> list[bytes]:
    """The elements of binary BYTES: each a little-endian 32-bit length and that many bytes."""
    elements = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        end = at + 4 + length
        if at + 4 > len(data) or end > len(data):
            raise ShapeError(f"{name}: the lengths of its BYTES do not add up", name)
        elements.append(data[at + 4 : end])
        at = end
    return elements


def bytes_array(elements: list[bytes], shape: tuple[int, ...], name: str) -> npt.NDArray[Any]:
    """Elements of BYTES as an array of objects; raises ShapeError if there are more or fewer than the shape says."""
    _check_count(len(elements), shape, name)
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)


def _check_count(count: int, shape: tuple[int, ...], name: str) -> None:
    if count != math.prod(shape):
        raise ShapeError(f"{name}: {count} elements were given, the shape asks for {math.prod(shape)}", name)
