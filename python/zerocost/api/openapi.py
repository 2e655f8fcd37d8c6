"""The API's description, OpenAPI 3.1: one operation for each artifact, made from the artifact's own schema."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import orjson

from zerocost._kernels import __version__, write_json
from zerocost.api.settings import Settings
from zerocost.core.artifact_registry import ArtifactRegistry, ArtifactSpec
from zerocost.core.artifact_validation import ArtifactValidator
from zerocost.core.ports import Ports
from zerocost.errors import ZerocostError

__all__ = ["describe"]

_PROBLEMS = {
    "400": "The request is malformed.",
    "401": "A token is needed.",
    "403": "The caller may not do this.",
    "404": "There is nothing of that name.",
    "405": "Another method is needed.",
    "408": "The body did not arrive in time.",
    "413": "The input or the output is beyond a limit.",
    "415": "The media type or the encoding is not known.",
    "422": "The input breaks the artifact's schema.",
    "429": "The server has too much to do; Retry-After says when to come back.",
    "503": "The server does not take requests.",
    "504": "The deadline passed.",
}

_NUMBER: dict[str, Any] = {
    "anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}, {"type": "boolean"}]
}


def describe(registry: ArtifactRegistry, settings: Settings) -> dict[str, Any]:
    """The OpenAPI document of a server for ``registry``."""
    paths: dict[str, Any] = {
        "/livez": _get("Whether the process answers.", {"type": "object"}),
        "/readyz": _get("Whether new requests should be sent here.", {"type": "object"}, "503"),
        "/artifacts": _get("Every artifact.", {"type": "object", "required": ["artifacts"]}),
        "/chains/plan": _post(
            "plan_chain", "The wiring of a chain, without running it.", {"$ref": "#/components/schemas/Chain"},
            {"type": "object"}, "404",
        ),
        "/chains/execute": _post(
            "execute_chain", "Runs a chain.", {"$ref": "#/components/schemas/Chain"},
            {"$ref": "#/components/schemas/Success"}, "404",
        ),
    }  # fmt: skip
    for spec in registry.list_artifacts():
        what = _first_line(spec)
        path = f"/artifacts/{spec.name}"
        paths[path] = _get(f"{what} The artifact and its schema.", {"type": "object", "required": ["name", "schema"]})
        paths[f"{path}/schema"] = _get(f"The schema of {spec.name}.", {"type": "object", "required": ["schema"]})
        paths[f"{path}/execute"] = _post(
            f"execute_{spec.name}", what, _inputs(spec.ports), {"$ref": "#/components/schemas/Success"}
        )
        example = _example(spec)
        if example is not None:
            content = paths[f"{path}/execute"]["post"]["requestBody"]["content"]["application/json"]
            content["example"] = example
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "zerocost",
            "version": __version__,
            "description": "Artifacts and chains over HTTP. The Open Inference Protocol is under /v2.",
        },
        "paths": paths,
        "components": {"schemas": _schemas()},
    }
    if settings.has_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _get(summary: str, schema: dict[str, Any], *statuses: str) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": _responses(schema, "401", "403", *statuses)}}


def _post(
    operation: str, summary: str, inputs: dict[str, Any], schema: dict[str, Any], *statuses: str
) -> dict[str, Any]:
    return {
        "post": {
            "operationId": operation,
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": inputs}}},
            "responses": _responses(
                schema, "400", "401", "403", "408", "413", "415", "422", "429", "503", "504", *statuses
            ),
        }
    }


def _responses(schema: dict[str, Any], *statuses: str) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "200": {"description": "Done.", "content": {"application/json": {"schema": schema}}},
        **{status: {"description": _PROBLEMS[status], "content": problem} for status in sorted(set(statuses))},
    }


def _first_line(spec: ArtifactSpec) -> str:
    return spec.implementation.get_description().strip().splitlines()[0]


def _inputs(ports: Ports) -> dict[str, Any]:
    """The published schema with tensors as JSON carries them; examples of arrays are at the operation."""
    schema = copy.deepcopy({key: value for key, value in ports.published.items() if not key.startswith("x-")})
    schema.pop("examples", None)
    for name, subschema in schema.get("properties", {}).items():
        if not ports.is_tensor(name):
            continue
        tensor = subschema.pop("x-tensor")
        subschema.pop("default", None)
        datatypes = ", ".join(tensor.get("datatypes") or ["any datatype"])
        shape = ", ".join(map(str, tensor.get("shape") or ["..."]))
        subschema["description"] = f"{subschema.get('description', '')} [{shape}] of {datatypes}".strip()
        subschema["anyOf"] = [
            {"$ref": "#/components/schemas/NestedList"},
            {"$ref": "#/components/schemas/TypedTensor"},
            *([{"type": "null"}] if name not in ports.required else []),
        ]
    return schema


def _example(spec: ArtifactSpec) -> Any:
    try:
        generated = ArtifactValidator().generate_test_input(spec.ports.schema)
        small = {key: np.round(value, 2) if _is_floating(value) else value for key, value in generated.items()}
        return orjson.loads(write_json(small))
    except (ZerocostError, TypeError):
        return None  # a schema that no input can be made from, or an example that is no JSON


def _is_floating(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _schemas() -> dict[str, Any]:
    nested: list[dict[str, Any]] = [_NUMBER, {"$ref": "#/components/schemas/NestedList"}]
    text = {"type": "string"}
    return {
        "NestedList": {
            "description": "Nested lists of numbers of one length on each level; they become float64.",
            "type": "array",
            "items": {"anyOf": nested},
        },
        "TypedTensor": {
            "type": "object",
            "properties": {
                "dtype": {"description": "FP32, INT64, … or float32, int64, …", **text},
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                "data": {"$ref": "#/components/schemas/NestedList"},
            },
            "required": ["dtype", "shape", "data"],
            "additionalProperties": False,
        },
        "Success": {
            "type": "object",
            "properties": {"status": {"const": "success"}, "data": {"type": "object"}, "trace": {"type": "array"}},
            "required": ["status", "data"],
        },
        "Chain": {
            "type": "object",
            "properties": {
                "pipeline": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "properties": {
                            "artifact": text,
                            "params": {"type": "object"},
                            "inputs": {"type": "object", "additionalProperties": text},
                            "id": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
                            "after": {"type": "array", "items": text},
                            "each": {"type": ["string", "boolean"]},
                        },
                        "required": ["artifact"],
                        "additionalProperties": False,
                    },
                },
                "initial_input": {"type": "object"},
                "initial_input_names": {"type": "array", "items": text},
                "trace": {"type": "boolean"},
            },
            "required": ["pipeline"],
            "additionalProperties": False,
        },
        "Problem": {
            "description": "RFC 9457",
            "type": "object",
            "properties": {
                "type": text,
                "title": text,
                "status": {"type": "integer"},
                "detail": text,
                "error": text,
                "code": text,
                "request_id": text,
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"pointer": text, "message": text},
                        "required": ["pointer", "message"],
                    },
                },
            },
            "required": ["title", "status", "detail", "error", "code", "request_id"],
        },
    }
