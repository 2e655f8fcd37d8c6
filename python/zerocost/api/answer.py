"""What a route returns: status, headers and a body that goes out piece by piece."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from zerocost.api.memory import SMALL, take

__all__ = ["Answer", "Endpoint", "Shortcuts", "json_answer"]

Headers = list[tuple[bytes, bytes]]

_PIECE = 1 << 20
"""Bytes that are handed to the server at a time, so that a slow reader holds no more than that in its buffer."""


@dataclass
class Answer:
    """A response whose body is in memory. ``body`` is what is sent, in order."""

    status: int
    body: Sequence[bytes | memoryview]
    headers: Headers = field(default_factory=list)

    async def send(self, send: Send) -> None:
        """Sends it with its length."""
        length = sum(len(piece) for piece in self.body)
        headers = [*self.headers, (b"content-length", b"%d" % length)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if len(self.body) == 1 and length <= _PIECE:
            await send({"type": "http.response.body", "body": self.body[0]})
            return
        for piece in self.body:
            view = memoryview(piece)
            for start in range(0, len(view), _PIECE):
                await send({"type": "http.response.body", "body": view[start : start + _PIECE], "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def json_answer(content: Any, status: int = 200, media_type: str = "application/json") -> Answer:
    """A response with a small JSON document."""
    return Answer(status, [orjson.dumps(content, default=_named)], [(b"content-type", media_type.encode())])


def _named(value: Any) -> str:
    """Something in an artifact's metadata that is no JSON: its type's name, which tells no address."""
    return type(value).__name__


class Endpoint:
    """An ASGI app from a coroutine function that takes scope and receive and returns an :class:`Answer`."""

    def __init__(self, function: Callable[[Scope, Receive], Awaitable[Answer]]) -> None:
        self.function = function
        self.route: str | None = None
        """The template of the path that leads here."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        answer = await self.function(scope, receive)
        length = sum(map(len, answer.body))
        if length > SMALL:
            take(scope, length)
        await answer.send(send)


class Shortcuts:
    """POST routes with a name in their middle, found at once: trying patterns costs more than a small kernel does."""

    def __init__(self, router: Router, paths: Sequence[str]) -> None:
        """Takes the router, which knows all routes, and the paths of those that are called most, with ``{name}``."""
        self._router = router
        routes = {route.path: route for route in router.routes if isinstance(route, Route)}
        self._found: list[tuple[str, str, ASGIApp]] = []
        for path in paths:
            start, _, end = path.partition("{name}")
            self._found.append((start, end, routes[path].endpoint))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            path = scope["path"]
            for start, end, endpoint in self._found:
                if path.startswith(start) and path.endswith(end):
                    name = path[len(start) : -len(end)]
                    if name and "/" not in name:
                        scope["endpoint"] = endpoint
                        scope["path_params"] = {"name": name}
                        await endpoint(scope, receive, send)
                        return
        await self._router(scope, receive, send)
