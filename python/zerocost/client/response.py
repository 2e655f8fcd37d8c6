"""Reading a server's response as it arrives, without trusting it."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx2
import numpy as np
import orjson

from zerocost.core.safetensors import LONGEST_HEADER, MEDIA_TYPE, aligned_empty, grouped, header_size, parse_header
from zerocost.errors import ZerocostError

__all__ = ["DeadlinePassed", "InvalidResponse", "ResponseStream", "is_number", "read_outputs"]


class DeadlinePassed(Exception):
    """The deadline passed while a response arrived."""


class InvalidResponse(Exception):
    """A response that no zerocost server gives."""


def read_outputs(response: httpx2.Response, stream: ResponseStream) -> dict[str, Any]:
    """The outputs in a response, JSON or safetensors.

    Raises:
        InvalidResponse: it is neither.
        DeadlinePassed: it does not arrive in time.
    """
    try:
        if not response.headers.get("content-type", "").startswith(MEDIA_TYPE):
            content = orjson.loads(stream.read_all())
            if not isinstance(content, dict):
                raise InvalidResponse("no object")
            return content
        size = header_size(stream.take(8), LONGEST_HEADER)
        slots, metadata = parse_header(orjson.loads(stream.take(size)))
        arrays = {}
        for slot in slots:
            stream.expect(slot.nbytes)
            array = arrays[slot.name] = aligned_empty(slot.shape, slot.dtype)
            if slot.nbytes:
                stream.fill(array.reshape(-1).view(np.uint8).data)
        stream.finish()
        # orjson makes floats of long integers.
        return {**grouped(arrays), **json.loads(metadata.get("json", "{}"))}
    except (ValueError, TypeError, RecursionError, MemoryError, ZerocostError) as error:
        raise InvalidResponse(str(error)) from error


class ResponseStream:
    """A response as it arrives, until the deadline, and no more of it than its Content-Length says."""

    def __init__(self, response: httpx2.Response, until: float) -> None:
        self._chunks = response.iter_raw()
        self._until = until
        self._pending = memoryview(b"")
        length = response.headers.get("content-length", "")
        self._left: int | None = int(length) if is_number(length) else None

    def expect(self, size: int) -> None:
        """Raises unless ``size`` more bytes may come, so that nothing is allocated for a false announcement."""
        if self._left is None:
            # Without a Content-Length (a proxy may drop it) all of it is read before its header is believed.
            data = self.read_all()
            self._pending = memoryview(data)
            self._left = len(data)
        if size > self._left:
            raise InvalidResponse("it ends early")

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        self.expect(size)
        data = bytearray()
        while len(data) < size:  # in pieces: what is announced need not come
            piece = bytearray(min(size - len(data), 1 << 16))
            self.fill(memoryview(piece))
            data += piece
        return bytes(data)

    def fill(self, target: memoryview) -> None:
        """Fills ``target``; :meth:`expect` has allowed its size."""
        filled = 0
        while filled < len(target):
            if not self._pending:
                self._pending = memoryview(self._next())
                if not self._pending:
                    raise InvalidResponse("it ends early")
            taken = self._pending[: len(target) - filled]
            target[filled : filled + len(taken)] = taken
            filled += len(taken)
            self._pending = self._pending[len(taken) :]
        if self._left is not None:
            self._left -= filled

    def read_all(self, most: int | None = None) -> bytes:
        """The rest; raises for more than ``most`` bytes."""
        data = bytearray(self._pending)
        while chunk := self._next():
            data += chunk
            if most is not None and len(data) > most:
                raise InvalidResponse(f"more than {most} bytes")
        return bytes(data)

    def finish(self) -> None:
        """Raises if there is more. A connection can be reused when its response is read to the end."""
        if self._pending or self._next():
            raise InvalidResponse("there is more after its last tensor")

    def _next(self) -> bytes:
        """The next chunk; empty at the end. The deadline holds for the whole response, not for each chunk."""
        if time.monotonic() > self._until:
            raise DeadlinePassed
        return next(filter(None, self._chunks), b"")


def is_number(text: str) -> bool:
    """Whether a header is a whole number of a plausible length."""
    return text.isascii() and text.isdigit() and len(text) <= 18
