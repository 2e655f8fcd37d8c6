"""The front of the app: who may call, what every answer carries, and where every exception becomes an answer."""

from __future__ import annotations

import asyncio
import logging
import time

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zerocost.api.edge.access_log import ACCESS_ENTRY
from zerocost.api.edge.authentication import check_caller
from zerocost.api.routing import REQUEST, RouteCache, route_template
from zerocost.api.settings import Settings
from zerocost.api.telemetry.observations import CLIENT_GONE, Observations
from zerocost.api.wire.body import ClientGone, drain, is_all_read
from zerocost.api.wire.byte_budget import ByteBudget
from zerocost.api.wire.problems import HTTPError, problem_of
from zerocost.api.wire.protocol import write_at_once
from zerocost.api.wire.request import Request
from zerocost.api.wire.responses import Headers, Response

__all__ = ["EdgeMiddleware"]

logger = logging.getLogger("zerocost.api")

_PIECE = 1 << 20
"""Bytes that are handed to the server at a time, so that a slow reader holds no more than that in its buffer."""

_PATIENCE = 0.2
"""Seconds in which a refused body may come to its end, so that the connection can be used again."""

_DRAIN_SECONDS = 10.0
"""Seconds in which what comes after that is read and dropped, so that the client sees the answer, no broken pipe."""

_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_CLOSE = (b"connection", b"close")


class EdgeMiddleware:
    """The ASGI app in front of the routes."""

    def __init__(self, app: ASGIApp, shortcuts: RouteCache, settings: Settings, observations: Observations) -> None:
        """Takes the router, and what finds the routes that are called most."""
        self.app = app
        self.shortcuts = shortcuts
        self.settings = settings
        self.observations = observations
        self.budget = ByteBudget(settings.max_memory)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive, self.budget)
        watched = scope.get(ACCESS_ENTRY)
        if watched is not None:
            watched.request = request
        try:
            check_caller(request, self.settings)
            if b"upgrade" in request.headers:
                _refuse_upgrade(request)
            endpoint = self.shortcuts.find(scope)
            if endpoint is not None:
                request.response = await endpoint.function(request)
            else:
                await self._route(request, send)
            if request.response is not None:
                await self._send(request, request.response, send)
        except ClientGone:
            self._gone(request)
        except asyncio.CancelledError:
            # A server cancels what still runs at the end of its patience, and nothing else does.
            if request.has_started:
                raise
            headers = {"retry-after": "1", "connection": "close"}
            ending = HTTPError(503, "draining", "the server is shutting down", headers)
            await self._send(request, _answer_of(ending, request), send)
        except Exception as error:
            if request.has_started:
                logger.exception("request %s failed while its answer was being sent", request.id)
                raise
            await self._refuse(request, error, send)
        finally:
            self.budget.used -= request.held

    async def _route(self, request: Request, send: Send) -> None:
        async def send_and_see(message: Message) -> None:
            # Of a route that somebody added: ours leave their answer with the request.
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._seen(request, message["status"])]
                request.has_started = True
            await send(message)

        request.scope[REQUEST] = request
        try:
            await self.app(request.scope, request.receive, send_and_see)
        finally:
            del request.scope[REQUEST]

    async def _refuse(self, request: Request, error: Exception, send: Send) -> None:
        answer = _answer_of(error, request)
        try:
            # Who was too slow to send the body in time is not waited for again.
            is_late = answer.status in (408, 504) and not is_all_read(request)
            drained = not is_late and await drain(request, self.settings, _PATIENCE)
            if not drained:
                answer.headers.append(_CLOSE)
            await self._send(request, answer, send, drained=drained or is_late)
        except ClientGone:
            if not request.has_started:
                self._gone(request)

    async def _send(self, request: Request, answer: Response, send: Send, *, drained: bool = True) -> None:
        """Sends an answer; what is still sent of the body (not ``drained``) is dropped before it ends."""
        body = answer.body
        length = sum(map(len, body))
        request.take(length)
        headers = [*answer.headers, (b"content-length", b"%d" % length), *self._seen(request, answer.status)]
        request.has_started = True
        is_whole = drained and len(body) == 1 and length <= _PIECE
        if is_whole and write_at_once(send, answer.status, headers, body[0]):
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if is_whole:
            await send({"type": "http.response.body", "body": body[0]})
            return
        for piece in body:
            view = memoryview(piece)
            for start in range(0, len(view), _PIECE):
                await send({"type": "http.response.body", "body": view[start : start + _PIECE], "more_body": True})
        if not drained:
            # The client has all of the answer now; the connection stays until it has sent what it is sending.
            await drain(request, self.settings, _DRAIN_SECONDS)
        await send({"type": "http.response.body", "body": b""})

    def _seen(self, request: Request, status: int) -> Headers:
        """Counts an answer; the headers that every answer carries."""
        duration = time.monotonic() - request.began
        self.observations.answered(status)
        stages = request.stages
        if stages is None:
            timing = b"total;dur=%.3f" % (duration * 1000)
        else:
            timing = stages.header()
            self.observations.finish(stages, duration, succeeded=status < 400)
        return [(b"x-request-id", request.id.encode()), _NO_SNIFFING, (b"server-timing", timing)]

    def _gone(self, request: Request) -> None:
        """Counts a request whose client went away before its answer."""
        self.observations.answered(CLIENT_GONE)
        if request.stages is not None:
            self.observations.finish(request.stages, time.monotonic() - request.began, succeeded=False)


def _refuse_upgrade(request: Request) -> None:
    """Refuses to change the protocol, where the server has not declined already: it leaves out the body then."""
    tokens = request.headers.get(b"connection", b"").lower().split(b",")
    if b"upgrade" in [token.strip() for token in tokens]:
        raise HTTPError(400, "bad_request", "Upgrade: no other protocol is spoken here", {"connection": "close"})


def _answer_of(error: Exception, request: Request) -> Response:
    status, document, headers = problem_of(error, request.id)
    if status == 500 or (isinstance(error, MemoryError) and status == 503):
        request.error = error
        seen = {
            "request_id": request.id,
            "method": request.method,
            "route": route_template(request.scope),
            "status": status,
        }
        logger.error(
            "request %s (%s %s) failed", request.id, seen["method"], seen["route"], exc_info=error, extra={"seen": seen}
        )
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    path = request.path
    if path == "/v2" or path.startswith("/v2/"):
        status = 400 if status == 422 else status
        body = orjson.dumps({"error": document["detail"]})
        return Response(status, [body], [(b"content-type", b"application/json"), *encoded])
    return Response(status, [orjson.dumps(document)], [(b"content-type", b"application/problem+json"), *encoded])
