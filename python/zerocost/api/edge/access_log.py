"""What is seen of every request: a line in the log, a span. It stands around the app only where one is wanted."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zerocost.api.routing import route_template
from zerocost.api.telemetry.observations import CLIENT_GONE
from zerocost.api.telemetry.tracing import Tracing
from zerocost.api.wire.request import Request

__all__ = ["ACCESS_ENTRY", "AccessEntry", "AccessLogMiddleware"]

logger = logging.getLogger("zerocost.access")

ACCESS_ENTRY = "zerocost.watched"
"""Where the scope has a :class:`AccessEntry`, if anybody wants one."""


@dataclass(slots=True)
class AccessEntry:
    """What the front of the app leaves behind; None where it has not seen the request."""

    request: Request | None = None


class AccessLogMiddleware:
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
        watched = scope[ACCESS_ENTRY] = AccessEntry()
        span = None if self.tracing is None else self.tracing.start(scope)

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_see)
        finally:
            del scope[ACCESS_ENTRY]
            request = watched.request
            if self.tracing is not None and span is not None:
                self.tracing.finish(span, scope, status, request)
            if self.log and logger.isEnabledFor(logging.INFO):
                self._line(scope, request, CLIENT_GONE if status is None else status, time.perf_counter() - start)

    def _line(self, scope: Scope, request: Request | None, status: int, duration: float) -> None:
        stages = None if request is None else request.stages
        seen = {
            "request_id": None if request is None else request.id,
            "method": scope["method"],
            "route": route_template(scope),
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
