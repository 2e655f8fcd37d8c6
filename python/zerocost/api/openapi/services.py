"""The services, and the raw entries of the memory service."""

from __future__ import annotations

from typing import Any

from zerocost.api.openapi.parts import TEXT, Schema, data_of, get, post, reference, responses
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.services.active_artifacts import ARTIFACT_NAME
from zerocost.services.endpoints import Endpoint
from zerocost.services.memory_service import ENTRY_TYPES, MemoryService
from zerocost.services.model_service import SimplifiedModelService
from zerocost.services.service import Service
from zerocost.services.tokenizer_service import TokenizerService

__all__ = ["paths"]

_KEY = "key of the documentation"
_TENSOR = reference("Tensor")
_ENCODING: Schema = {
    "type": "object",
    "properties": {
        "input_ids": {"type": "array", "items": {"type": "integer"}},
        "tokens": {"type": "integer"},
        "truncated": {"type": "boolean"},
    },
    "required": ["input_ids", "tokens", "truncated"],
}
_MODEL_OUTPUT: Schema = {
    "type": "object",
    "properties": {
        "model": TEXT,
        "trained": {"type": "boolean"},
        "last_hidden_state": {},
        "pooled": _TENSOR,
        "attentions": {},
        "timings": {"type": "object", "additionalProperties": {"type": "number"}},
        "usage": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
    "required": ["model", "trained", "last_hidden_state", "pooled", "timings", "usage"],
}
_BOOLEAN: Schema = {"type": "boolean"}
_ARTIFACT_IN_USE: Schema = {
    "type": "object",
    "properties": {"artifact": ARTIFACT_NAME, "params": {"type": "object"}},
    "required": ["artifact", "params"],
    "additionalProperties": False,
}
_WINDOW = "sliding_window_attention"

_EXAMPLES_AND_ANSWERS: dict[str, tuple[Any, Schema]] = {
    "model/forward": ({"input_ids": [1, 70, 2]}, _MODEL_OUTPUT),
    "model/embed": ({"texts": ["a window costs what the window costs"]}, _TENSOR),
    "tokenizer/encode": (
        {"texts": ["attention", "a longer text"], "max_tokens": 16},
        {"anyOf": [_ENCODING, {"type": "array", "items": _ENCODING}]},
    ),
    "tokenizer/decode": ({"input_ids": [1, 70, 2]}, TEXT),
    "tokenizer/count": (
        {"texts": "attention"},
        {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]},
    ),
    "memory/get": ({"key": _KEY}, {}),
    "memory/put": ({"key": _KEY, "value": {"any": "JSON"}, "ttl": 60}, _BOOLEAN),
    "memory/delete": ({"key": _KEY}, _BOOLEAN),
    "memory/clear": ({}, _BOOLEAN),
    "memory/stats": ({}, {"type": "object"}),
}
"""An example of each method's fields, and the schema of its output."""


def paths(registry: ArtifactRegistry) -> dict[str, Any]:
    """The paths under ``/services``."""
    names = [spec.name for spec in registry.list_artifacts()]
    kinds: dict[str, type[Service]] = {"model": SimplifiedModelService, "tokenizer": TokenizerService}
    if "lru_cache" in names:
        kinds["memory"] = MemoryService
    found = {
        f"/services/{service}/{endpoint.name}": _operation(service, kind, endpoint, names)
        for service, kind in kinds.items()
        for endpoint in kind.endpoints().values()
    }
    return {**found, **({"/services/memory/entries/{key}": _entries()} if "memory" in kinds else {})}


def _operation(service: str, kind: type[Service], endpoint: Endpoint, names: list[str]) -> dict[str, Any]:
    """A method of a service: fields and summary from its signature and docstring."""
    inputs = _with_names({key: value for key, value in endpoint.schema.items() if key != "$schema"}, names)
    fields = inputs["properties"]
    if "interface" in fields:
        fields["interface"] = {"enum": list(kind.interfaces)}
    path, summary = f"{service}/{endpoint.name}", endpoint.summary(kind)
    used = _WINDOW if service == "model" else "lru_cache"
    example: Any
    if path in _EXAMPLES_AND_ANSWERS:
        example, answer = _EXAMPLES_AND_ANSWERS[path]
        if "artifacts" in fields and _WINDOW in names:
            example = {**example, "artifacts": {"attention": {"artifact": _WINDOW, "params": {"window_size": 9}}}}
    else:
        answer = {"type": "object", "additionalProperties": _with_names(_ARTIFACT_IN_USE, names)}
        example = {"interface": kind.interfaces[0]} if "interface" in fields else {}
        if "artifact_name" in fields:
            example = {"artifact_name": used, **({"params": {"window_size": 9}} if used == _WINDOW else {})}
            example = example if used in names else None
    statuses = ["404"]  # an artifact may be unknown
    if endpoint.is_administrative:
        summary = f"{summary.rstrip('.')}; for the administrator."
        statuses.append("409")
    return post(f"{service}_{endpoint.name}", summary, inputs, data_of(answer), *statuses, example=example)


def _with_names(schema: Any, names: list[str]) -> Any:
    """The schema with the names of the artifacts wherever one of them is needed."""
    if isinstance(schema, list):
        return [_with_names(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "x-artifact-name" in schema:
        return {"enum": names} if names else TEXT
    return {key: _with_names(value, names) for key, value in schema.items()}


def _entries() -> dict[str, Any]:
    binary: Schema = {}
    tagged = {"ETag": {"description": "Changes with the content.", "required": True, "schema": TEXT}}
    bodies = {media_type: {"schema": binary} for media_type in ENTRY_TYPES}
    bodies["application/json"] = {"schema": binary, "example": {"any": "JSON"}}
    errors = ("400", "401", "403", "404", "413", "415", "422", "429", "500", "503", "504")
    changes = (*errors, "412", "501")
    if_match, if_none_match = ({"name": name, "in": "header", "schema": TEXT} for name in ("If-Match", "If-None-Match"))
    read = get("entry_get", "The entry of a key, as it was put.", {}, *errors, "412")["get"]
    read["parameters"] = [if_match, if_none_match]
    read["responses"]["200"] |= {"content": bodies}
    read["responses"]["200"]["headers"] = {**read["responses"]["200"]["headers"], **tagged}
    read["responses"]["304"] = {"description": "The client has this entry already.", "headers": tagged}
    write = responses({}, "408", *changes)
    write["204"] = {"description": "Stored.", "headers": {**write.pop("200")["headers"], **tagged}}
    gone = responses({}, *changes)
    gone["204"] = {"description": "Removed.", "headers": gone.pop("200")["headers"]}
    ttl = {
        "name": "Zerocost-TTL",
        "in": "header",
        "description": "Seconds to live.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    }
    return {
        "parameters": [
            {
                "name": "key",
                "in": "path",
                "required": True,
                "description": "1 to 1000 characters; slashes are allowed.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 1000},
                "example": _KEY,
            }
        ],
        "get": read,
        "put": {
            "operationId": "entry_put",
            "summary": "Stores a body unchanged.",
            "parameters": [ttl, if_match, if_none_match],
            "requestBody": {"required": True, "content": bodies},
            "responses": write,
        },
        "delete": {
            "operationId": "entry_delete",
            "summary": "Removes a key, if it is there.",
            "parameters": [if_match, if_none_match],
            "responses": gone,
        },
    }
