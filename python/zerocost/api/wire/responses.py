"""Responses: a status, headers and a body in pieces, in the representation that the client accepts."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from zerocost._kernels import write_json
from zerocost.core.safetensors import MEDIA_TYPE as SAFETENSORS
from zerocost.core.safetensors import split_values, to_pieces
from zerocost.errors import InvalidInput, NotAcceptable

__all__ = ["JSON", "WINDOW_BITS", "Headers", "Response", "json_response", "outputs_response", "wants_typed_tensors"]

Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")

WINDOW_BITS = {"gzip": 31, "deflate": 15}
"""How zlib knows gzip (RFC 1952) and what HTTP calls deflate (RFC 1950)."""

_NOTHING: Mapping[str, Any] = {}


class Response:
    """A response whose body is in memory.

    Attributes:
        status: of HTTP.
        body: its pieces, in order.
        headers: its own; the edge adds the length and what every response carries.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: Sequence[bytes | memoryview], headers: Headers | None = None) -> None:
        self.status = status
        self.body = body
        self.headers: Headers = [] if headers is None else headers

    def compress(self, encoding: str) -> None:
        """Compresses the body with ``"gzip"`` or ``"deflate"``, and says so in the headers."""
        deflate = zlib.compressobj(1, zlib.DEFLATED, WINDOW_BITS[encoding])
        self.body = [b"".join([*(deflate.compress(piece) for piece in self.body), deflate.flush()])]
        self.headers += [(b"content-encoding", encoding.encode()), (b"vary", b"Accept-Encoding")]


def json_response(content: Any) -> Response:
    """A response with a small JSON document."""
    # What an artifact's metadata holds and JSON cannot is shown by the name of its type: a repr may tell an address.
    return Response(200, [orjson.dumps(content, default=lambda value: type(value).__name__)], [JSON])


def outputs_response(outputs: dict[str, Any], accept: str | None, more: Mapping[str, Any] = _NOTHING) -> Response:
    """The outputs of an artifact or a chain, as JSON or safetensors; ``more`` stands beside them.

    Raises:
        InvalidInput: ``more`` has the name of an output, and safetensors has one place for both.
        NotAcceptable: bytes, for which JSON has no form.
    """
    if wants_safetensors(accept):
        twice = outputs.keys() & more.keys()
        if twice:
            raise InvalidInput(f"{', '.join(twice)}: also the name of an output; ask for JSON, which keeps them apart")
        tensors, others = split_values({**outputs, **more})
        pieces = to_pieces(tensors, write_json(others).decode())
        return Response(200, pieces, [(b"content-type", SAFETENSORS.encode())])
    if bytes in map(type, outputs.values()):
        raise NotAcceptable("bytes cannot be sent as JSON; raw entries of the memory are at /services/memory/entries/")
    content = write_json({"status": "success", "data": outputs, **more}, typed=wants_typed_tensors(accept))
    return Response(200, [content], [JSON])


@lru_cache(64)
def wants_safetensors(accept: str | None) -> bool:
    """Whether ``Accept`` asks for safetensors."""
    return any(kind == SAFETENSORS for kind, _ in _choices(accept))


@lru_cache(64)
def wants_typed_tensors(accept: str | None) -> bool:
    """Whether ``Accept`` asks for typed tensors: ``application/json;tensors=typed``."""
    return any(kind == "application/json" and "tensors=typed" in parameters for kind, parameters in _choices(accept))


def _choices(accept: str | None) -> list[tuple[str, list[str]]]:
    """The media types in an ``Accept``, each with its parameters."""
    parts = [choice.lower().split(";") for choice in (accept or "").split(",")]
    return [
        (media_type.strip(), [parameter.strip().replace('"', "") for parameter in parameters])
        for media_type, *parameters in parts
    ]
