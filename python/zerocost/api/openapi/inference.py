"""The Open Inference Protocol: the routes that its clients call, with one operation for each model."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import orjson

from zerocost._kernels import write_json
from zerocost.api.openapi.artifacts import example_of, first_line
from zerocost.api.openapi.parts import LIVE, READY, TEXT, Schema, get, list_of, object_of, post
from zerocost.api.v2.values import metadata_tensors
from zerocost.core.artifact_registry import ArtifactRegistry, ArtifactSpec
from zerocost.core.artifact_validation import ArtifactValidator
from zerocost.core.datatypes import DATATYPES, datatype_of
from zerocost.errors import ZerocostError

__all__ = ["paths"]

_TENSOR: Schema = object_of(["name", "datatype", "shape"], name=TEXT, datatype=TEXT, shape=list_of({"type": "integer"}))
_RESPONSE: Schema = object_of(
    ["model_name", "outputs"],
    id=TEXT,
    model_name=TEXT,
    model_version=TEXT,
    outputs=list_of({**_TENSOR, "properties": {**_TENSOR["properties"], "data": {"type": "array"}}}),
)


_get = partial(get, error="InferenceError")


def paths(registry: ArtifactRegistry) -> dict[str, Any]:
    """The paths under ``/v2``."""
    server: Schema = object_of(["name", "version", "extensions"], name=TEXT, version=TEXT, extensions=list_of(TEXT))
    statistics: Schema = object_of(["model_stats"], model_stats=list_of({"type": "object"}))
    described: dict[str, Any] = {
        "/v2": _get("v2_server", "Server metadata.", server),
        "/v2/health/live": _get("v2_live", "Whether the server is alive.", LIVE),
        "/v2/health/ready": _get("v2_ready", "Whether the server accepts requests.", READY, "503"),
        "/v2/models/stats": _get("v2_statistics", "How often each model was used, and how long it took.", statistics),
    }
    index = list_of({"type": "object", "required": ["name", "state"]})
    asked: Schema = object_of([], ready={"type": "boolean"})
    described["/v2/repository/index"] = _post("v2_index", "Every model with its state.", asked, index, {"ready": True})
    for spec in registry.list_artifacts():
        name, path = spec.name, f"/v2/models/{spec.name}"
        tensors: Schema = list_of(_TENSOR)
        model: Schema = object_of(
            ["name", "platform", "inputs", "outputs"], name={"const": name}, inputs=tensors, outputs=tensors
        )
        config: Schema = {"type": "object", "required": ["name", "input", "output"]}
        described[path] = _get(f"v2_model_{name}", f"{name} as a model.", model)
        described[f"{path}/ready"] = _get(f"v2_ready_{name}", f"Whether {name} accepts requests.", READY, "503")
        described[f"{path}/config"] = _get(f"v2_config_{name}", f"The configuration of {name}.", config)
        described[f"{path}/stats"] = _get(f"v2_statistics_{name}", f"How often {name} was used.", statistics)
        described[f"{path}/infer"] = _post(
            f"v2_infer_{name}", first_line(spec), _request(spec), _RESPONSE, _example(spec)
        )
    return described


def _post(operation: str, summary: str, inputs: Schema, answer: Schema, example: Any) -> dict[str, Any]:
    described = post(operation, summary, inputs, answer, example=example, error="InferenceError")
    # An invalid input is a 400 here, and the body is JSON whatever the Content-Type says.
    del described["post"]["responses"]["422"]
    if operation == "v2_index":
        described["post"]["requestBody"]["required"] = False
    return described


def _request(spec: ArtifactSpec) -> Schema:
    inputs, outputs = metadata_tensors(spec.ports)
    names = [tensor["name"] for tensor in inputs]
    name: Schema = {"enum": names} if names and not spec.ports.is_open else TEXT
    scalars: Schema = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
    tensor: Schema = object_of(
        ["name", "datatype", "shape"],
        name=name,
        datatype={"enum": list(DATATYPES)},
        shape=list_of({"type": "integer", "minimum": 0}),
        data={"type": "array"},
        parameters={"type": "object"},
    )
    output: Schema = object_of(["name"], name=TEXT)
    described = object_of(
        ["inputs"],
        id=TEXT,
        parameters=scalars,
        inputs={"type": "array", "minItems": 1, "items": tensor},
        outputs=list_of(output),
    )
    return {**described, "description": f"Outputs: {', '.join(tensor['name'] for tensor in outputs)}."}


def _example(spec: ArtifactSpec) -> Any:
    """The artifact's example as tensors; other values are parameters, or JSON in BYTES."""
    example = example_of(spec) or _one_input(spec)
    inputs, parameters = [], {}
    for name, value in example.items():
        datatype = datatype_of(value.dtype) if isinstance(value, np.ndarray) else None
        if isinstance(value, np.ndarray) and datatype not in (None, "FP16", "BF16"):
            data = orjson.loads(write_json(value.reshape(-1)))
            inputs.append({"name": name, "datatype": datatype, "shape": list(value.shape), "data": data})
        elif isinstance(value, str | bool | int | float) and len(inputs):
            parameters[name] = value
        else:
            text = value if isinstance(value, str) else write_json(value).decode()
            inputs.append({"name": name, "datatype": "BYTES", "shape": [1], "data": [text]})
    if not inputs:
        return None
    return {"inputs": inputs, **({"parameters": parameters} if parameters else {})}


def _one_input(spec: ArtifactSpec) -> dict[str, Any]:
    """A value for the first input, where none is required: a request must have at least one."""
    for name in spec.ports.inputs:
        try:
            return ArtifactValidator().generate_test_input({**spec.ports.schema, "required": [name]})
        except ZerocostError:
            continue
    return {}
