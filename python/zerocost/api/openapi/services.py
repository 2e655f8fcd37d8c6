"""The services, and the raw entries of the memory service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zerocost.api.openapi.parts import TEXT, Schema, get, object_of, post, reference, responses
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.services.endpoints import Endpoint
from zerocost.services.memory_service import ENTRY_TYPES
from zerocost.services.service import Service

__all__ = ["paths"]

_KEY = "key of the documentation"
_WINDOW = "sliding_window_attention"

_EXAMPLES: dict[str, Any] = {
    "model/forward": {"input_ids": [1, 70, 2]},
    "model/embed": {"texts": ["a window costs what the window costs"]},
    "tokenizer/encode": {"texts": ["attention", "a longer text"], "max_tokens": 16},
    "tokenizer/decode": {"input_ids": [1, 70, 2]},
    "tokenizer/count": {"texts": "attention"},
    "memory/get": {"key": _KEY},
    "memory/put": {"key": _KEY, "value": {"any": "JSON"}, "ttl": 60},
    "memory/delete": {"key": _KEY},
}
"""An example of each method's fields, where it has any."""


def paths(registry: ArtifactRegistry, services: Mapping[str, type[Service]]) -> dict[str, Any]:
    """The paths under ``/services``, for the classes of the services by name."""
    names = [spec.name for spec in registry.list_artifacts()]
    found = {
        f"/services/{service}/{endpoint.name}": _operation(service, kind, endpoint, names)
        for service, kind in services.items()
        if service != "memory" or "lru_cache" in names
        for endpoint in kind.endpoints().values()
    }
    return {**found, **({"/services/memory/entries/{key}": _entries()} if "lru_cache" in names else {})}


def _operation(service: str, kind: type[Service], endpoint: Endpoint, names: list[str]) -> dict[str, Any]:
    """A method of a service: fields, output and summary from its signature and docstring."""
    inputs = _published({key: value for key, value in endpoint.schema.items() if key != "$schema"}, names)
    fields, summary = inputs["properties"], endpoint.summary(kind)
    if "interface" in fields:
        fields["interface"] = {"enum": list(kind.interfaces)}
    used = _WINDOW if service == "model" else "lru_cache"
    window = {"params": {"window_size": 9}} if used == _WINDOW else {}
    example = _EXAMPLES.get(f"{service}/{endpoint.name}", None if inputs["required"] else {})
    if "artifacts" in fields and _WINDOW in names:
        example = {**(example or {}), "artifacts": {"attention": {"artifact": _WINDOW, **window}}}
    elif "artifact_name" in fields and used in names:
        example = {"artifact_name": used, **window}
    elif "interface" in fields:
        example = {"interface": kind.interfaces[0]}
    statuses = ["404"]  # an artifact may be unknown
    if endpoint.is_administrative:
        summary = f"{summary.rstrip('.')}; for the administrator."
        statuses.append("409")
    answer = object_of(["output"], output=_published(endpoint.output_schema, names))
    return post(f"{service}_{endpoint.name}", summary, inputs, answer, *statuses, example=example)


def _published(schema: Any, names: list[str]) -> Any:
    """The schema with the names of the artifacts wherever one of them is needed, and tensors as a client gets them."""
    if isinstance(schema, list):
        return [_published(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "x-artifact-name" in schema:
        return {"enum": names} if names else TEXT
    if "x-tensor" in schema:
        return reference("Tensor")
    return {key: _published(value, names) for key, value in schema.items()}


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
