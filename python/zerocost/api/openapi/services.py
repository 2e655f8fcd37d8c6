"""The services, and the entries of the memory."""

from __future__ import annotations

from typing import Any

from zerocost.api.openapi.parts import TEXT, Schema, data_of, get, post, reference, responses
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.services.memory_service import MemoryService
from zerocost.services.model_service import INTERFACES, SimplifiedModelService
from zerocost.services.service import Service
from zerocost.services.tokenizer_service import TokenizerService
from zerocost.services.twins import fields_of

__all__ = ["paths"]

_KEY = "key of the documentation"
_IDS: Schema = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
_MASK: Schema = {"type": "array", "items": {"enum": [0, 1]}}
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
        "timings": {"type": "object", "additionalProperties": {"type": "number"}},
        "usage": {"type": "object", "additionalProperties": {"type": "integer"}},
        "attentions": {},
    },
    "required": ["model", "trained", "last_hidden_state", "pooled", "timings", "usage"],
}
_WHETHER: Schema = {"type": "boolean"}
_WINDOW = "sliding_window_attention"

_METHODS: dict[str, tuple[str, Schema, Any]] = {
    "model/forward": (
        "Hidden states and the pooled vector of token ids, for one sequence or several.",
        _MODEL_OUTPUT,
        {"input_ids": [1, 70, 2]},
    ),
    "model/embed": (
        "One vector of length 1 for each text.",
        _TENSOR,
        {"texts": ["a window costs what the window costs"]},
    ),
    "tokenizer/encode": (
        "The token ids of one text, or of several.",
        {"anyOf": [_ENCODING, {"type": "array", "items": _ENCODING}]},
        {"text": ["attention", "a longer text"], "max_tokens": 16},
    ),
    "tokenizer/decode": ("The text of token ids.", TEXT, {"ids": [1, 70, 2]}),
    "tokenizer/count": (
        "How many tokens a text has.",
        {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]},
        {"text": "attention"},
    ),
    "memory/get": ("What is stored under a key.", {}, {"key": _KEY}),
    "memory/put": (
        "Stores a value; whether it was stored.",
        _WHETHER,
        {"key": _KEY, "value": {"any": "JSON"}, "ttl": 60},
    ),
    "memory/delete": ("Removes a key; whether it was there.", _WHETHER, {"key": _KEY}),
    "memory/clear": ("Removes everything.", _WHETHER, {}),
    "memory/stats": ("The memory's counters.", {"type": "object"}, {}),
}
"""What each method does, what it answers, and an example; the fields are those of its signature."""

_USED = {
    "model": (INTERFACES, {"artifact_name": _WINDOW, "params": {"window_size": 9}}),
    "tokenizer": (("memory",), {"artifact_name": "lru_cache"}),
    "memory": (("memory",), {"artifact_name": "lru_cache"}),
}
"""The interfaces of the artifacts that each service uses, and an example of using one."""


def paths(registry: ArtifactRegistry) -> dict[str, Any]:
    """The paths under ``/services``."""
    names = [spec.name for spec in registry.list_artifacts()]
    kinds: dict[str, type[Service]] = {"model": SimplifiedModelService, "tokenizer": TokenizerService}
    if "lru_cache" in names:
        kinds["memory"] = MemoryService
    found = {
        f"/services/{service}/{method}": _method(service, method, fields_of(post).schema, names)
        for service, kind in kinds.items()
        for method, post in kind.twins().items()
    }
    return {**found, **({"/services/memory/entries/{key}": _entries()} if "memory" in kinds else {})}


def _method(service: str, method: str, schema: Schema, names: list[str]) -> dict[str, Any]:
    """A service's method. An artifact that it uses may be unknown."""
    interfaces, used = _USED[service]
    artifact: Schema = {"enum": names} if names else TEXT
    choice = _object({"artifact": artifact, "params": {"type": "object"}}, "artifact")
    # What the fields hold depends on the artifacts that there are, or is looked at by the method alone.
    told: dict[str, Schema] = {
        "artifacts": {
            "anyOf": [_object({name: {"anyOf": [choice, {"type": "null"}]} for name in INTERFACES}), {"type": "null"}]
        },
        "artifact_name": artifact,
        "interface": {"enum": list(interfaces)},
        "input_ids": {"anyOf": [_IDS, {"type": "array", "minItems": 1, "items": _IDS}]},
        "attention_mask": {"anyOf": [{"type": "null"}, _MASK, {"type": "array", "items": _MASK}]},
    }
    fields = {name: told.get(name, field) for name, field in schema["properties"].items()}
    inputs = _object(fields, *schema["required"])
    example: Any
    if method in _ARTIFACTS:
        summary, answer = _ARTIFACTS[method].format(service), {"type": "object", "additionalProperties": choice}
        example = {"use_artifact": used, "stop_artifact": {"interface": interfaces[0]}, "active_artifacts": {}}[method]
        if example.get("artifact_name") not in (None, *names):
            example = None
    else:
        summary, answer, example = _METHODS[f"{service}/{method}"]
        if "artifacts" in fields and _WINDOW in names:
            example = {**example, "artifacts": {"attention": {"artifact": _WINDOW, "params": {"window_size": 9}}}}
    statuses = ("404", "409") if method in ("use_artifact", "stop_artifact") else ("404",)
    return post(f"{service}_{method}", summary, inputs, data_of(answer), *statuses, example=example)


_ARTIFACTS = {
    "active_artifacts": "The artifacts that the {} uses.",
    "use_artifact": "The {} uses another artifact from now on; for the administrator.",
    "stop_artifact": "The {} stops using the artifact of an interface; for the administrator.",
}


def _object(properties: dict[str, Schema], *required: str) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        **({"required": list(required)} if required else {}),
        "additionalProperties": False,
    }


def _entries() -> dict[str, Any]:
    binary: Schema = {}
    tagged = {"ETag": {"description": "Changes with the content.", "required": True, "schema": TEXT}}
    media_types = ("application/octet-stream", "application/json", "application/vnd.safetensors")
    bodies = {media_type: {"schema": binary} for media_type in media_types}
    bodies["application/json"] = {"schema": binary, "example": {"any": "JSON"}}
    errors = ("400", "401", "403", "404", "413", "415", "422", "429", "500", "503", "504")
    changes = (*errors, "412", "501")
    if_match, if_none_match = ({"name": name, "in": "header", "schema": TEXT} for name in ("If-Match", "If-None-Match"))
    read = get("entry_get", "What was put under a key, as it was put.", {}, *errors, "412")["get"]
    read["parameters"] = [if_match, if_none_match]
    read["responses"]["200"] |= {"content": bodies}
    read["responses"]["200"]["headers"] = {**read["responses"]["200"]["headers"], **tagged}
    read["responses"]["304"] = {"description": "The client has it already.", "headers": tagged}
    write = responses({}, "408", *changes)
    write["204"] = {"description": "Stored.", "headers": {**write.pop("200")["headers"], **tagged}}
    gone = responses({}, *changes)
    gone["204"] = {"description": "Gone.", "headers": gone.pop("200")["headers"]}
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
                "description": "1 to 1000 characters; it may hold slashes.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 1000},
                "example": _KEY,
            }
        ],
        "get": read,
        "put": {
            "operationId": "entry_put",
            "summary": "Stores a body as it is.",
            "parameters": [ttl, if_match, if_none_match],
            "requestBody": {"required": True, "content": bodies},
            "responses": write,
        },
        "delete": {
            "operationId": "entry_delete",
            "summary": "Removes a key, whether it is there or not.",
            "parameters": [if_match, if_none_match],
            "responses": gone,
        },
    }
