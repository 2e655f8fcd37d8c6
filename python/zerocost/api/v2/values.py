"""Converts between the tensors of the Open Inference Protocol and the inputs and outputs of an artifact.

A declared tensor stays one. A number, a boolean or a text is a tensor of one element; numbers and booleans may also be
request parameters. Any other JSON value is BYTES [1] with UTF-8 JSON. A list of arrays is sent as ``name.0``,
``name.1``, ….
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from zerocost._kernels import read_json, write_json
from zerocost.api.v2.body import InferenceRequest, RequestedOutput
from zerocost.api.v2.inputs import bytes_array
from zerocost.core.datatypes import datatype_of
from zerocost.core.ports import Ports, closest
from zerocost.core.safetensors import numbered
from zerocost.errors import DatatypeError, InvalidInput

__all__ = ["inputs_of", "metadata_tensors", "write_outputs"]

_SCALARS = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "string": "BYTES"}


def metadata_tensors(ports: Ports) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The inputs and the outputs, as model metadata lists them."""
    inputs = [
        _metadata_tensor(name, subschema) for name, subschema in ports.inputs.items() if name not in ports.in_process
    ]
    return inputs, [_metadata_tensor(name, subschema) for name, subschema in (ports.outputs or {}).items()]


def _metadata_tensor(name: str, subschema: Any) -> dict[str, Any]:
    tensor = subschema.get("x-tensor") if isinstance(subschema, dict) else None
    if tensor is None:
        return {"name": name, "datatype": _SCALARS.get(_kind(subschema), "BYTES"), "shape": [1]}
    datatypes = tensor.get("datatypes") or ["FP32"]
    datatype = "FP32" if "FP32" in datatypes else datatypes[0]
    shape = [axis if isinstance(axis, int) else -1 for axis in tensor.get("shape") or ["..."]]
    return {"name": name, "datatype": datatype, "shape": shape}


def _kind(subschema: Any) -> str:
    kind = subschema.get("type") if isinstance(subschema, dict) else None
    if kind is None and isinstance(subschema, dict):
        values = [*subschema.get("enum", ()), *([subschema["const"]] if "const" in subschema else ())]
        if values and all(isinstance(value, str) for value in values):
            return "string"
    return kind if isinstance(kind, str) else ""


def inputs_of(request: InferenceRequest, ports: Ports) -> dict[str, Any]:
    """The inputs of the artifact.

    Raises:
        InvalidInput: BYTES that are not the text or JSON of a single value, or an input that is given twice.
    """
    inputs: dict[str, Any] = {}
    for tensor in request.tensors:
        array = tensor.array
        if array is None:
            raise DatatypeError(f"{tensor.name}: there is no data", tensor.name)
        is_tensor = ports.is_tensor(tensor.name) or tensor.name not in ports.inputs
        if is_tensor and not (tensor.datatype == "BYTES" and tensor.name not in ports.inputs):
            inputs[tensor.name] = array
        else:
            inputs[tensor.name] = _plain(tensor.name, array, ports.inputs.get(tensor.name, {}))
    for name, value in request.parameters.items():
        if name in inputs:
            raise InvalidInput(f"{name}: given as an input and as a parameter", name)
        inputs[name] = value
    return inputs


def _plain(name: str, array: npt.NDArray[Any], subschema: dict[str, Any]) -> Any:
    if array.dtype.kind == "O":
        if array.size != 1:
            return [_text(name, item) for item in array.ravel()]
        text = _text(name, array.ravel()[0])
        return text if _kind(subschema) == "string" else _json(name, text)
    if not subschema.keys() - {"description", "title"}:
        return array  # the schema allows anything
    return array.item() if array.size == 1 and _kind(subschema) != "array" else array.tolist()


def _text(name: str, item: bytes) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError:
        raise DatatypeError(f"{name}: the BYTES are not UTF-8", name) from None


def _json(name: str, text: str) -> Any:
    try:
        return read_json(text.encode())
    except ValueError as error:
        raise InvalidInput(f"{name}: the BYTES are not JSON ({error})", name) from None


def write_outputs(
    outputs: dict[str, Any], request: InferenceRequest, model: str, version: str
) -> tuple[bytes, list[memoryview]]:
    """The JSON of the response, and the binary data that follows it.

    Raises:
        InvalidInput: the client asked for an output that does not exist.
    """
    tensors: dict[str, npt.NDArray[Any]] = {}
    groups: dict[str, list[str]] = {}
    for name, value in outputs.items():
        is_list = isinstance(value, list | tuple) and value and all(isinstance(item, np.ndarray) for item in value)
        parts = numbered(name, value) if is_list else {name: value}
        groups[name] = list(parts)
        for part, item in parts.items():
            tensors[part] = _tensor(item)
    wanted: list[RequestedOutput] = []
    for output in request.outputs:
        if output.name in tensors:
            wanted.append(output)
        elif output.name in groups:
            wanted += [RequestedOutput(part, output.binary) for part in groups[output.name]]
        else:
            raise InvalidInput(f"outputs: unexpected output {output.name!r}; {closest(output.name, tensors)}")
    described = []
    blocks: list[memoryview] = []
    for output in wanted or [RequestedOutput(name, None) for name in tensors]:
        array = tensors[output.name]
        header = {"name": output.name, "datatype": datatype_of(array.dtype), "shape": list(array.shape)}
        if request.binary_output if output.binary is None else output.binary:
            block = _binary(array)
            blocks.append(block)
            described.append(orjson.dumps({**header, "parameters": {"binary_data_size": len(block)}}))
        else:
            described.append(b'%s,"data":%s}' % (orjson.dumps(header)[:-1], _json_data(array)))
    head = {**({} if request.id is None else {"id": request.id}), "model_name": model, "model_version": version}
    return b'%s,"outputs":[%s]}' % (orjson.dumps(head)[:-1], b",".join(described)), blocks


def _tensor(value: Any) -> npt.NDArray[Any]:
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        datatype = datatype_of(array.dtype)
        if datatype is not None and datatype != "BYTES":
            return array
        if array.dtype.kind in "OS" and all(isinstance(item, bytes) for item in array.ravel()):
            return array.astype(object)
        value = array.tolist()
    if isinstance(value, bool):
        return np.array([value])
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return np.array([value], dtype=np.int64)
    if isinstance(value, float):
        return np.array([value], dtype=np.float64)
    return bytes_array([value.encode() if isinstance(value, str) else write_json(value)], (1,), "")


def _binary(array: npt.NDArray[Any]) -> memoryview:
    if array.dtype.kind == "O":
        pieces = [len(item).to_bytes(4, "little") + item for item in array.ravel()]
        return memoryview(b"".join(pieces))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _json_data(array: npt.NDArray[Any]) -> bytes:
    if array.dtype.kind == "O":
        return orjson.dumps([item.decode(errors="replace") for item in array.ravel()])
    return write_json(array.reshape(-1))
