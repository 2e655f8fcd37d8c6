"""The services, and the entries of the memory."""

from __future__ import annotations

from typing import Any

from zerocost.api.openapi.parts import TEXT, Schema, data_of, get, reference, responses
from zerocost.api.openapi.parts import post as described_post
from zerocost.core.artifact_registry import ArtifactRegistry

__all__ = ["paths"]

_KEY = "key of the documentation"
_IDS: Schema = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
_MASK: Schema = {"type": "array", "items": {"enum": [0, 1]}}
_ENCODING: Schema = {
    "type": "object",
    "properties": {
        "input_ids": {"type": "array", "items": {"type": "integer"}},
        "tokens": {"type": "integer"},
        "truncated": {"type": "boolean"},
    },
    "required": ["input_ids", "tokens", "truncated"],
}
_TEXTS: Schema = {"anyOf": [TEXT, {"type": "array", "items": TEXT}]}
_TENSOR = reference("Tensor")
_MODEL_OUTPUT: Schema = {
    "type": "object",
    "properties": {
        "model": TEXT,
        "trained": {"type": "boolean"},
        "last_hidden_state": {},
        "pooled": _TENSOR,
        "timings": {"type": "object", "additionalProperties": {"type": "number"}},
        "attentions": {},
    },
    "required": ["model", "trained", "last_hidden_state", "pooled", "timings"],
}


def paths(registry: ArtifactRegistry) -> dict[str, Any]:
    """The paths under ``/services``."""
    names = [spec.name for spec in registry.list_artifacts()]
    name: Schema = {"enum": names} if names else TEXT
    choice = _object({"artifact": name, "params": {"type": "object"}}, "artifact")
    interfaces = ("attention", "parallel", "memory")
    artifacts = _object({interface: {"anyOf": [choice, {"type": "null"}]} for interface in interfaces})
    window = "sliding_window_attention"
    used = {"artifacts": {"attention": {"artifact": window, "params": {"window_size": 9}}}} if window in names else {}
    return {
        "/services/model/forward": post(
            "model_forward",
            "Hidden states and the pooled vector of token ids, for one sequence or several.",
            _object(
                {
                    "input_ids": {"anyOf": [_IDS, {"type": "array", "minItems": 1, "items": _IDS}]},
                    "attention_mask": {"anyOf": [{"type": "null"}, _MASK, {"type": "array", "items": _MASK}]},
                    "output_attentions": {"type": "boolean"},
                    "artifacts": {"anyOf": [artifacts, {"type": "null"}]},
                },
                "input_ids",
            ),
            data_of(_MODEL_OUTPUT),
            example={"input_ids": [1, 70, 2], **used},
        ),
        "/services/model/embed": post(
            "model_embed",
            "One vector of length 1 for each text.",
            _object({"texts": _TEXTS, "artifacts": {"anyOf": [artifacts, {"type": "null"}]}}, "texts"),
            data_of(_TENSOR),
            example={"texts": ["a window costs what the window costs"], **used},
        ),
        **_artifacts("model", interfaces, names, {"artifact_name": window, "params": {"window_size": 9}}),
        **_artifacts("tokenizer", ("memory",), names, {"artifact_name": "lru_cache"}),
        **_tokenizer(),
        **(_memory(names) if "lru_cache" in names else {}),
    }


def post(operation: str, summary: str, inputs: Schema, answer: Schema, *statuses: str, example: Any) -> dict[str, Any]:
    """A service's method; an artifact that it uses may be unknown."""
    return described_post(operation, summary, inputs, answer, "404", *statuses, example=example)


def _object(properties: dict[str, Schema], *required: str) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        **({"required": list(required)} if required else {}),
        "additionalProperties": False,
    }


