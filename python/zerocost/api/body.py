"""Reading a request's body within its limits."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive, Scope

from zerocost.api.guard import header
from zerocost.api.problems import Refused
from zerocost.api.settings import Settings

__all__ = [
    "MORE",
    "ClientGone",
    "Overdue",
    "content_encoding",
    "declared_length",
    "drain",
    "inflater",
    "media_type",
    "too_large",
]

Body = TypeVar("Body")

MORE = "zerocost.more_body"
"""Where the scope says whether there is more of a body that has been begun."""

_WINDOWS = {"gzip": 31, "deflate": 15}
"""The window bits by which zlib knows gzip (RFC 1952) and deflate as HTTP means it (RFC 1950)."""


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class Overdue:
    """Ends bodies that do not arrive in time. One timer for all: one for each costs more than a small request."""

    def __init__(self, seconds: float) -> None:
        """Takes the seconds that a body may take; 0 for no limit."""
        self._seconds = seconds
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    async def watch(self, reading: Coroutine[Any, Any, Body]) -> Body:
        """Awaits ``reading``; raises Refused (408) if it takes too long."""
        task = asyncio.current_task()
        if task is None or not self._seconds:
            return await reading
        loop = asyncio.get_running_loop()
        self._reading[task] = loop.time() + self._seconds
        if self._sweeping is None:
            self._sweeping = loop.call_later(min(self._seconds, 1.0), self._sweep, loop)
        try:
            return await reading
        except asyncio.CancelledError:
            if self._reading.get(task) != _LATE:
                raise
            task.uncancel()
            raise Refused(408, "timeout", "the body did not arrive in time") from None
        finally:
            del self._reading[task]

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task, until in self._reading.items():
            if now >= until > _LATE:
                self._reading[task] = _LATE
                task.cancel()
        again = min(self._seconds, 1.0)
        self._sweeping = loop.call_later(again, self._sweep, loop) if self._reading else None


_LATE = -1.0


def media_type(scope: Scope) -> str:
    """The Content-Type without its parameters, in small letters; empty if there is none."""
    return (header(scope, b"content-type") or "").partition(";")[0].strip().lower()


def declared_length(scope: Scope) -> int | None:
    """The Content-Length, None if there is none.

    Raises:
        Refused: it is no number (400).
    """
    text = header(scope, b"content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise Refused(400, "bad_request", "Content-Length must be a number")
    return int(text)


def content_encoding(scope: Scope) -> str:
    """The Content-Encoding; raises Refused (415) if it is not known."""
    encoding = (header(scope, b"content-encoding") or "identity").strip().lower()
    if encoding != "identity" and encoding not in _WINDOWS:
        allowed = {"accept-encoding": "gzip, deflate"}
        raise Refused(415, "unsupported_encoding", "Content-Encoding must be gzip or deflate", allowed)
    return encoding


def inflater(encoding: str) -> zlib._Decompress | None:
    """What decompresses a body of that encoding."""
    return None if encoding == "identity" else zlib.decompressobj(_WINDOWS[encoding])


def too_large(settings: Settings) -> Refused:
    """The error for a body beyond the limit."""
    return Refused(413, "limit", f"the body is larger than {settings.max_body} bytes")


async def drain(scope: Scope, receive: Receive, settings: Settings, seconds: float) -> bool:
    """Reads and drops what is still sent of a refused body, for so many seconds and bytes at most.

    Returns:
        Whether the body came to its end within the bounds in bytes and seconds.
    """
    if not scope.get(MORE, _has_body(scope)):
        return True
    if any(key == b"expect" for key, _ in scope["headers"]) and MORE not in scope:
        return False  # the client is still waiting to be asked for it
    left = settings.max_drain
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                scope[MORE] = message.get("more_body", False)
                if not scope[MORE]:
                    return True
                left -= len(message.get("body", b""))
    return False


def _has_body(scope: Scope) -> bool:
    return any(
        key == b"transfer-encoding" or (key == b"content-length" and value.strip() != b"0")
        for key, value in scope["headers"]
    )
