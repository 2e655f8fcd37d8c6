"""Calls an ASGI app without a network: the same requests and responses, but no bytes on a wire."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.types import Message

from zerocost.api.application import create_app
from zerocost.api.settings import Settings
from zerocost.client import RemoteArtifact
from zerocost.core.artifact_base import Artifact, ExecutionContext
from zerocost.core.artifact_registry import ArtifactRegistry

__all__ = ["ASGITransport", "serve_in_process"]

_URL = "http://127.0.0.1"


def serve_in_process(name: str, artifact: Artifact) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Serves an artifact in this process; the function that calls it there. For ``ArtifactValidator(serve=…)``."""
    registry = ArtifactRegistry()
    registry.register_artifact(name, artifact, "test")
    app = create_app(registry, Settings())
    context = ExecutionContext(name, "test", "restful", {})

    def call(inputs: dict[str, Any]) -> dict[str, Any]:
        with contextlib.closing(RemoteArtifact(_URL, name, transport=ASGITransport(app))) as remote:
            return remote.execute(inputs, context)

    return call


class ASGITransport(httpx2.BaseTransport):
    """Hands a client's requests to an ASGI app. Each one runs in an event loop of its own thread."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    def close(self) -> None:
        """Ends the threads of the app. A later call starts new ones."""
        self._app.state.close()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Calls the app with the request and waits for the response."""
        answer: Future[httpx2.Response] = Future()

        def call() -> None:
            try:
                answer.set_result(asyncio.run(self._call(request)))
            except BaseException as error:
                answer.set_exception(error)

        # The caller may run in an event loop itself.
        threading.Thread(target=call, name="zerocost-in-memory").start()
        return answer.result()

    async def _call(self, request: httpx2.Request) -> httpx2.Response:
        body = request.read()
        url = request.url
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "server": (url.host, url.port or 80),
            "client": ("127.0.0.1", 1),
        }
        sent = [{"type": "http.request", "body": body, "more_body": False}]
        start: Message = {}
        pieces: list[bytes] = []

        async def receive() -> Message:
            if sent:
                return sent.pop()
            await asyncio.Event().wait()  # the client stays connected
            raise AssertionError

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                pieces.append(bytes(message.get("body", b"")))

        await self._app(scope, receive, send)
        return httpx2.Response(start["status"], headers=start["headers"], stream=httpx2.ByteStream(b"".join(pieces)))
