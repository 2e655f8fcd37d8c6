"""The edge of the app: it checks the caller, sends every response, and turns every exception into one."""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zerocost.api.edge.access_log import ACCESS_ENTRY
from zerocost.api.edge.authentication import check_caller
from zerocost.api.routing import REQUEST, RouteCache, route_template
from zerocost.api.settings import Settings
from zerocost.api.telemetry.observations import CLIENT_GONE, Observations
from zerocost.api.wire.body import ClientGone, drain, is_all_read
from zerocost.api.wire.byte_budget import ByteBudget
from zerocost.api.wire.problems import HTTPError, error_response
from zerocost.api.wire.protocol import write_whole_response
from zerocost.api.wire.request import Request
from zerocost.api.wire.responses import Headers, Response

__all__ = ["EdgeMiddleware"]

logger = logging.getLogger("zerocost.api")

_PIECE = 1 << 20
"""Bytes that are handed to the server at a time, so that no more than that is buffered for a slow reader."""

_REST_SECONDS = 0.2
"""Seconds in which a refused body may come to its end, so that the connection can be used again."""

_DRAIN_SECONDS = 10.0
"""Seconds in which the rest of it is read and dropped after the response, so that the client sees no broken pipe."""

_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_CLOSE = (b"connection", b"close")


class EdgeMiddleware:
    """The ASGI middleware around the routes."""

    def __init__(self, app: ASGIApp, route_cache: RouteCache, settings: Settings, observations: Observations) -> None:
        """Takes the router, and what finds its busiest routes faster."""
        self.app = app
        self.route_cache = route_cache
        self.settings = settings
        self.observations = observations
        self.budget = ByteBudget(settings.max_memory)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive, self.budget)
        entry = scope.get(ACCESS_ENTRY)
        if entry is not None:
            entry.request = request
        try:
            check_caller(request, self.settings)
            if request.asks_for_upgrade:
                # Our protocol declines an upgrade before it gets here. Another server passes it on without the body.
                headers = {"connection": "close"}
                raise HTTPError(400, "bad_request", "Upgrade: this server speaks no other protocol", headers)
            endpoint = self.route_cache.find(scope)
            if endpoint is not None:
                request.response = await endpoint.function(request)
            else:
                await self._route(request, send)
            if request.response is not None:
                await self._send(request, request.response, send)
        except ClientGone:
            self._count_gone(request)
        except asyncio.CancelledError:
            # Only the server cancels a request, when it shuts down and its drain time-out has passed.
            if request.has_started:
                raise
            headers = {"retry-after": "1", "connection": "close"}
            draining = HTTPError(503, "draining", "the server is shutting down", headers)
            await self._send(request, _response_to(draining, request), send)
        except Exception as error:
            if request.has_started:
                logger.exception("request %s failed while its response was being sent", request.id)
                raise
            await self._refuse(request, error, send)
        finally:
            request.memory.release()

    async def _route(self, request: Request, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            # For a route that somebody else added: ours leave their response with the request.
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._count(request, message["status"])]
                request.has_started = True
            await send(message)

        request.scope[REQUEST] = request
        try:
            await self.app(request.scope, request.receive, send_with_headers)
        finally:
            del request.scope[REQUEST]

    async def _refuse(self, request: Request, error: Exception, send: Send) -> None:
        response = _response_to(error, request)
        try:
            # A client that was too slow with its body is not waited for again.
            is_late = response.status in (408, 504) and not is_all_read(request)
            drained = not is_late and await drain(request, self.settings, _REST_SECONDS)
            if not drained:
                response.headers.append(_CLOSE)
            await self._send(request, response, send, drained=drained or is_late)
        except ClientGone:
            if not request.has_started:
                self._count_gone(request)

    async def _send(self, request: Request, response: Response, send: Send, *, drained: bool = True) -> None:
        """Sends a response; if the body is not ``drained``, its rest is dropped before the response ends."""
        body = response.body
        length = sum(map(len, body))
        request.memory.grow(length)
        headers = [*response.headers, (b"content-length", b"%d" % length), *self._count(request, response.status)]
        request.has_started = True
        is_whole = drained and len(body) == 1 and length <= _PIECE
        if is_whole and write_whole_response(send, response.status, headers, body[0]):
            return
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if is_whole:
            await send({"type": "http.response.body", "body": body[0]})
            return
        for piece in body:
            view = memoryview(piece)
            for start in range(0, len(view), _PIECE):
                await send({"type": "http.response.body", "body": view[start : start + _PIECE], "more_body": True})
        if not drained:
            # The client has the whole response now; the connection stays open until it has sent its body.
            await drain(request, self.settings, _DRAIN_SECONDS)
        await send({"type": "http.response.body", "body": b""})

    def _count(self, request: Request, status: int) -> Headers:
        """Counts a response, and returns the headers that every response carries."""
        duration = time.monotonic() - request.began
        self.observations.count_response(status)
        stages = request.stages
        if stages is None:
            timing = b"total;dur=%.3f" % (duration * 1000)
        else:
            timing = stages.header()
            self.observations.count_call(stages, duration, succeeded=status < 400)
        return [(b"x-request-id", request.id.encode()), _NO_SNIFFING, (b"server-timing", timing)]

    def _count_gone(self, request: Request) -> None:
        """Counts a request whose client disconnected before its response."""
        self.observations.count_response(CLIENT_GONE)
        if request.stages is not None:
            self.observations.count_call(request.stages, time.monotonic() - request.began, succeeded=False)


def _response_to(error: Exception, request: Request) -> Response:
    response = error_response(error, request.id, request.path)
    if response.status == 500 or (isinstance(error, MemoryError) and response.status == 503):
        request.error = error
        method, route = request.method, route_template(request.scope)
        fields = {"request_id": request.id, "method": method, "route": route, "status": response.status}
        message = "request %s (%s %s) failed"
        logger.error(message, request.id, method, route, exc_info=error, extra={"fields": fields})
    return response
