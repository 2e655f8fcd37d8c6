"""Reading a request's body within limits and deadline: whole, piece by piece into arrays, or only to drop it."""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Message

from zerocost.api.settings import Settings
from zerocost.api.wire.body_deadline import BodyDeadline
from zerocost.api.wire.byte_budget import SMALL_BODY
from zerocost.api.wire.problems import HTTPError
from zerocost.api.wire.protocol import read_whole_body, receive_into
from zerocost.api.wire.request import Request
from zerocost.api.wire.responses import WINDOW_BITS
from zerocost.errors import DeadlineExceeded

__all__ = ["BodyReader", "BodyStream", "ClientGone", "drain", "is_all_read"]

Result = TypeVar("Result")

_INFLATE_BYTES = 256 << 10
"""Bytes that are decompressed before other tasks have their turn."""

_STEP = 1 << 20
"""Bytes that are read before they are counted."""

_LARGE_CHUNK = 4096
"""Bytes from which on a chunk is kept as it came."""


class ClientGone(Exception):
    """The client disconnected before its request was complete."""


class BodyStream:
    """The body of one request as it arrives, decompressed, within the limits; one copy for each byte.

    Attributes:
        length: how many bytes it has, if the client says so and the body is not compressed.
    """

    def __init__(self, request: Request, settings: Settings) -> None:
        """Looks at the headers.

        Raises:
            HTTPError: the declared length is beyond the limit (413), or the encoding is unknown (415).
        """
        self._request = request
        self._settings = settings
        self._inflate = _decompressor(request)
        declared = _check_length(request, settings)
        self.length = declared if self._inflate is None else None
        self._packed = b""
        self._is_inflating = False
        self._pending = memoryview(b"")
        self._more = True
        self._total = 0

    @classmethod
    def of(cls, data: bytes | bytearray, settings: Settings) -> BodyStream:
        """A body that is in memory already."""
        stream = cls(Request({"headers": []}, _disconnect), settings)
        stream._pending = memoryview(data)
        stream._more = False
        return stream

    async def read(self, size: int) -> bytes | None:
        """Exactly ``size`` bytes, None if the body ends before."""
        data = bytearray()
        while len(data) < size:
            piece = await self._next()
            if piece is None:
                return None
            taken = piece[: size - len(data)]
            data += taken
            self._pending = piece[len(taken) :]
        return bytes(data)

    async def read_into(self, target: memoryview) -> bool:
        """Fills ``target``; whether the body had that much."""
        filled = 0
        while filled < len(target):
            if not self._pending and self._more and self._inflate is None:
                # In steps, so that what has arrived is counted before more arrives.
                received = await receive_into(self._request.receive, target[filled : filled + _STEP])
                if received:
                    self._count(received)
                    filled += received
                    continue
            piece = await self._next()
            if piece is None:
                return False
            taken = piece[: len(target) - filled]
            target[filled : filled + len(taken)] = taken
            filled += len(taken)
            self._pending = piece[len(taken) :]
        return True

    async def rest(self) -> bytearray:
        """Everything that is left."""
        data = bytearray()  # not a list: a million small chunks must not become a million objects
        while (piece := await self._next()) is not None:
            data += piece
            self._pending = memoryview(b"")
        return data

    async def is_at_end(self) -> bool:
        """Whether nothing is left."""
        return await self._next() is None

    async def _next(self) -> memoryview | None:
        while not self._pending:
            if self._inflate is not None and self._is_inflating:
                chunk = await self._inflated(self._inflate)
            elif self._more:
                chunk = await _receive(self._request)
                self._more = bool(self._request.has_more)
                if self._inflate is not None and chunk:
                    self._packed, self._is_inflating = chunk, True
                    continue
            else:
                if self._inflate is not None and not self._inflate.eof:
                    raise HTTPError(400, "bad_request", "the compressed body is not complete")
                return None
            self._count(len(chunk))
            self._pending = memoryview(chunk)
        return self._pending

    def _count(self, size: int) -> None:
        self._total += size
        if self._total > self._settings.max_body:
            raise _too_large(self._settings)
        self._request.memory.grow(self._total, self._total - size)

    async def _inflated(self, inflate: zlib._Decompress) -> bytes:
        """The next slice of a compressed chunk, which may become a thousand times as large."""
        try:
            data = inflate.decompress(self._packed, _INFLATE_BYTES)
        except zlib.error:
            raise HTTPError(400, "bad_request", "the compressed body is damaged") from None
        if inflate.unused_data:
            raise HTTPError(400, "bad_request", "more bytes follow the compressed body")
        self._packed = inflate.unconsumed_tail
        self._is_inflating = bool(self._packed) or len(data) == _INFLATE_BYTES
        await asyncio.sleep(0)
        return data


