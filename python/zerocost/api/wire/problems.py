"""From an exception to a response: the table of statuses, problem documents (RFC 9457), and what must not leak."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import orjson
from starlette.exceptions import HTTPException

from zerocost.api.wire.responses import JSON, Response
from zerocost.errors import (
    DeadlineExceeded,
    DuplicateArtifact,
    InvalidInput,
    KernelPanic,
    LimitExceeded,
    MalformedJSON,
    NotAcceptable,
    OutOfMemory,
    Place,
    PlanError,
    PreconditionFailed,
    ServiceUnavailable,
    UnknownArtifact,
    UnknownKey,
    Unsupported,
    ZerocostError,
)

__all__ = ["HTTPError", "artifact_errors", "error_response", "status_of"]

_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (UnknownArtifact, 404),
    (UnknownKey, 404),
    (MalformedJSON, 400),
    (LimitExceeded, 413),
    (NotAcceptable, 406),
    (InvalidInput, 422),
    (PlanError, 422),
    (DuplicateArtifact, 409),
    (PreconditionFailed, 412),
    (Unsupported, 501),
    (DeadlineExceeded, 504),
    (ServiceUnavailable, 503),
    (MemoryError, 503),
)

_DETAIL = 4000
_MESSAGE = 1000
_POINTER = 500
"""The most characters of a text that may repeat what the client sent."""

_ERRORS = 20
"""The most errors that are listed one by one."""

_GENERIC = "The server failed while it answered this request; its log says why, under the request id."
_NO_MEMORY = "there is not enough memory for this request at the moment; try again later"


class HTTPError(ZerocostError):
    """A request that is refused before any artifact sees it; ``code`` is the word for the reason."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


def status_of(error: BaseException) -> int:
    """The HTTP status of an exception; 500 for everything that is not the client's mistake."""
    if isinstance(error, HTTPError):
        return error.status
    if isinstance(error, HTTPException):
        return error.status_code
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def error_response(error: BaseException, request_id: str, path: str) -> Response:
    """The response to a request that failed: a problem document, or under ``/v2`` an error of that protocol."""
    status = status_of(error)
    code, detail, headers = _told(error, status)
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    if path == "/v2" or path.startswith("/v2/"):
        # Its clients know 400 for every input that is refused.
        return Response(400 if status == 422 else status, [orjson.dumps({"error": detail})], [JSON, *encoded])
    title = HTTPStatus(status).phrase
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "error": detail,
        "code": code,
        "request_id": request_id,
    }
    if isinstance(error, InvalidInput):
        document["errors"] = [
            {"pointer": _cut(where, _POINTER), "message": _cut(message, _MESSAGE)}
            for where, message in error.errors[:_ERRORS]
        ]
        if len(error.errors) > _ERRORS:
            document["errors"].append({"pointer": "", "message": f"and {len(error.errors) - _ERRORS} more"})
    elif isinstance(error, PlanError):
        document |= {
            key: _cut(value, _POINTER) if isinstance(value, str) else value
            for key in ("step", "artifact", "port")
            if (value := getattr(error, key, None)) is not None
        }
    return Response(status, [orjson.dumps(document)], [(b"content-type", b"application/problem+json"), *encoded])


def _told(error: BaseException, status: int) -> tuple[str, str, dict[str, str]]:
    """The code word, the text and further headers that a client gets for an exception."""
    headers = {"retry-after": "1"} if status == 503 else {}
    if isinstance(error, HTTPError | HTTPException):
        headers |= error.headers or {}
    if isinstance(error, HTTPException):
        return HTTPStatus(status).phrase.lower().replace(" ", "_"), error.detail, headers
    if isinstance(error, ZerocostError) and status != 500:
        notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, Place)]
        return error.code, " ".join([_cut(str(error)), *(f"({note})" for note in notes)]), headers
    if isinstance(error, MemoryError):
        return OutOfMemory.code, _NO_MEMORY, headers
    return error.code if isinstance(error, KernelPanic) else "internal", _GENERIC, headers


def _cut(text: str, length: int = _DETAIL) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


_LEAKS = re.compile(r"\b0x[0-9a-fA-F]{4,}\b|(?<![\w/])(?:[A-Za-z]:\\|/)(?:[\w.@+-]+[/\\])+[\w.@+-]*")


def _as_input_error(error: ValueError | TypeError) -> InvalidInput:
    """A third-party artifact's complaint about its input, without addresses and paths of this machine."""
    text = _LEAKS.sub("…", str(error)) or type(error).__name__
    refused = InvalidInput(text[:2000], errors=[("", text[:2000])])
    for note in getattr(error, "__notes__", ()):
        refused.add_note(note)
    return refused


class _ArtifactErrors:
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and isinstance(error, ValueError | TypeError) and not isinstance(error, ZerocostError):
            raise _as_input_error(error) from error


artifact_errors = _ArtifactErrors()
"""A context in which a ValueError or a TypeError is an artifact's complaint about its input."""
