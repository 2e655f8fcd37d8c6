"""What a route returns: status, headers and a body that goes out piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

__all__ = ["JSON", "Response", "json_response"]

Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")


class Response:
    """A response whose body is in memory.

    Attributes:
        status: of HTTP.
        body: what is sent, in order.
        headers: those of this answer; its length and what every answer carries are added when it goes out.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: Sequence[bytes | memoryview], headers: Headers | None = None) -> None:
        self.status = status
        self.body = body
        self.headers: Headers = [] if headers is None else headers


def json_response(content: Any) -> Response:
    """A response with a small JSON document."""
    return Response(200, [orjson.dumps(content, default=_named)], [JSON])


def _named(value: Any) -> str:
    """Something in an artifact's metadata that is no JSON: its type's name, which tells no address."""
    return type(value).__name__
