"""Serving an app with uvicorn: in the foreground until a signal, or in the background for as long as a block runs."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn

from zerocost.errors import ServiceUnavailable

__all__ = ["background_server", "serve"]

_START_SECONDS = 30.0
_IDLE_SECONDS = 15


class _Server(uvicorn.Server):
    """Ends with exit code 0 after SIGTERM: what was accepted was answered, so the end was as asked for."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            # uvicorn would raise them again once its handlers are gone, and die of SIGTERM with another exit code.
            self._captured_signals.clear()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops: not ready from now on, running requests finish."""
        stop = getattr(getattr(self.config.app, "state", None), "stop_taking", None)
        if stop is not None:
            stop()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, and says where: uvicorn does not for a socket that it was given."""
        await super().startup(sockets)
        for listener in sockets or () if self.started else ():
            logging.getLogger("uvicorn.error").info("Serving at %s (Ctrl-C stops)", _url(listener))


def _config(app: Any, host: str, port: int, **options: Any) -> uvicorn.Config:
    defaults: dict[str, Any] = {
        "timeout_keep_alive": _IDLE_SECONDS,
        "server_header": False,
        "date_header": True,
        "access_log": False,
        "lifespan": "on",
    }
    return uvicorn.Config(app, host=host, port=port, **{**defaults, **options})


def _run(server: _Server, listener: socket.socket) -> None:
    # uvicorn ends a process that cannot start; here it is a thread, and who started it sees that it has ended.
    with contextlib.suppress(SystemExit):
        server.run([listener])


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    # uvicorn leaves the option to who makes the socket: without it small answers wait for the client's ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: Any, host: str = "127.0.0.1", port: int = 8000, **options: Any) -> None:
    """Serves until SIGINT or SIGTERM; running requests finish first.

    Args:
        app: an ASGI app.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        options: further options of ``uvicorn.Config`` (``ssl_certfile``, ``timeout_graceful_shutdown``, …).

    Raises:
        OSError: the address is taken, or is not this machine's.
    """
    with _listen(host, port) as listener:
        _Server(_config(app, host, port, **options)).run([listener])


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
    listener = _listen(host, port)
    server = _Server(_config(app, host, port, **{"log_level": "warning", **options}))
    thread = threading.Thread(target=_run, args=(server, listener), name="zerocost-server", daemon=True)
    try:
        thread.start()
        pause = threading.Event()
        waited = 0.0
        while not server.started:
            if not thread.is_alive() or waited > _START_SECONDS:
                raise ServiceUnavailable(f"the server on {host} did not start; its log says why")
            pause.wait(0.01)
            waited += 0.01
        yield _url(listener)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
