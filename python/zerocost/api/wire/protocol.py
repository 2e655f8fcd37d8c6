"""uvicorn's HTTP protocol with the limits that it lacks: on the head of a request, and on a client that does not read.

It also costs less. There is one timer for each connection, not for each request. A body that has arrived whole is read
in one step and a whole response is written in one, which takes a tenth of the time of ASGI's messages.
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

__all__ = ["Protocol", "read_whole_body", "receive_into", "write_whole_response"]

MAX_HEAD = 64 << 10
"""The most bytes of a request line and its headers. They are counted after a read, which may go beyond."""

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

_WRITE_BUFFER = 1 << 20
"""Bytes of a response that are buffered behind those that the client reads, so that it never waits for them."""

HEAD_SECONDS = 30.0
"""Seconds from the start of a connection, or the first byte of a later request, to the end of its headers."""

UNREAD_SECONDS = 30.0
"""Seconds in which a client must read enough of a response to make room for more (a piece is 1 MiB)."""


class Protocol(HttpToolsProtocol):
    """One connection. It ends when a head is too long (431) or too slow, and when the client does not read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head: int | None = 0
        """Bytes of the head that is being read; None while none is."""
        self._closes_at: float | None = None
        """When the connection ends, unless a whole head or the next request arrives before."""
        self._data = b""
        self._reparse: bytes | None = None
        """What is parsed next, in place of what the parser left out."""
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._target: memoryview | None = None
        """Where the body is read into, and how much of it has arrived."""
        self._filled = 0

    async def receive_into(self, target: memoryview) -> int:
        """Fills ``target`` with the body as it arrives; the task that waits for it wakes up once.

        Returns:
            How many bytes it has now: fewer if the body has ended or the client has disconnected.
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
        self.transport.set_write_buffer_limits(_WRITE_BUFFER, _WRITE_BUFFER // 4)
        self._close_in(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timers."""
        if self._timer is not None:
            self._timer.cancel()
        self._stop_unread_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses what the client sent, and counts it while no head is complete."""
        before, is_waiting = self.scope, self._head is not None or self._closes_at is not None
        rest: bytes | None = data
        while rest is not None:  # a loop, not a recursion: one piece may hold many requests that offer an upgrade
            self._data, self._reparse = rest, None
            super().data_received(rest)
            rest = self._reparse
        self._data, self._reparse = b"", None
        scope = self.scope
        if scope is None or "path" not in scope:
            self._read_head(len(data) if scope is before or is_waiting else 0)
        elif is_waiting:
            self._head = None
            if self.cycle is not None and not self.cycle.response_complete:
                self._closes_at = None

    def _should_upgrade(self) -> bool:
        """Whether to call :meth:`handle_websocket_upgrade`; uvicorn asks where a client offers another protocol."""
        return True

    def handle_websocket_upgrade(self) -> None:
        """Declines the upgrade: the request is parsed again without it, since the parser drops what follows."""
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
        self._reparse = b"\r\n".join([*lines, b"", self._data[offer.args[0] :]])

    def _read_head(self, size: int) -> None:
        """Counts the bytes of a head that is not complete."""
        if self.transport.is_closing():
            return
        if self._head is None:
            self._head = 0
            self._close_in(HEAD_SECONDS)
        self._head += size
        if self._head > MAX_HEAD:
            self._refuse_head()

    def on_body(self, body: bytes) -> None:
        """Takes a piece of a body. With nothing buffered before it, it is passed on as it is, which saves copies."""
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
        """Starts the next pipelined request, or waits for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._head is None:
            self._close_in(self.timeout_keep_alive)

    def pause_writing(self) -> None:
        """The client does not read what was written: gives it a while to."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(UNREAD_SECONDS, self._abort)

    def resume_writing(self) -> None:
        """The client has read enough to go on."""
        self._stop_unread_timer()
        super().resume_writing()

    def _stop_unread_timer(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _close_in(self, seconds: float) -> None:
        """Closes the connection in so many seconds, unless :attr:`_closes_at` changes before."""
        self._closes_at = until = self.loop.time() + seconds
        if self._timer is not None and self._timer.when() > until:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self.loop.call_at(until, self._check_timer)

    def _check_timer(self) -> None:
        self._timer = None
        until = self._closes_at
        if until is not None and self.loop.time() < until:
            self._timer = self.loop.call_at(until, self._check_timer)
        elif until is not None and self._head is None:
            self.transport.close()  # it is idle: what is still in the buffer is sent
        elif until is not None:
            self._abort()

    def _refuse_head(self) -> None:
        """Sends a 431, unless another response is on its way. A client that keeps sending may only see the close."""
        self._closes_at = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_TOO_LONG)
            self.transport.close()
        else:
            self.transport.abort()

    def _abort(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


def read_whole_body(receive: Receive, max_bytes: int) -> bytes | None:
    """The whole body, if ``receive`` is uvicorn's own and all of it has arrived; None otherwise, or if it is larger."""
    cycle = _cycle_of(receive)
    if cycle is None or cycle.more_body or cycle.disconnected or len(cycle.body) > max_bytes:
        return None
    body, cycle.body = bytes(cycle.body), bytearray()
    cycle.message_event.clear()
    return body


async def receive_into(receive: Receive, target: memoryview) -> int | None:
    """Fills ``target`` with the rest of a body as it arrives, if ``receive`` is that of :class:`Protocol`.

    Returns:
        How many bytes it has now; None where the next message must be received in ASGI's way.
    """
    cycle = _cycle_of(receive)
    if cycle is None or cycle.body or not cycle.more_body or cycle.disconnected:
        return None
    protocol = getattr(cycle.on_response, "__self__", None)
    if type(protocol) is not Protocol or protocol.cycle is not cycle or cycle.waiting_for_100_continue:
        return None
    return await protocol.receive_into(target)


def write_whole_response(
    send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes | memoryview
) -> bool:
    """Writes a whole response, if ``send`` is uvicorn's own, which would check every header; whether it could.

    Args:
        send: where the response goes.
        status: its status.
        headers: trusted ones: names in lower case, a Content-Length, and no line breaks.
        body: its body.
    """
    cycle = _cycle_of(send)
    if cycle is None:
        return False
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


def _cycle_of(function: Receive | Send) -> RequestResponseCycle | None:
    """Uvicorn's cycle behind a ``receive`` or ``send``; None for another server, or a middleware that wraps them."""
    cycle = getattr(function, "__self__", None)
    return cycle if type(cycle) is RequestResponseCycle else None
