"""Serving an app with uvicorn: in the foreground until a signal, or in the background while a block runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn

from zerocost.api.settings import Settings
from zerocost.api.wire.protocol import Protocol
from zerocost.errors import ServiceUnavailable

__all__ = ["background_server", "listen", "run", "serve"]

logger = logging.getLogger("zerocost.server")

_START_SECONDS = 30.0
_KEEP_ALIVE_SECONDS = 15
_UNACKNOWLEDGED_SECONDS = 60
_ACCEPT_SECONDS = 0.05


class _Server(uvicorn.Server):
    """Exits with code 0 after SIGTERM: every accepted request was answered, as asked."""

    drain_delay = 0.0
    _draining = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            # uvicorn would raise them again without its handlers, and SIGTERM would end it with another exit code.
            self._captured_signals.clear()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops: at once not ready, after the drain delay no longer listening, while running requests finish."""
        stop = getattr(getattr(self.config.app, "state", None), "stop_accepting", None)
        if stop is not None:
            stop()
        if self.drain_delay and not (self._draining and sig == signal.SIGINT):
            # Meanwhile load balancers learn from /readyz to send requests elsewhere. Ctrl-C ends the delay. SIGTERM
            # does not: it may come twice, from the supervisor and from whatever stops all processes.
            if not self._draining:
                self._draining = True
                self._loop.call_soon_threadsafe(self._loop.call_later, self.drain_delay, self._stop_listening)
            return
        super().handle_exit(sig, frame)

    def _stop_listening(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts the connections in the kernel's backlog, which closing the socket would reset, and ends."""
        # One turn of the loop accepts one connection, and a few more read its request.
        await asyncio.sleep(_ACCEPT_SECONDS)
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, and logs the address: uvicorn does not for a socket that it is given."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if not self.started:
            return
        for listener in sockets or ():
            logger.info("Serving at %s (Ctrl-C stops)", _url(listener, self.config.is_ssl))
        on_serving = getattr(getattr(self.config.app, "state", None), "on_serving", None)
        if on_serving is not None:
            on_serving()


def _config(app: Any, **options: Any) -> uvicorn.Config:
    defaults: dict[str, Any] = {
        "http": Protocol,
        "timeout_keep_alive": _KEEP_ALIVE_SECONDS,
        "server_header": False,
        "date_header": True,
        "access_log": False,
        "lifespan": "on",
    }
    return uvicorn.Config(app, **{**defaults, **options})


def _run_quietly(server: _Server, listener: socket.socket) -> None:
    # uvicorn exits when it cannot start. On a thread that ends the thread, and whoever started it notices.
    with contextlib.suppress(SystemExit):
        server.run([listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: the address is in use, or is not this machine's.
    """
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    # Without it small responses wait for the client's ACK. uvicorn does not set it on a socket that it is given.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # The time until a client whose machine no longer answers counts as gone; by default a quarter of an hour.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_SECONDS * 1000)
    return listener


def _url(listener: socket.socket, is_ssl: bool) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "https" if is_ssl else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def run(app: Any, listener: socket.socket, **options: Any) -> None:
    """Serves on a socket until SIGINT or SIGTERM; running requests finish first, within the app's ``drain_timeout``.

    Args:
        app: an ASGI app.
        listener: a socket that listens.
        options: further options of ``uvicorn.Config`` (``ssl_certfile``, …).
    """
    state = getattr(app, "state", None)
    settings = getattr(state, "settings", None) or Settings()
    server = _Server(_config(app, **{"timeout_graceful_shutdown": settings.drain_timeout or None, **options}))
    server.drain_delay = settings.drain_delay
    server.run([listener])
    left = state.running() if state is not None and hasattr(state, "running") else 0
    if left:
        # Python would wait for their threads, which cannot be stopped.
        logger.error("%d requests were still running after %g s and are given up", left, settings.drain_timeout)
        logging.shutdown()
        sys.stderr.flush()
        os._exit(0)


def serve(app: Any, host: str = "127.0.0.1", port: int = 8000, **options: Any) -> None:
    """Serves until SIGINT or SIGTERM, as :func:`run` does.

    Args:
        app: an ASGI app.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        options: further options of ``uvicorn.Config``.

    Raises:
        OSError: the address is in use, or is not this machine's.
    """
    with listen(host, port) as listener:
        run(app, listener, **options)


@contextlib.contextmanager
def background_server(app: Any, host: str = "127.0.0.1", port: int = 0, **options: Any) -> Iterator[str]:
    """Serves in a thread of its own while the block runs, and stops it cleanly.

    Args:
        app: an ASGI app.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        options: further options of ``uvicorn.Config``.

    Yields:
        The server's URL, ``http://127.0.0.1:PORT``, once it answers.

    Raises:
        ServiceUnavailable: it did not start.
    """
    listener = listen(host, port)
    server = _Server(_config(app, **{"log_level": "warning", **options}))
    thread = threading.Thread(target=_run_quietly, args=(server, listener), name="zerocost-server", daemon=True)
    try:
        thread.start()
        pause = threading.Event()
        waited = 0.0
        while not server.started:
            if not thread.is_alive() or waited > _START_SECONDS:
                raise ServiceUnavailable(f"the server on {host} did not start; its log says why")
            pause.wait(0.01)
            waited += 0.01
        yield _url(listener, server.config.is_ssl)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
