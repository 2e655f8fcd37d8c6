"""A body as it arrives: read piece by piece into the arrays that kernels will use, one copy for each byte."""

from __future__ import annotations

import zlib

from starlette.types import Message, Receive, Scope

from zerocost.api.body import MORE, ClientGone, content_encoding, declared_length, inflated, inflater, too_large
from zerocost.api.problems import Refused
from zerocost.api.settings import Settings

__all__ = ["Chunks"]


class Chunks:
    """The body of one request, after decompression, within the limits.

    Attributes:
        length: how many bytes it has, if the client says so and it is not compressed.
    """

    def __init__(self, scope: Scope, receive: Receive, settings: Settings) -> None:
        self._scope = scope
        self._receive = receive
        self._settings = settings
        self._inflate: zlib._Decompress | None = None
        self._pending = memoryview(b"")
        self._more = True
        self._total = 0
        self.length: int | None = None

    @classmethod
    def of(cls, data: bytes, settings: Settings) -> Chunks:
        """A body that is in memory already."""
        chunks = cls({"headers": []}, _nothing, settings)
        chunks._pending = memoryview(data)
        chunks._more = False
        return chunks

    def open(self) -> None:
        """Looks at the headers.

        Raises:
            Refused: the declared length is beyond the limit (413), or the encoding is unknown (415).
        """
        encoding = content_encoding(self._scope)
        declared = declared_length(self._scope)
        if declared is not None and declared > self._settings.max_body:
            raise too_large(self._settings)
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
            piece = await self._next()
            if piece is None:
                return False
            taken = piece[: len(target) - filled]
            target[filled : filled + len(taken)] = taken
            filled += len(taken)
            self._pending = piece[len(taken) :]
        return True

    async def rest(self) -> bytes:
        """Everything that is left."""
        pieces = []
        while (piece := await self._next()) is not None:
            pieces.append(piece)
            self._pending = memoryview(b"")
        return b"".join(pieces)

    async def is_at_end(self) -> bool:
        """Whether there is nothing left."""
        return await self._next() is None

    async def _next(self) -> memoryview | None:
        while not self._pending:
            if not self._more:
                if self._inflate is not None and not self._inflate.eof:
                    raise Refused(400, "bad_request", "the compressed body is not complete")
                return None
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            self._more = self._scope[MORE] = message.get("more_body", False)
            if self._inflate is not None and chunk:
                chunk = inflated(self._inflate, chunk, self._settings.max_body - self._total)
            self._total += len(chunk)
            if self._total > self._settings.max_body:
                raise too_large(self._settings)
            self._pending = memoryview(chunk)
        return self._pending


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
