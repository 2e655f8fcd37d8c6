"""A body as it arrives: read piece by piece into the arrays that kernels will use, one copy for each byte."""

from __future__ import annotations

import asyncio
import zlib

from starlette.types import Message

from zerocost.api.settings import Settings
from zerocost.api.wire.body import ClientGone, content_encoding, declared_length, inflater, too_large
from zerocost.api.wire.byte_budget import SMALL_BODY
from zerocost.api.wire.problems import HTTPError
from zerocost.api.wire.protocol import fill
from zerocost.api.wire.request import Request

__all__ = ["BodyStream", "read_body"]

_SLICE = 256 << 10
"""Bytes that are decompressed before others have their turn."""

_STEP = 1 << 20
"""Bytes that are read before they are counted."""

_LARGE = 4096
"""Bytes from which a chunk is kept as it came."""


class BodyStream:
    """The body of one request, after decompression, within the limits.

    Attributes:
        length: how many bytes it has, if the client says so and it is not compressed.
    """

    def __init__(self, request: Request, settings: Settings) -> None:
        self._request = request
        self._settings = settings
        self._inflate: zlib._Decompress | None = None
        self._packed = b""
        self._is_unpacking = False
        self._pending = memoryview(b"")
        self._more = True
        self._total = 0
        self.length: int | None = None

    @classmethod
    def of(cls, data: bytes | bytearray, settings: Settings) -> BodyStream:
        """A body that is in memory already."""
        chunks = cls(Request({"headers": []}, _nothing), settings)
        chunks._pending = memoryview(data)
        chunks._more = False
        return chunks

    def open(self) -> None:
        """Looks at the headers.

        Raises:
            HTTPError: the declared length is beyond the limit (413), or the encoding is unknown (415).
        """
        encoding = content_encoding(self._request)
        declared = _expect(self._request, self._settings)
        self._inflate = inflater(encoding)
        self.length = declared if self._inflate is None else None

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
                # Step by step, so that what has come is counted before more comes.
                here = await fill(self._request.receive, target[filled : filled + _STEP])
                if here:
                    self._count(here)
                    filled += here
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
        """Whether there is nothing left."""
        return await self._next() is None

    async def _next(self) -> memoryview | None:
        while not self._pending:
            if self._inflate is not None and self._is_unpacking:
                chunk = await self._unpacked(self._inflate)
            elif self._more:
                message = await self._request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunk = message.get("body", b"")
                self._more = self._request.has_more = message.get("more_body", False)
                if self._inflate is not None and chunk:
                    self._packed, self._is_unpacking = chunk, True
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
            raise too_large(self._settings)
        self._request.take(self._total, self._total - size)

    async def _unpacked(self, inflate: zlib._Decompress) -> bytes:
        """The next slice of a compressed chunk, which may become a thousand times as large."""
        try:
            data = inflate.decompress(self._packed, _SLICE)
        except zlib.error:
            raise HTTPError(400, "bad_request", "the compressed body is damaged") from None
        if inflate.unused_data:
            raise HTTPError(400, "bad_request", "there is more after the compressed body")
        self._packed = inflate.unconsumed_tail
        self._is_unpacking = bool(self._packed) or len(data) == _SLICE
        await asyncio.sleep(0)
        return data


async def read_body(request: Request, settings: Settings) -> bytes | bytearray:
    """The whole body, decompressed.

    Raises:
        HTTPError: it is too large, as declared, as sent or after decompression (413), or of an unknown encoding (415).
        ClientGone: it ended early.
    """
    if b"content-encoding" in request.headers and content_encoding(request) != "identity":
        chunks = BodyStream(request, settings)
        chunks.open()
        return await chunks.rest()
    _expect(request, settings)
    pieces: list[bytes | bytearray] = []
    length = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        request.has_more = more = message.get("more_body", False)
        length += len(chunk)
        if length > settings.max_body:
            raise too_large(settings)
        if length > SMALL_BODY:
            request.take(length, length - len(chunk))
        if not more:
            # One chunk, as the server handed it over, or all of them copied once.
            return b"".join([*pieces, chunk]) if pieces else chunk
        if len(chunk) >= _LARGE or not pieces or not isinstance(pieces[-1], bytearray):
            # A million small chunks must not become a million objects.
            pieces.append(chunk if len(chunk) >= _LARGE else bytearray(chunk))
        else:
            pieces[-1] += chunk


def _expect(request: Request, settings: Settings) -> int | None:
    """The declared length; raises HTTPError where so much cannot be taken (413), or not now (503)."""
    declared = declared_length(request)
    if declared is not None:
        if declared > settings.max_body:
            raise too_large(settings)
        request.check_room(declared)
    return declared


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
