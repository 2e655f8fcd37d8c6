"""The body of an Open Inference request: JSON, JSON followed by binary tensors, or one raw tensor.

Binary tensors are read as they arrive, into the arrays that the artifact gets. A request whose JSON is wrong is refused
before its binary data arrives.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zerocost.api.settings import Settings
from zerocost.api.v2.inputs import InputTensor, bytes_array, input_tensor, raw_tensor, read_bytes_elements
from zerocost.api.wire.body import BodyStream
from zerocost.api.wire.json import LazyJSON
from zerocost.api.wire.request import Request
from zerocost.api.wire.safetensors import Offload
from zerocost.core.datatypes import dtype_of
from zerocost.core.ports import Ports, closest
from zerocost.core.safetensors import aligned_empty
from zerocost.errors import DatatypeError, InvalidInput, LimitExceeded, MissingInput, RangeError, ShapeError

__all__ = ["InferenceRequest", "RequestedOutput", "read_binary_request"]

_RESERVED = ("sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "binary_data_output", "headers")


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
        head = members.values("id", "parameters", "outputs")
        request = cls(id=head.get("id"))
        if "id" in head and not isinstance(request.id, str):
            raise DatatypeError("id: text is needed", "id")
        request._read_parameters(head.get("parameters", {}))
        if "inputs" not in members.spans:
            raise MissingInput("inputs required", "inputs")
        inputs = LazyJSON(members.text("inputs"), settings, "inputs", list)
        if not inputs.spans:
            raise MissingInput("inputs: at least one tensor is needed", "inputs")
        if len(inputs.spans) > settings.max_parts:
            raise LimitExceeded(f"inputs: at most {settings.max_parts} tensors are allowed", "inputs")
        names = set()
        for index in range(len(inputs.spans)):
            tensor = input_tensor(LazyJSON(inputs.text(index), settings, f"inputs/{index}", dict), ports, settings)
            if tensor.name in names:
                raise InvalidInput(f"inputs: {tensor.name!r} is given twice", tensor.name)
            names.add(tensor.name)
            request.tensors.append(tensor)
        if "outputs" in head:
            request._read_outputs(head["outputs"], ports, settings.max_parts)
        return request

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

    def _read_parameters(self, parameters: Any) -> None:
        if not isinstance(parameters, dict):
            raise DatatypeError("parameters: an object is needed", "parameters")
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
                raise InvalidInput(f"outputs: {name!r} is given twice", "outputs")
            names.add(name)
            declared = ports.outputs
            if declared is not None and name not in declared and name.rpartition(".")[0] not in declared:
                raise InvalidInput(f"outputs: unexpected output {name!r}; {closest(name, declared)}", "outputs")
            self.outputs.append(RequestedOutput(name, binary))


async def read_binary_request(
    request: Request, length: int, ports: Ports, settings: Settings, offload: Offload
) -> InferenceRequest:
    """A request whose first ``length`` bytes are its JSON, and the rest its tensors; 0: all of it is one raw tensor.

    Raises:
        MalformedJSON, InvalidInput, LimitExceeded: as :meth:`InferenceRequest.from_json`; the lengths do not add up.
        HTTPError: the body is too large, or damaged.
    """
    stream = BodyStream(request, settings)
    if stream.length is not None and length > stream.length:
        raise ShapeError("Inference-Header-Content-Length is larger than the body")
    if length > settings.max_body:
        raise ShapeError("Inference-Header-Content-Length is larger than a body may be")
    if length == 0:
        size = stream.length
        if size is None:
            # Chunked or compressed: the size, which determines the shape, is only known at the end.
            data = await stream.rest()
            size, stream = len(data), BodyStream.of(data, settings)
        inference = InferenceRequest(tensors=[raw_tensor(ports, size)], binary_output=True, is_raw=True)
    else:
        text = await stream.read(length)
        if text is None:
            raise ShapeError("Inference-Header-Content-Length is larger than the body")
        inference = await offload(length, lambda: InferenceRequest.from_json(text, ports, settings))
        size = length + inference.binary_size
        if stream.length is not None and stream.length != size:
            raise ShapeError(f"unexpected size: the body has {stream.length} bytes, its JSON announces {size}")
        if size > settings.max_body:
            raise ShapeError(f"unexpected size: the JSON announces {size} bytes")
    await inference.read_binary(stream)
    return inference
