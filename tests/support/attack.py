"""A real server process to attack, with its memory, and raw connections to it."""

import contextlib
import json
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

from support.paths import TESTS

PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from support.samples import Panics, echo_registry
from zerocost import create_app, default_registry
from zerocost.api.server import run as server
from zerocost.api.settings import Settings
from zerocost.api.wire import protocol
protocol.HEAD_SECONDS = {head_seconds}
protocol.UNREAD_SECONDS = {unread_seconds}
registry = echo_registry()
registry.register_artifact("panics", Panics(), "custom")
for spec in default_registry().list_artifacts():
    registry.register_artifact(spec.name, spec.implementation, spec.interface)
server.serve(create_app(registry, Settings(**{settings!r})), port={port}, log_level="error")
"""


BODY = json.dumps({"attention_matrix": [[1.0, 2.0], [3.0, 4.0]]}).encode()
MIB = 1 << 20


class Server:
    """A server process. ``memory`` and ``peak`` are bytes of its resident memory, now and at most so far."""

    def __init__(self, process, port):
        self.process = process
        self.port = port

    @property
    def memory(self):
        return self._status("VmRSS")

    @property
    def peak(self):
        return self._status("VmHWM")

    def _status(self, name):
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

    def forget_peak(self):
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def connect(self, receive_buffer=None, timeout=30):
        connection = socket.socket()
        try:
            if receive_buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.settimeout(timeout)
            connection.connect(("127.0.0.1", self.port))
        except OSError:
            connection.close()
            raise
        return connection

    def send(self, *pieces, timeout=30):
        """Sends the pieces on a connection of their own; the first answer, or what there is of it, in bounded time."""
        started = time.monotonic()
        with self.connect(timeout=timeout) as connection:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    connection.sendall(piece)
            answer = read_all(connection)
        assert time.monotonic() - started < 2 * timeout
        return answer


def read_all(connection):
    """One answer with its body, or what comes of it until the other side closes or is silent for too long."""
    data = bytearray()
    with contextlib.suppress(ConnectionError, TimeoutError):
        while not is_complete(data) and (piece := connection.recv(1 << 16)):
            data += piece
    return bytes(data)


def is_complete(answer):
    """Whether an answer has all that its Content-Length says."""
    start, end, body = bytes(answer).partition(b"\r\n\r\n")
    lengths = [line[16:] for line in start.split(b"\r\n") if line.startswith(b"content-length: ")]
    return bool(end and lengths) and len(body) >= int(lengths[0])


def status(answer):
    """The status of an answer; None where there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


def head(path="/artifacts/scale/execute", method="POST", host="localhost", **headers):
    """A request's head. Underscores in names stand for hyphens; a list of values for a header sent more than once."""
    given = {"host": host, "content_type": "application/json", **headers}
    lines = [f"{method} {path} HTTP/1.1"]
    for name, values in given.items():
        values = values if isinstance(values, list) else [values]
        lines += [f"{name.replace('_', '-')}: {value}" for value in values]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


FINE = head(content_length=len(BODY)) + BODY
"""A request that is answered with 200."""


@contextlib.contextmanager
def attacked(head_seconds=30.0, unread_seconds=30.0, **settings):
    """A :class:`Server` for the sample artifacts."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    program = PROGRAM.format(
        tests=str(TESTS), port=port, settings=settings, head_seconds=head_seconds, unread_seconds=unread_seconds
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        server = Server(process, port)
        for _ in range(400):
            with contextlib.suppress(OSError):
                if status(server.send(head("/readyz", "GET"), timeout=5)) == 200:
                    break
            assert process.poll() is None, "the server has ended"
            time.sleep(0.05)
        yield server
    finally:
        process.kill()
        process.wait()