class BodyReader:
    """Reads bodies within the limits and the body deadline."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._deadline = BodyDeadline(settings.request_timeout)
        self._small = min(SMALL_BODY, settings.max_body)

    async def read_whole(self, request: Request) -> bytes | bytearray:
        """The whole body, decompressed.

        Raises:
            HTTPError: it is too large, as declared, as sent or after decompression (413), of an unknown encoding (415),
                or too slow (408).
            DeadlineExceeded: as :meth:`within_deadline`.
            ClientGone: the client disconnected before its end.
        """
        if b"content-encoding" in request.headers and request.content_encoding != "identity":
            return await self.within_deadline(request, BodyStream(request, self._settings).rest())
        whole = read_whole_body(request.receive, self._small)
        if whole is not None:
            request.has_more = False
            return whole
        return await self.within_deadline(request, self._join(request))

    async def within_deadline(self, request: Request, reading: Coroutine[Any, Any, Result]) -> Result:
        """Awaits a coroutine that reads a body as it arrives.

        Raises:
            HTTPError: it takes longer than this server lets any request take (408).
            DeadlineExceeded: the client's own ``Request-Timeout`` passed before (504): the client gave up.
        """
        with self._deadline:
            if request.deadline is None:
                return await reading
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout_at(loop.time() + request.deadline - time.monotonic()) as own:
                    return await reading
            except TimeoutError:
                if own.expired():
                    raise DeadlineExceeded("the deadline passed before the body had arrived") from None
                raise

    async def _join(self, request: Request) -> bytes | bytearray:
        _check_length(request, self._settings)
        pieces: list[bytes | bytearray] = []
        length = 0
        while True:
            chunk = await _receive(request)
            length += len(chunk)
            if length > self._settings.max_body:
                raise _too_large(self._settings)
            if length > SMALL_BODY:
                request.memory.grow(length, length - len(chunk))
            if not request.has_more:
                # One chunk, as the server handed it over, or all of them copied once.
                return b"".join([*pieces, chunk]) if pieces else chunk
            if len(chunk) >= _LARGE_CHUNK or not pieces or not isinstance(pieces[-1], bytearray):
                # A million small chunks must not become a million objects.
                pieces.append(chunk if len(chunk) >= _LARGE_CHUNK else bytearray(chunk))
            else:
                pieces[-1] += chunk


async def drain(request: Request, settings: Settings, seconds: float) -> bool:
    """Reads and drops the rest of a refused body, for so many seconds and ``max_drain`` bytes at most.

    Returns:
        Whether the body came to its end within these bounds.
    """
    if is_all_read(request):
        return True
    if b"expect" in request.headers and request.has_more is None:
        return False  # the client still waits to be asked for it
    left = settings.max_drain
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while left > 0:
                left -= len(await _receive(request))
                if not request.has_more:
                    return True
    return False


def is_all_read(request: Request) -> bool:
    """Whether nothing of the body is still to come."""
    return not (request.has_body if request.has_more is None else request.has_more)


async def _receive(request: Request) -> bytes:
    """The next chunk; the request knows afterwards whether there are more."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    request.has_more = message.get("more_body", False)
    chunk: bytes = message.get("body", b"")
    return chunk


def _decompressor(request: Request) -> zlib._Decompress | None:
    """What decompresses the body, None where nothing must; raises HTTPError (415) for an unknown encoding."""
    encoding = request.content_encoding
    if encoding == "identity":
        return None
    if encoding not in WINDOW_BITS:
        allowed = {"accept-encoding": "gzip, deflate"}
        raise HTTPError(415, "unsupported_encoding", "Content-Encoding must be gzip or deflate", allowed)
    return zlib.decompressobj(WINDOW_BITS[encoding])


def _check_length(request: Request, settings: Settings) -> int | None:
    """The declared length; raises HTTPError where so much is never taken (413), or not at the moment (503)."""
    declared = request.whole_number("Content-Length")
    if declared is not None:
        if declared > settings.max_body:
            raise _too_large(settings)
        request.memory.check(declared)
    return declared


def _too_large(settings: Settings) -> HTTPError:
    return HTTPError(413, "limit", f"the body is larger than {settings.max_body} bytes")


async def _disconnect() -> Message:
    return {"type": "http.disconnect"}
