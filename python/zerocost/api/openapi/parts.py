"""The parts of operations: responses, errors, and the schemas that they share."""

from __future__ import annotations

from typing import Any

__all__ = ["Schema", "get", "list_of", "object_of", "plain", "post", "reference", "responses", "schemas"]

Schema = dict[str, Any]

_PROBLEMS = {
    "400": "The request is malformed.",
    "401": "A token is needed.",
    "403": "The caller may not do this.",
    "404": "Nothing has that name.",
    "405": "Another method is needed; Allow says which.",
    "406": "The value cannot be sent in the requested form.",
    "408": "The body did not arrive in time.",
    "409": "There are several worker processes, and only one would change.",
    "412": "The stored value is not the one that the request is meant for.",
    "413": "The input or the output is beyond a limit.",
    "415": "The media type or the encoding is unknown.",
    "422": "The input breaks the schema.",
    "429": "The server has too much to do; Retry-After says when to come back.",
    "500": "The server failed; its log says why, under the request id.",
    "501": "The artifact in use cannot do this.",
    "503": "The server does not accept requests; Retry-After says when to come back.",
    "504": "The deadline passed.",
}
_OF_CALLS = ("400", "401", "403", "406", "408", "413", "415", "422", "429", "500", "503", "504")
TEXT: Schema = {"type": "string"}
_HEADERS = {
    "X-Request-Id": {"description": "The id of the request in the server's log.", "required": True, "schema": TEXT},
    "Server-Timing": {
        "description": "Milliseconds of each stage of a call, and the bytes that were copied; else of the request.",
        "required": True,
        "schema": TEXT,
    },
}


def object_of(required: list[str], /, *, is_closed: bool = False, **members: Schema) -> Schema:
    """An object with these members; ``is_closed`` if it has no others."""
    needed: Schema = {"required": required} if required else {}
    return {"type": "object", "properties": members, **needed, **({"additionalProperties": False} if is_closed else {})}


def list_of(items: Schema) -> Schema:
    """An array of such items."""
    return {"type": "array", "items": items}


LIVE: Schema = object_of(["live"], live={"const": True})
READY: Schema = object_of(["ready"], ready={"const": True})


def reference(name: str) -> Schema:
    """One of :func:`schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def get(
    operation: str, summary: str, schema: Schema, *statuses: str, is_open: bool = False, error: str = "Problem"
) -> dict[str, Any]:
    """A path that is read as JSON; ``is_open`` if it needs no token."""
    described = responses(schema, "401", "403", *statuses, error=error)
    security: dict[str, Any] = {"security": []} if is_open else {}
    return {"get": {"operationId": operation, "summary": summary, "responses": described, **security}}


def plain(operation: str, summary: str, media_type: str, *, is_open: bool = False) -> dict[str, Any]:
    """A path that is read as text."""
    described = get(operation, summary, TEXT, is_open=is_open)
    described["get"]["responses"]["200"]["content"] = {media_type: {"schema": TEXT}}
    return described


def post(
    operation: str,
    summary: str,
    inputs: Schema,
    answer: Schema,
    *statuses: str,
    example: Any = None,
    error: str = "Problem",
) -> dict[str, Any]:
    """A path that is called with a JSON body."""
    body: dict[str, Any] = {"schema": inputs}
    if example is not None:
        body["example"] = example
    return {
        "post": {
            "operationId": operation,
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": body}},
            "responses": responses(answer, *_OF_CALLS, *statuses, error=error),
        }
    }


def responses(schema: Schema, *statuses: str, error: str = "Problem") -> dict[str, Any]:
    """200 with ``schema``, and the errors of these statuses."""
    media_type = "application/problem+json" if error == "Problem" else "application/json"
    problem = {media_type: {"schema": reference(error)}}
    return {
        "200": {"description": "Done.", "headers": _HEADERS, "content": {"application/json": {"schema": schema}}},
        **{status: {"description": _PROBLEMS[status], "content": problem} for status in sorted(set(statuses))},
    }


def schemas() -> dict[str, Schema]:
    """The schemas that operations refer to."""
    number: Schema = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}, {"type": "boolean"}]}
    nested = [number, reference("NestedList")]
    return {
        "NestedList": {
            "description": "Nested lists of numbers, of one length on each level; they become float64.",
            "type": "array",
            "items": {"anyOf": nested},
        },
        "TypedTensor": object_of(
            ["dtype", "shape", "data"],
            is_closed=True,
            dtype={"description": "FP32, INT64, … or float32, int64, …", **TEXT},
            shape=list_of({"type": "integer", "minimum": 0}),
            data=reference("NestedList"),
        ),
        "Tensor": {
            "description": "A tensor in a response: a number if it has no axes, else nested lists; or typed.",
            "anyOf": [*nested, reference("TypedTensor")],
        },
        "Problem": {
            "description": "RFC 9457",
            **object_of(
                ["title", "status", "detail", "error", "code", "request_id"],
                type=TEXT,
                title=TEXT,
                status={"type": "integer"},
                detail=TEXT,
                error=TEXT,
                code=TEXT,
                request_id=TEXT,
                errors=list_of(object_of(["pointer", "message"], pointer=TEXT, message=TEXT)),
            ),
        },
        "InferenceError": {
            "description": "Errors of the Open Inference Protocol.",
            **object_of(["error"], is_closed=True, error=TEXT),
        },
    }
