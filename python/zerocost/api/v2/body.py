"""The body of an Open Inference request: JSON, JSON followed by binary tensors, or one raw tensor.

Binary tensors are read as they arrive, into the arrays that the artifact gets. A request whose JSON is wrong is refused
before its binary data arrives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost._kernels import read_tensor
from zerocost.api.settings import Settings
from zerocost.api.wire.body import BodyStream
from zerocost.api.wire.json import LazyJSON
from zerocost.core.arrays import DATATYPES, check_size, datatype_refusal, dtype_of
from zerocost.core.ports import Ports, closest
from zerocost.core.safetensors import aligned_empty
from zerocost.errors import DatatypeError, InvalidInput, LimitExceeded, MissingInput, RangeError, ShapeError

__all__ = ["InferenceRequest", "InputTensor", "RequestedOutput", "bytes_array", "read_bytes_elements"]

_RESERVED = ("sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "binary_data_output", "headers")


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


@dataclass
class RequestedOutput:
    """An output that the client asks for, and whether as binary data (None: as the request says for all)."""

    name: str
    binary: bool | None


@dataclass
class InferenceRequest:
    """A request, checked against the protocol and the declared tensors, not against the rest of the schema."""

    id: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    tensors: list[InputTensor] = field(default_factory=list)
    outputs: list[RequestedOutput] = field(default_factory=list)
    binary_output: bool = False
    is_raw: bool = False
    """Whether the body is only the data of one tensor."""
    timeout: float | None = None
    """Seconds."""

    @classmethod
    def from_json(cls, text: bytes | bytearray | memoryview, ports: Ports, settings: Settings) -> InferenceRequest:
        """Reads the JSON part.

        Raises:
            MalformedJSON: it is not JSON.
            InvalidInput: it breaks a rule of the protocol, or the artifact declares other datatypes.
            LimitExceeded: it is beyond a limit.
        """
        members = LazyJSON(text, settings, "the request", dict)
        request = cls()
        if "id" in members.spans:
            request.id = members.value("id")
            if not isinstance(request.id, str):
                raise DatatypeError("id: text is needed", "id")
        request._read_parameters(_object(members, "parameters"))
        if "inputs" not in members.spans:
            raise MissingInput("inputs required", "inputs")
        inputs = LazyJSON(members.text("inputs"), settings, "inputs", list)
        if not inputs.spans:
            raise MissingInput("inputs: at least one tensor is needed", "inputs")
        if len(inputs.spans) > settings.max_parts:
            raise LimitExceeded(f"inputs: at most {settings.max_parts} tensors are allowed", "inputs")
        names = set()
        for index in range(len(inputs.spans)):
            tensor = _tensor(LazyJSON(inputs.text(index), settings, f"inputs/{index}", dict), ports, settings)
            if tensor.name in names:
                raise InvalidInput(f"inputs: {tensor.name!r} is there twice", tensor.name)
            names.add(tensor.name)
            request.tensors.append(tensor)
        if "outputs" in members.spans:
            request._read_outputs(members.value("outputs"), ports, settings.max_parts)
        return request

    @classmethod
    def raw(cls, ports: Ports, size: int) -> InferenceRequest:
        """The request of a body of ``size`` bytes that is only the data of the artifact's one tensor.

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
            return cls(tensors=[InputTensor(name, datatype, (1,), None, size)], binary_output=True, is_raw=True)
        fixed = math.prod(axis for axis in declared if isinstance(axis, int) and axis >= 0)
        width = dtype_of(datatype).itemsize * fixed
        if width == 0 or size % width or (not variable and size != width):
            raise ShapeError(f"{name}: {size} bytes do not fill {declared} of {datatype}", name)
        shape = tuple(size // width if index in variable else int(axis) for index, axis in enumerate(declared))
        return cls(tensors=[InputTensor(name, datatype, shape, None, size)], binary_output=True, is_raw=True)

    @property
    def binary_size(self) -> int:
        """How many bytes must follow the JSON."""
        return sum(tensor.binary_size or 0 for tensor in self.tensors)

    async def read_binary(self, stream: BodyStream) -> None:
        """Reads every binary tensor into an array of its own; BYTES are kept as they are until :meth:`decode_bytes`.

        Raises:
            InvalidInput: the body is shorter or longer than announced.
        """
        for tensor in self.tensors:
            if tensor.binary_size is None:
                continue
            if tensor.datatype == "BYTES":
                data = await stream.read(tensor.binary_size)
                if data is None:
                    raise ShapeError(f"{tensor.name}: unexpected size, the body ends early", tensor.name)
                tensor.data = data
                continue
            tensor.array = aligned_empty(tensor.shape, dtype_of(tensor.datatype))
            if tensor.binary_size:
                target = tensor.array.reshape(-1).view(np.uint8).data
                if not await stream.read_into(target):
                    raise ShapeError(f"{tensor.name}: unexpected size, the body ends early", tensor.name)
        if not await stream.is_at_end():
            raise ShapeError("unexpected additional input data after the last tensor")

    def decode_bytes(self) -> None:
        """Splits binary BYTES into their elements, which takes a while if there are many."""
        for tensor in self.tensors:
            if tensor.data is not None:
                elements = [tensor.data] if self.is_raw else read_bytes_elements(tensor.data, tensor.name)
                tensor.array = bytes_array(elements, tensor.shape, tensor.name)
                tensor.data = None

    def _read_parameters(self, parameters: dict[str, Any]) -> None:
        for name, value in parameters.items():
            if name.startswith("triton_"):
                raise InvalidInput(f"parameters: {name!r}: names that start with 'triton_' are reserved", name)
            if not isinstance(value, str | bool | int | float):
                raise DatatypeError(f"parameters: {name}: text, a number or a boolean is needed", name)
        for name in ("timeout", "priority"):
            value = parameters.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
                raise RangeError(f"parameters: {name}: a whole number from 0 to 2^64 - 1 is needed", name)
        binary = parameters.get("binary_data_output", False)
        if not isinstance(binary, bool):
            raise DatatypeError("parameters: binary_data_output: true or false is needed", "binary_data_output")
        self.binary_output = binary
        self.timeout = parameters["timeout"] / 1e6 if parameters.get("timeout") else None
        self.parameters = {name: value for name, value in parameters.items() if name not in _RESERVED}

    def _read_outputs(self, outputs: Any, ports: Ports, max_parts: int) -> None:
        if not isinstance(outputs, list):
            raise DatatypeError("outputs: a list is needed", "outputs")
        if len(outputs) > max_parts:
            raise LimitExceeded(f"outputs: at most {max_parts} tensors are allowed", "outputs")
        names = set()
        for output in outputs:
            if not isinstance(output, dict) or not isinstance(output.get("name"), str):
                raise DatatypeError("outputs: objects with a 'name' are needed", "outputs")
            name = output["name"]
            parameters = output.get("parameters", {})
            if not isinstance(parameters, dict):
                raise DatatypeError(f"outputs: {name}: parameters must be an object", "outputs")
            if parameters.get("classification"):
                raise InvalidInput(f"outputs: {name}: classification is not offered", "outputs")
            if "shared_memory_region" in parameters:
                raise InvalidInput(f"outputs: {name}: shared memory is not offered", "outputs")
            binary = parameters.get("binary_data")
            if binary is not None and not isinstance(binary, bool):
                raise DatatypeError(f"outputs: {name}: binary_data must be true or false", "outputs")
            if name in names:
                raise InvalidInput(f"outputs: {name!r} is there twice", "outputs")
            names.add(name)
            declared = ports.outputs
            if declared is not None and name not in declared and name.rpartition(".")[0] not in declared:
                raise InvalidInput(f"outputs: unexpected output {name!r}; {closest(name, declared)}", "outputs")
            self.outputs.append(RequestedOutput(name, binary))


def _object(members: LazyJSON, name: str) -> dict[str, Any]:
    value = members.value(name, {})
    if not isinstance(value, dict):
        raise DatatypeError(f"{name}: an object is needed", name)
    return value


def _tensor(members: LazyJSON, ports: Ports, settings: Settings) -> InputTensor:
    name = members.value("name")
    if not isinstance(name, str):
        raise DatatypeError("inputs: every input needs a 'name'", "inputs")
    for _, message in ports.undeclared([name]):
        raise InvalidInput(f"unexpected inference input: {message}", name)
    datatype = members.value("datatype")
    if datatype not in DATATYPES:
        raise DatatypeError(f"{name}: datatype {datatype!r} is not one of {', '.join(DATATYPES)}", name)
    allowed = ports.datatypes(name) if ports.is_tensor(name) else None
    if allowed is not None and datatype not in allowed:
        raise DatatypeError(datatype_refusal(dtype_of(datatype), name, allowed), name)
    shape = _shape(members, name)
    parameters = _object(members, "parameters")
    if "shared_memory_region" in parameters:
        raise InvalidInput(f"{name}: shared memory is not offered", name)
    count = math.prod(shape)
    itemsize = dtype_of(datatype).itemsize
    size = parameters.get("binary_data_size")
    if (size is None) == ("data" not in members.spans):
        raise InvalidInput(f"{name}: Input must set only one of the following fields: 'data', 'binary_data_size'", name)
    if size is None:
        # An element takes at least one byte, so a shape with more elements is wrong, not too large.
        if count > len(members.text("data")):
            raise ShapeError(f"{name}: the shape asks for {count} elements, which are not there", name)
        check_size(name, shape, itemsize, settings.max_elements)
        return InputTensor(name, datatype, shape, _json_array(members, name, datatype, shape, settings))
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise DatatypeError(f"{name}: binary_data_size must be a whole number from 0 up", name)
    if datatype != "BYTES" and size != count * itemsize:
        raise ShapeError(f"{name}: unexpected size {size}, {count * itemsize} bytes are needed", name)
    if datatype == "BYTES" and size < 4 * count:
        raise ShapeError(f"{name}: unexpected size {size} for {count} elements of BYTES", name)
    check_size(name, shape, itemsize, settings.max_elements)
    return InputTensor(name, datatype, shape, None, size)


def _shape(members: LazyJSON, name: str) -> tuple[int, ...]:
    shape = members.value("shape")
    if not isinstance(shape, list) or len(shape) > 32:
        raise ShapeError(f"{name}: 'shape' must be a list of at most 32 whole numbers", name)
    for axis in shape:
        if isinstance(axis, bool) or not isinstance(axis, int) or not 0 <= axis < 1 << 63:
            raise ShapeError(f"{name}: 'shape' must be a list of whole numbers from 0 to 2^63 - 1", name)
    return tuple(shape)


def _json_array(
    members: LazyJSON, name: str, datatype: str, shape: tuple[int, ...], settings: Settings
) -> npt.NDArray[Any]:
    if bytes(members.text("data")[:1]) != b"[":
        raise DatatypeError(f"{name}: 'data' must be a list", name)
    if datatype != "BYTES":
        try:
            return read_tensor(
                members.text("data"), datatype, shape, max_depth=settings.max_depth, max_elements=settings.max_elements
            )
        except InvalidInput as error:
            raise type(error)(f"{name}: {error.message}", name) from None
    return bytes_array(_texts(members.value("data"), shape, name), shape, name)


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
