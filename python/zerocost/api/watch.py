"""What is seen of every request: a line in the log, a span. It stands around the app only where one is wanted."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zerocost.api.tracing import Tracing

__all__ = ["CLIENT_GONE", "Watch", "route_of"]

logger = logging.getLogger("zerocost.access")

CLIENT_GONE = 499
"""What log and metrics say of a request whose client went away before its answer, as nginx does."""


def route_of(scope: Scope) -> str | None:
    """The template of the path (``/artifacts/{name}/execute``): unlike the path it holds nothing of a client's."""
    route: str | None = getattr(scope.get("endpoint"), "route", None)
    return route


class Watch:
    """ASGI middleware outside of everything else."""

    def __init__(self, app: ASGIApp, tracing: Tracing | None, *, log: bool) -> None:
        self.app = app
        self.tracing = tracing
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        status: int | None = None
        span = None if self.tracing is None else self.tracing.start(scope)

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_see)
        finally:
            if self.tracing is not None and span is not None:
                self.tracing.finish(span, scope, route_of(scope), status)
            if self.log and logger.isEnabledFor(logging.INFO):
                self._line(scope, CLIENT_GONE if status is None else status, time.perf_counter() - start)

    def _line(self, scope: Scope, status: int, duration: float) -> None:
        stages = scope.get("zerocost.stages")
        seen = {
            "request_id": scope.get("zerocost.request_id"),
            "method": scope["method"],
            "route": route_of(scope),
            "artifact": None if stages is None else stages.artifact,
            "status": status,
            "duration_ms": round(duration * 1000, 3),
        }
        logger.info(
            "%s %s %d %.3f ms, request %s",
            seen["method"],
            seen["route"] or "(no route)",
            status,
            seen["duration_ms"],
            seen["request_id"],
            extra={"seen": seen},
        )
