"""One HTTP request: its headers, and what the server keeps of it until it is answered."""

from __future__ import annotations

import math
import os
import re
import time

from starlette.types import Receive, Scope

from zerocost.api.wire.byte_budget import ByteBudget, Reservation
from zerocost.api.wire.problems import HTTPError
from zerocost.api.wire.responses import Response
from zerocost.api.wire.stages import Stages
from zerocost.core.safetensors import MEDIA_TYPE as SAFETENSORS

__all__ = ["Request"]

_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Request:
    """One request on its way through the app.

    Attributes:
        scope: the ASGI scope. It must not lead back here: a reference cycle lives until the garbage collector runs.
        receive: gives the body, and says when the client has disconnected.
        path: the path without the prefix under which another app may have mounted this one.
        headers: values by name; of a header that was sent twice, the last.
        id: the client's name for the request (``X-Request-Id``), or a random one.
        began: seconds on :func:`time.monotonic`.
        deadline: seconds on the same clock by which the client asked for its response; None where it did not.
        has_more: whether more of the body is to come; None before any of it was read.
        memory: the bytes that its body and its response hold.
        stages: where the time of a call goes; None for a request that computes nothing.
        response: what an endpoint leaves for the edge to send.
        error: an exception that the client was told nothing about (500).
        has_started: whether its response is on its way.
    """

    __slots__ = (
        "began",
        "deadline",
        "error",
        "has_more",
        "has_started",
        "headers",
        "id",
        "memory",
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
        self.memory = Reservation(budget or ByteBudget(math.inf))
        self.deadline: float | None = None
        self.has_more: bool | None = None
        self.has_started = False
        self.stages: Stages | None = None
        self.response: Response | None = None
        self.error: Exception | None = None

    @property
    def method(self) -> str:
        """GET, POST, …."""
        method: str = self.scope["method"]
        return method

    @property
    def path_params(self) -> dict[str, str]:
        """The parts of the path that its route names."""
        params: dict[str, str] = self.scope["path_params"]
        return params

    def header(self, name: bytes) -> str | None:
        """The only value of a header, None without one.

        Raises:
            HTTPError: the header was sent more than once (400).
        """
        value = self.headers.get(name)
        if value is None:
            return None
        sent = self.scope["headers"]
        if len(self.headers) != len(sent) and sum(key == name for key, _ in sent) > 1:
            raise HTTPError(400, "bad_request", f"the header {name.decode()} was sent more than once")
        return value.decode("latin-1")

    def seconds(self, name: str) -> float | None:
        """The number of seconds in a header, None without one; raises HTTPError (400) for anything else."""
        text = self.header(name.lower().encode())
        if text is None:
            return None
        try:
            if "_" in text:  # Python lets digits be grouped, HTTP does not
                raise ValueError
            return float(text)
        except ValueError:
            raise HTTPError(400, "bad_request", f"{name} must be a number of seconds") from None

    def whole_number(self, name: str) -> int | None:
        """The number in a header, None without one; raises HTTPError (400) for anything but digits."""
        text = self.header(name.lower().encode())
        if text is None:
            return None
        if not (text.isascii() and text.isdigit()) or len(text) > 18:
            raise HTTPError(400, "bad_request", f"{name} must be a number")
        return int(text)

    @property
    def media_type(self) -> str:
        """The Content-Type without its parameters, in lower case; empty without one."""
        value = self.header(b"content-type")
        return "" if value is None else value.partition(";")[0].strip().lower()

    @property
    def is_safetensors(self) -> bool:
        """Whether the body is safetensors, False for JSON; raises HTTPError (415) for any other media type."""
        if self.header(b"content-type") == "application/json":
            return False
        if self.media_type == SAFETENSORS:
            return True
        self.check_json()
        return False

    def check_json(self) -> None:
        """Raises HTTPError (415) for a media type that is not JSON's."""
        kind = self.media_type
        if kind != "application/json" and not kind.endswith("+json"):
            given = repr(kind[:100]) if kind else "none"
            message = f"Content-Type: {given} was given, application/json is needed"
            raise HTTPError(415, "unsupported_media_type", message)

    @property
    def content_encoding(self) -> str:
        """The Content-Encoding in lower case, ``"identity"`` without one."""
        return (self.header(b"content-encoding") or "identity").strip().lower()

    @property
    def has_body(self) -> bool:
        """Whether the headers announce a body."""
        return b"transfer-encoding" in self.headers or self.headers.get(b"content-length", b"0").strip() != b"0"

    @property
    def asks_for_upgrade(self) -> bool:
        """Whether the connection shall change its protocol."""
        if b"upgrade" not in self.headers:
            return False
        tokens = self.headers.get(b"connection", b"").lower().split(b",")
        return b"upgrade" in [token.strip() for token in tokens]
