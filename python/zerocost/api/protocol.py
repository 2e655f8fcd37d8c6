"""uvicorn's HTTP protocol with what it lacks: limits on the head of a request and on who does not fetch an answer."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Protocol"]

MAX_HEAD = 64 << 10
"""Bytes of a request line and its headers. One read more may be taken before they are counted."""

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

HEAD_SECONDS = 30.0
"""Seconds from a connection's first moment, or a request's first byte, to the end of its headers."""

UNREAD_SECONDS = 30.0
"""Seconds in which a client must take so much of an answer that there is room for more (a piece is 1 MiB)."""


class Protocol(HttpToolsProtocol):
    """One connection. It ends when a head is too long (431) or too slow, and when an answer is not fetched."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head: int | None = 0
        """Bytes of the head so far; None where none has begun."""
        self._ending: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Waits for the first request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._ending = self.loop.call_later(HEAD_SECONDS, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends."""
        self._no_longer_waiting()
        self._is_read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what the client sent."""
        super().data_received(data)
        if self._head is None:
            return
        self._head += len(data)
        if self._head > MAX_HEAD:
            self._refuse_head()
        elif self._ending is None:
            self._ending = self.loop.call_later(HEAD_SECONDS, self._end)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._head = 0

    def on_headers_complete(self) -> None:
        """The end of the head."""
        self._no_longer_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body: what nothing waits in front of is handed on as it is, which saves two copies of it."""
        cycle = self.cycle
        if not cycle.body and len(body) > HIGH_WATER_LIMIT and not cycle.response_complete:
            cycle.body = body  # type: ignore[assignment]
            self.flow.pause_reading()
            cycle.message_event.set()
            return
        if type(cycle.body) is not bytearray:
            cycle.body = bytearray(cycle.body)
        super().on_body(body)

    def pause_writing(self) -> None:
        """The client does not fetch what was written."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(UNREAD_SECONDS, self._end)

    def resume_writing(self) -> None:
        """The client fetched it."""
        self._is_read()
        super().resume_writing()

    def _is_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _no_longer_waiting(self) -> None:
        self._head = None
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _refuse_head(self) -> None:
        """Answers 431 where nothing else is being answered; who goes on sending may see only the end."""
        self._no_longer_waiting()
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_TOO_LONG)
            self.transport.close()
        else:
            self.transport.abort()

    def _end(self) -> None:
        self._no_longer_waiting()
        if not self.transport.is_closing():
            self.transport.abort()
