"""uvicorn's HTTP protocol with what it lacks: limits on the head of a request and on who does not fetch an answer.

It also costs less: a timer for each connection, not for each request. And what is there whole, a body or an answer, is
read and written in one step, which takes a tenth of what ASGI's messages take.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Any

from httptools import HttpRequestParser
from starlette.types import Receive, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

__all__ = ["Protocol", "fill", "read_at_once", "write_at_once"]

MAX_HEAD = 64 << 10
"""Bytes of a request line and its headers. One read more may be taken before they are counted."""

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

_AHEAD = 1 << 20
"""Bytes of an answer that may stand behind those that the client fetches, so that it never has to wait for them."""

HEAD_SECONDS = 30.0
"""Seconds from a connection's first moment, or a request's first byte, to the end of its headers."""

UNREAD_SECONDS = 30.0
"""Seconds in which a client must take so much of an answer that there is room for more (a piece is 1 MiB)."""


class Protocol(HttpToolsProtocol):
    """One connection. It ends when a head is too long (431) or too slow, and when an answer is not fetched."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head: int | None = 0
        """Bytes of the head that is being read; None: none is."""
        self._until: float | None = None
        """When the connection ends unless there is a head, or the next request, before."""
        self._data = b""
        self._again: bytes | None = None
        """What is to be read next instead of what the parser left out."""
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._target: memoryview | None = None
        """Where the body goes that is being read, and how much of it is there."""
        self._filled = 0

    async def fill(self, target: memoryview) -> int:
        """Fills ``target`` with what comes of the body, without waking who waits for it in between.

        Returns:
            How many bytes it has now: fewer where the body has ended, or the client has gone.
        """
        cycle = self.cycle
        self._target, self._filled = target, 0
        try:
            while self._filled < len(target) and cycle.more_body and not cycle.disconnected:
                cycle.message_event.clear()
                self.flow.resume_reading()
                await cycle.message_event.wait()
        finally:
            self._target = None
        return self._filled

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Waits for the first request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.transport.set_write_buffer_limits(_AHEAD, _AHEAD // 4)
        self._wait(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends."""
        if self._timer is not None:
            self._timer.cancel()
        self._is_read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what the client sent."""
        before, is_waiting = self.scope, self._head is not None or self._until is not None
        rest: bytes | None = data
        while rest is not None:  # no call in a call: one piece may hold many requests with an offer
            self._data, self._again = rest, None
            super().data_received(rest)
            rest = self._again
        self._data, self._again = b"", None
        scope = self.scope
        if scope is None or "path" not in scope:
            self._read_head(len(data) if scope is before or is_waiting else 0)
        elif is_waiting:
            self._head = None
            if self.cycle is not None and not self.cycle.response_complete:
                self._until = None

    def _should_upgrade(self) -> bool:
        """Whether to call :meth:`handle_websocket_upgrade`; uvicorn asks where a client offers another protocol."""
        return True

    def handle_websocket_upgrade(self) -> None:
        """Declines the offer: the request is read again without it, for the parser leaves out what comes after."""
        offer, method = sys.exception(), self.parser.get_method()
        if method == b"CONNECT" or offer is None:
            self.send_400_response("Invalid HTTP request received.")
            return
        lines = [b"%b %b HTTP/1.1" % (method, self.url)]
        for name, value in self.headers:
            if name == b"connection":
                kept = [token for token in value.split(b",") if token.strip().lower() != b"upgrade"]
                value = b",".join(kept)
            if name != b"upgrade" and value:
                lines.append(b"%b: %b" % (name, value))
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._again = b"\r\n".join([*lines, b"", self._data[offer.args[0] :]])

    def _read_head(self, size: int) -> None:
        """Counts what has come of a head that has not come whole."""
        if self.transport.is_closing():
            return
        if self._head is None:
            self._head = 0
            self._wait(HEAD_SECONDS)
        self._head += size
        if self._head > MAX_HEAD:
            self._refuse_head()

    def on_body(self, body: bytes) -> None:
        """A piece of a body: what nothing waits in front of is handed on as it is, which saves copies of it."""
        cycle = self.cycle
        if cycle.response_complete:
            return
        target = self._target
        if target is not None and not cycle.body:
            at = self._filled
            taken = len(body) if len(body) < len(target) - at else len(target) - at
            target[at : at + taken] = body if taken == len(body) else memoryview(body)[:taken]
            self._filled = at + taken
            if self._filled < len(target):
                return
            body = body[taken:]
        if not cycle.body:
            cycle.body = body  # type: ignore[assignment]
        else:
            if type(cycle.body) is not bytearray:
                cycle.body = bytearray(cycle.body)
            cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Goes on with what the client has sent already, or waits for its next request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._head is None:
            self._wait(self.timeout_keep_alive)

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

    def _wait(self, seconds: float) -> None:
        """Ends the connection in so many seconds, unless :attr:`_until` changes before."""
        self._until = until = self.loop.time() + seconds
        if self._timer is not None and self._timer.when() > until:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self.loop.call_at(until, self._look)

    def _look(self) -> None:
        self._timer = None
        until = self._until
        if until is not None and self.loop.time() < until:
            self._timer = self.loop.call_at(until, self._look)
        elif until is not None and self._head is None:
            self.transport.close()  # it is idle: what it may still have to fetch is sent
        elif until is not None:
            self._end()

    def _refuse_head(self) -> None:
        """Answers 431 where nothing else is being answered; who goes on sending may see only the end."""
        self._until = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_TOO_LONG)
            self.transport.close()
        else:
            self.transport.abort()

    def _end(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


def read_at_once(receive: Receive, most: int) -> bytes | None:
    """A whole body of ``most`` bytes at most where ``receive`` is uvicorn's own and all of it is there already."""
    cycle = getattr(receive, "__self__", None)
    if type(cycle) is not RequestResponseCycle or cycle.more_body or cycle.disconnected or len(cycle.body) > most:
        return None
    body, cycle.body = bytes(cycle.body), bytearray()
    cycle.message_event.clear()
    return body


async def fill(receive: Receive, target: memoryview) -> int | None:
    """Fills ``target`` with what is still to come of a body, where ``receive`` is our protocol's own; else None.

    Returns:
        How many bytes it has now; None where the next message must be received as usual.
    """
    cycle = getattr(receive, "__self__", None)
    if type(cycle) is not RequestResponseCycle or cycle.body or not cycle.more_body or cycle.disconnected:
        return None
    protocol = getattr(cycle.on_response, "__self__", None)
    if type(protocol) is not Protocol or protocol.cycle is not cycle or cycle.waiting_for_100_continue:
        return None
    return await protocol.fill(target)


def write_at_once(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes | memoryview) -> bool:
    """Writes a whole answer where ``send`` is uvicorn's own, which would look at every header; whether it could.

    The headers are those of an answer of ours: small names, a Content-Length, and no line break in them.
    """
    cycle = getattr(send, "__self__", None)
    if type(cycle) is not RequestResponseCycle:
        return False  # another server, or somebody in between who wants to see the answer
    if cycle.disconnected:
        return True
    if cycle.access_log or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
        return False
    head: list[bytes | memoryview] = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        if name == b"connection":
            return False
        head += (name, b": ", value, b"\r\n")
    head.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
    if len(body) <= HIGH_WATER_LIMIT:
        head.append(body)
        cycle.transport.write(b"".join(head))
    else:
        cycle.transport.write(b"".join(head))
        cycle.transport.write(body)
    cycle.response_started = cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
