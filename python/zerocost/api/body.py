"""Reading a request's body within its limits."""

from __future__ import annotations

import time
import zlib

from starlette.types import Receive, Scope

from zerocost.api.guard import header
from zerocost.api.problems import Refused
from zerocost.api.settings import Settings

__all__ = ["ClientGone", "declared_length", "media_type", "read_body"]

_DRAIN_SECONDS = 30.0
_WINDOWS = {"gzip": 31, "deflate": 15}
"""The window bits by which zlib knows gzip (RFC 1952) and deflate as HTTP means it (RFC 1950)."""


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


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
    if not (text.isascii() and text.isdigit()):
        raise Refused(400, "bad_request", "Content-Length must be a number")
    return int(text)


async def read_body(scope: Scope, receive: Receive, settings: Settings) -> bytes | bytearray:
    """The whole body, decompressed.

    Raises:
        Refused: it is too large, as declared, as sent or after decompression (413), or of an unknown encoding (415).
        ClientGone: it ended early.
    """
    encoding = (header(scope, b"content-encoding") or "identity").strip().lower()
    if encoding != "identity" and encoding not in _WINDOWS:
        await drain(scope, receive, settings)
        raise Refused(
            415,
            "unsupported_encoding",
            "Content-Encoding must be gzip or deflate",
            {"accept-encoding": "gzip, deflate"},
        )
    declared = declared_length(scope)
    if declared is not None and declared > settings.max_body:
        raise await too_large(scope, receive, settings)
    inflate = zlib.decompressobj(_WINDOWS[encoding]) if encoding != "identity" else None
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        if inflate is not None and chunk:
            chunk = _inflated(inflate, chunk, settings.max_body - len(body))
        if len(body) + len(chunk) > settings.max_body:
            raise await too_large(scope, receive, settings, more=more)
        if not more and not body and inflate is None:
            return bytes(chunk)  # one chunk, as the server handed it over
        body += chunk
    if inflate is not None and not inflate.eof:
        raise Refused(400, "bad_request", f"the {encoding} body is not complete")
    return body


def _inflated(inflate: zlib._Decompress, chunk: bytes, room: int) -> bytes:
    try:
        data = inflate.decompress(chunk, room + 1)
    except zlib.error:
        raise Refused(400, "bad_request", "the compressed body is damaged") from None
    if inflate.unused_data:
        raise Refused(400, "bad_request", "there is text after the compressed body")
    return data


async def too_large(scope: Scope, receive: Receive, settings: Settings, *, more: bool = True) -> Refused:
    """The 413 for a body beyond the limit, once what is still sent of it has been read, up to a bound."""
    finished = not more or await drain(scope, receive, settings)
    return Refused(
        413,
        "limit",
        f"the body is larger than {settings.max_body} bytes",
        {} if finished else {"connection": "close"},
    )


async def drain(scope: Scope, receive: Receive, settings: Settings) -> bool:
    """Reads and drops the rest of the body, up to a bound in bytes and seconds; whether it came to its end."""
    if (header(scope, b"expect") or "").lower() == "100-continue":
        return False  # the client is still waiting to be asked for it
    left = settings.max_drain
    until = time.monotonic() + _DRAIN_SECONDS
    while left > 0 and time.monotonic() < until:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        if not message.get("more_body", False):
            return True
        left -= len(message.get("body", b""))
    return False
