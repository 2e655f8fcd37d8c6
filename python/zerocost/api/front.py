"""The front of the app: request ids, who may call, and one place where every exception becomes an answer."""

from __future__ import annotations

import logging
import os
import re
import time

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zerocost.api.answer import Answer
from zerocost.api.body import ClientGone, drain
from zerocost.api.guard import OPEN_PATHS, check_caller, route_path
from zerocost.api.memory import Budget
from zerocost.api.observations import Observations
from zerocost.api.problems import problem_of
from zerocost.api.settings import Settings
from zerocost.api.watch import CLIENT_GONE, route_of

__all__ = ["Front"]

logger = logging.getLogger("zerocost.api")

_PATIENCE = 0.2
"""Seconds in which a refused body may come to its end, so that the connection can be used again."""

_DRAIN_SECONDS = 10.0
"""Seconds in which what comes after that is read and dropped, so that the client sees the answer, no broken pipe."""

_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Front:
    """ASGI middleware around the routes."""

    def __init__(self, app: ASGIApp, settings: Settings, observations: Observations) -> None:
        self.app = app
        self.settings = settings
        self.observations = observations
        self.budget = Budget(settings.max_memory)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["zerocost.request_id"] = request_id
        scope["zerocost.began"] = time.monotonic()
        self.budget.open(scope)
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = message["headers"]
                headers.append((b"x-request-id", request_id.encode()))
                headers.append(_NO_SNIFFING)
                self.observations.answered(message["status"])
                stages = scope.get("zerocost.stages")
                duration = time.monotonic() - scope["zerocost.began"]
                if stages is None:
                    headers.append((b"server-timing", b"total;dur=%.3f" % (duration * 1000)))
                else:
                    headers.append((b"server-timing", stages.header().encode()))
                    self.observations.finish(stages, duration, succeeded=message["status"] < 400)
            await send(message)

        try:
            if route_path(scope) not in OPEN_PATHS:
                check_caller(scope, self.settings)
            await self.app(scope, receive, send_with_id)
        except ClientGone:
            self._gone(scope)
        except Exception as error:
            if started:
                logger.exception("request %s failed while its answer was being sent", request_id)
                raise
            answer = _answer_of(error, request_id, scope)

            async def send_and_drain(message: Message) -> None:
                if message["type"] == "http.response.body":
                    # The client has all of the answer now; the connection stays until it has sent what it is sending.
                    await send({**message, "more_body": True})
                    await drain(scope, receive, self.settings, _DRAIN_SECONDS)
                    message = {"type": "http.response.body"}
                await send_with_id(message)

            try:
                # Who was too slow to send it in time is not waited for again.
                if answer.status == 408:
                    answer.headers.append((b"connection", b"close"))
                    await answer.send(send_with_id)
                elif await drain(scope, receive, self.settings, _PATIENCE):
                    await answer.send(send_with_id)
                else:
                    answer.headers.append((b"connection", b"close"))
                    await answer.send(send_and_drain)
            except ClientGone:
                if not started:
                    self._gone(scope)
        finally:
            self.budget.close(scope)

    def _gone(self, scope: Scope) -> None:
        """Counts a request whose client went away before its answer."""
        self.observations.answered(CLIENT_GONE)
        stages = scope.get("zerocost.stages")
        if stages is not None:
            self.observations.finish(stages, time.monotonic() - scope["zerocost.began"], succeeded=False)


def _request_id(scope: Scope) -> str:
    for key, value in scope["headers"]:
        if key == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return os.urandom(16).hex()


def _answer_of(error: Exception, request_id: str, scope: Scope) -> Answer:
    status, document, headers = problem_of(error, request_id)
    if status == 500:
        scope["zerocost.error"] = error
        seen = {"request_id": request_id, "method": scope["method"], "route": route_of(scope), "status": status}
        logger.error(
            "request %s (%s %s) failed", request_id, seen["method"], seen["route"], exc_info=error, extra={"seen": seen}
        )
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    path = route_path(scope)
    if path == "/v2" or path.startswith("/v2/"):
        status = 400 if status == 422 else status
        body = orjson.dumps({"error": document["detail"]})
        return Answer(status, [body], [(b"content-type", b"application/json"), *encoded])
    return Answer(status, [orjson.dumps(document)], [(b"content-type", b"application/problem+json"), *encoded])
