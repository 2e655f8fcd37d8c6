"""The access log and the span of every request. It surrounds the app only where one of them is wanted."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zerocost.api.routing import route_template
from zerocost.api.telemetry.observations import CLIENT_GONE
from zerocost.api.telemetry.tracing import Tracing
from zerocost.api.wire.request import Request

__all__ = ["ACCESS_ENTRY", "AccessEntry", "AccessLogMiddleware"]

logger = logging.getLogger("zerocost.access")

ACCESS_ENTRY = "zerocost.access"
"""The key of the scope under which the edge finds an :class:`AccessEntry`, if there is an access log."""


@dataclass(slots=True)
class AccessEntry:
    """What the edge tells the access log; None for a request that never got there."""

    request: Request | None = None


class AccessLogMiddleware:
    """ASGI middleware around everything else."""

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
        entry = scope[ACCESS_ENTRY] = AccessEntry()
        span = None if self.tracing is None else self.tracing.start(scope)

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            del scope[ACCESS_ENTRY]
            if self.tracing is not None and span is not None:
                self.tracing.finish(span, scope, status, entry.request)
            if self.log and logger.isEnabledFor(logging.INFO):
                status = CLIENT_GONE if status is None else status
                _log(scope, entry.request, status, round((time.perf_counter() - start) * 1000, 3))


def _log(scope: Scope, request: Request | None, status: int, milliseconds: float) -> None:
    stages = None if request is None else request.stages
    fields: dict[str, Any] = {
        "request_id": None if request is None else request.id,
        "method": scope["method"],
        "route": route_template(scope),
        "artifact": None if stages is None else stages.artifact,
        "status": status,
        "duration_ms": milliseconds,
    }
    logger.info(
        "%s %s %d %.3f ms, request %s",
        fields["method"],
        fields["route"] or "(no route)",
        status,
        milliseconds,
        fields["request_id"],
        extra={"fields": fields},
    )