def _artifacts(
    service: str, interfaces: tuple[str, ...], names: list[str], example: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """What every service has."""
    name: Schema = {"enum": names} if names else TEXT
    choice = _object({"artifact": name, "params": {"type": "object"}}, "artifact")
    active = data_of({"type": "object", "additionalProperties": choice})
    at = f"/services/{service}"
    return {
        f"{at}/active_artifacts": post(
            f"{service}_active_artifacts", f"The artifacts that the {service} uses.", _object({}), active, example={}
        ),
        f"{at}/use_artifact": post(
            f"{service}_use_artifact",
            f"The {service} uses another artifact from now on; for the administrator.",
            _object({"artifact_name": name, "params": {"type": "object"}}, "artifact_name"),
            active,
            "409",
            example=example if example["artifact_name"] in names else None,
        ),
        f"{at}/stop_artifact": post(
            f"{service}_stop_artifact",
            f"The {service} stops using the artifact of an interface; for the administrator.",
            _object({"interface": {"enum": list(interfaces)}}, "interface"),
            active,
            "409",
            example={"interface": interfaces[0]},
        ),
    }


def _tokenizer() -> dict[str, Any]:
    text = _object({"text": _TEXTS}, "text")
    limited = {"text": _TEXTS, "max_tokens": {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 1}]}}
    several: Schema = {"anyOf": [_ENCODING, {"type": "array", "items": _ENCODING}]}
    counts: Schema = {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]}
    numbers: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    return {
        "/services/tokenizer/encode": post(
            "tokenizer_encode",
            "The token ids of one text, or of several.",
            _object(limited, "text"),
            data_of(several),
            example={"text": ["attention", "a longer text"], "max_tokens": 16},
        ),
        "/services/tokenizer/decode": post(
            "tokenizer_decode",
            "The text of token ids.",
            _object({"ids": numbers}, "ids"),
            data_of(TEXT),
            example={"ids": [1, 70, 2]},
        ),
        "/services/tokenizer/count": post(
            "tokenizer_count", "How many tokens a text has.", text, data_of(counts), example={"text": "attention"}
        ),
    }


def _memory(names: list[str]) -> dict[str, Any]:
    key: Schema = {"type": "string"}
    by_key = _object({"key": key}, "key")
    put = {"key": key, "value": {}, "ttl": {"anyOf": [{"type": "null"}, {"type": "number", "exclusiveMinimum": 0}]}}
    whether = data_of({"type": "boolean"})
    return {
        "/services/memory/get": post(
            "memory_get", "What is stored under a key.", by_key, data_of({}), example={"key": _KEY}
        ),
        "/services/memory/put": post(
            "memory_put",
            "Stores a value; whether it was stored.",
            _object(put, "key", "value"),
            whether,
            example={"key": _KEY, "value": {"any": "JSON"}, "ttl": 60},
        ),
        "/services/memory/delete": post(
            "memory_delete", "Removes a key; whether it was there.", by_key, whether, example={"key": _KEY}
        ),
        "/services/memory/clear": post("memory_clear", "Removes everything.", _object({}), whether, example={}),
        **_artifacts("memory", ("memory",), names, {"artifact_name": "lru_cache"}),
        "/services/memory/entries/{key}": _entries(),
        "/services/memory/stats": post(
            "memory_stats", "The memory's counters.", _object({}), data_of({"type": "object"}), example={}
        ),
    }


def _entries() -> dict[str, Any]:
    binary: Schema = {}
    tagged = {"ETag": {"description": "Changes with the content.", "required": True, "schema": TEXT}}
    media_types = ("application/octet-stream", "application/json", "application/vnd.safetensors")
    bodies = {media_type: {"schema": binary} for media_type in media_types}
    bodies["application/json"] = {"schema": binary, "example": {"any": "JSON"}}
    errors = ("401", "403", "404", "413", "415", "422", "500", "503")
    read = get("entry_get", "What was put under a key, as it was put.", {}, *errors)["get"]
    read["parameters"] = [{"name": "If-None-Match", "in": "header", "schema": TEXT}]
    read["responses"]["200"] |= {"content": bodies}
    read["responses"]["200"]["headers"] = {**read["responses"]["200"]["headers"], **tagged}
    read["responses"]["304"] = {"description": "The client has it already.", "headers": tagged}
    write = responses({}, "400", "408", "429", *errors)
    write["204"] = {"description": "Stored.", "headers": {**write.pop("200")["headers"], **tagged}}
    gone = responses({}, *errors)
    gone["204"] = {"description": "Gone.", "headers": gone.pop("200")["headers"]}
    ttl = {"type": "number", "exclusiveMinimum": 0}
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
            "parameters": [{"name": "Zerocost-TTL", "in": "header", "description": "Seconds to live.", "schema": ttl}],
            "requestBody": {"required": True, "content": bodies},
            "responses": write,
        },
        "delete": {
            "operationId": "entry_delete",
            "summary": "Removes a key, whether it is there or not.",
            "responses": gone,
        },
    }
