"""Reading a request's body within its limits."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import zlib
from typing import Any

from zerocost.api.settings import Settings
from zerocost.api.wire.problems import HTTPError
from zerocost.api.wire.request import Request

__all__ = [
    "BodyDeadline",
    "ClientGone",
    "content_encoding",
    "declared_length",
    "drain",
    "inflater",
    "is_all_read",
    "too_large",
]

_WINDOWS = {"gzip": 31, "deflate": 15}
"""The window bits by which zlib knows gzip (RFC 1952) and deflate as HTTP means it (RFC 1950)."""


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class BodyDeadline:
    """Ends bodies that do not arrive in time: a context in which a task reads one.

    One timer for all tasks: one for each costs more than a small request.

    Raises:
        HTTPError: inside, when it takes too long (408).
    """

    def __init__(self, seconds: float) -> None:
        """Takes the seconds that a body may take; 0 for no limit."""
        self._seconds = seconds or math.inf
        self._reading: dict[asyncio.Task[Any] | None, float] = {}
        self._sweeping = False

    def __enter__(self) -> None:
        """Begins to wait for a body."""
        self._reading[asyncio.current_task()] = time.monotonic() + self._seconds
        if not self._sweeping:
            self._sweep()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """It has come, or has been given up."""
        task = asyncio.current_task()
        until = self._reading.pop(task)
        if until == _LATE and kind is asyncio.CancelledError and task is not None:
            task.uncancel()
            raise HTTPError(408, "timeout", "the body did not arrive in time") from None

    def _sweep(self) -> None:
        now = time.monotonic()
        for task, until in self._reading.items():
            if now >= until > _LATE and task is not None:
                self._reading[task] = _LATE
                task.cancel()
        self._sweeping = bool(self._reading)
        if self._sweeping:
            asyncio.get_running_loop().call_later(min(self._seconds, 1.0), self._sweep)


_LATE = -1.0


def declared_length(request: Request) -> int | None:
    """The Content-Length, None if there is none.

    Raises:
        HTTPError: it is no number (400).
    """
    text = request.header(b"content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise HTTPError(400, "bad_request", "Content-Length must be a number")
    return int(text)


def content_encoding(request: Request) -> str:
    """The Content-Encoding; raises HTTPError (415) if it is not known."""
    encoding = (request.header(b"content-encoding") or "identity").strip().lower()
    if encoding != "identity" and encoding not in _WINDOWS:
        allowed = {"accept-encoding": "gzip, deflate"}
        raise HTTPError(415, "unsupported_encoding", "Content-Encoding must be gzip or deflate", allowed)
    return encoding


def inflater(encoding: str) -> zlib._Decompress | None:
    """What decompresses a body of that encoding."""
    return None if encoding == "identity" else zlib.decompressobj(_WINDOWS[encoding])


def too_large(settings: Settings) -> HTTPError:
    """The error for a body beyond the limit."""
    return HTTPError(413, "limit", f"the body is larger than {settings.max_body} bytes")


async def drain(request: Request, settings: Settings, seconds: float) -> bool:
    """Reads and drops what is still sent of a refused body, for so many seconds and bytes at most.

    Returns:
        Whether the body came to its end within the bounds in bytes and seconds.
    """
    if is_all_read(request):
        return True
    if b"expect" in request.headers and request.has_more is None:
        return False  # the client is still waiting to be asked for it
    left = settings.max_drain
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while left > 0:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                request.has_more = message.get("more_body", False)
                if not request.has_more:
                    return True
                left -= len(message.get("body", b""))
    return False


def is_all_read(request: Request) -> bool:
    """Whether nothing of the body is still to come."""
    return not (_has_body(request) if request.has_more is None else request.has_more)


def _has_body(request: Request) -> bool:
    return b"transfer-encoding" in request.headers or request.headers.get(b"content-length", b"0").strip() != b"0"
