"""One HTTP request: what its head says, and what the server keeps of it while it is answered."""

from __future__ import annotations

import os
import re
import time

from starlette.types import Receive, Scope

from zerocost.api.wire.byte_budget import SMALL_BODY, ByteBudget
from zerocost.api.wire.problems import HTTPError
from zerocost.api.wire.responses import Response
from zerocost.api.wire.stages import Stages

__all__ = ["Request"]

_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Request:
    """One request on its way through the app.

    Attributes:
        scope: the ASGI scope. It must not lead back here: what is a circle stays until the garbage collector comes.
        receive: gives the body, and says when the client has gone.
        path: the path without the prefix under which another app may have mounted this one.
        headers: by name; of one that was sent twice, the last.
        id: what the client calls it (``X-Request-Id``), or a name of our own.
        began: seconds on :func:`time.monotonic`.
        deadline: seconds on the same clock by which the client asked for its answer; None where it did not.
        has_more: whether there is more of a body that has been begun; None before.
        budget: what bytes are taken from; None where nobody counts.
        held: the bytes that it has taken.
        stages: where the time of a call goes; None for what computes nothing.
        answer: what an endpoint leaves for the front to send.
        error: what the client was told nothing about (500).
        has_started: whether its answer is on its way.
    """

    __slots__ = (
        "began",
        "budget",
        "deadline",
        "error",
        "has_more",
        "has_started",
        "headers",
        "held",
        "id",
        "path",
        "receive",
        "response",
        "scope",
        "stages",
    )

    def __init__(self, scope: Scope, receive: Receive, budget: ByteBudget | None = None) -> None:
        self.began = time.monotonic()
        self.scope = scope
        self.receive = receive
        self.path: str = scope.get("path", "")
        prefix = scope.get("root_path")
        if prefix:
            self.path = self.path.removeprefix(prefix)
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id")
        self.id = given.decode() if given is not None and _ID.fullmatch(given) else os.urandom(16).hex()
        self.budget = budget
        self.held = 0
        self.deadline: float | None = None
        self.has_more: bool | None = None
        self.has_started = False
        self.stages: Stages | None = None
        self.response: Response | None = None
        self.error: Exception | None = None

    def header(self, name: bytes) -> str | None:
        """The only value of a header, None if there is none.

        Raises:
            HTTPError: the header is there more than once (400).
        """
        value = self.headers.get(name)
        if value is None:
            return None
        sent = self.scope["headers"]
        if len(self.headers) != len(sent) and sum(key == name for key, _ in sent) > 1:
            raise HTTPError(400, "bad_request", f"the header {name.decode()} was sent more than once")
        return value.decode("latin-1")

    def seconds(self, name: str) -> float | None:
        """The number of seconds in a header, None if there is none.

        Raises:
            HTTPError: it is no number (400).
        """
        text = self.header(name.lower().encode())
        if text is None:
            return None
        try:
            if "_" in text:  # digits may be grouped in Python, and nowhere in HTTP
                raise ValueError
            return float(text)
        except ValueError:
            raise HTTPError(400, "bad_request", f"{name} must be a number of seconds") from None

    @property
    def media_type(self) -> str:
        """The Content-Type without its parameters, in small letters; empty if there is none."""
        value = self.header(b"content-type")
        return "" if value is None else value.partition(";")[0].strip().lower()

    @property
    def method(self) -> str:
        """GET, POST, …."""
        method: str = self.scope["method"]
        return method

    def parameter(self, name: str) -> str:
        """A part of the path that the route names."""
        value: str = self.scope["path_params"][name]
        return value

    def take(self, size: int, before: int = 0) -> None:
        """Counts a body or an answer until the request is over.

        A body counts as it arrives: what a client only announces takes nothing from the others.

        Args:
            size: how many bytes it has by now.
            before: how many of them it had at the last call.

        Raises:
            HTTPError: all requests together would hold too much (503 with Retry-After), or this one alone (413).
        """
        if size > SMALL_BODY and self.budget is not None:
            self.held = self.budget.take(self.held, size if before <= SMALL_BODY else size - before)

    def check_room(self, size: int) -> None:
        """Raises as :meth:`take` would for a body of ``size`` bytes that is still to come."""
        if size > SMALL_BODY and self.budget is not None:
            self.budget.check(self.held, size)
