"""Servers for tests: in this process, as ``zerocost serve`` starts them, and as programs of their own."""

import contextlib
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from support.paths import TESTS
from support.ports import free_port
from support.processes import environment
from support.raw_http import read_all
from support.waiting import wait_until
from zerocost import create_app, default_registry
from zerocost.api.server.run import background_server
from zerocost.api.settings import Settings

MIB = 1 << 20

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="reads the memory of a process from Linux's /proc"
)


@contextlib.contextmanager
def serving(registry=None, **settings):
    """A client of a server in this process for ``registry`` (by default the built-in artifacts)."""
    registry = default_registry() if registry is None else registry
    with (
        background_server(create_app(registry, Settings(**settings))) as url,
        httpx2.Client(base_url=url, trust_env=False, timeout=60) as client,
    ):
        yield client


def metric(page, name):
    """The sum of the series whose name and labels are ``name`` on a page of ``/metrics``; 0 where there is none."""
    return sum(float(value) for value in re.findall(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE))


def pending_requests(client):
    """How many requests the server of this client computes or holds back."""
    return metric(client.get("/metrics").text, "zerocost_pending_requests")


class Served(NamedTuple):
    """A running ``zerocost serve``. ``log`` has the lines of its stderr so far, and all of them once it has ended."""

    process: subprocess.Popen
    url: str
    log: list[str]


@contextlib.contextmanager
def serve_command(*options, cwd=TESTS, without=None, **variables):
    """Runs ``zerocost serve OPTIONS`` (by default on a free port) until the block ends.

    Args:
        options: of the command.
        cwd: the folder in which it runs.
        without: environment variables whose names contain this are left out.
        variables: environment variables to add.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "zerocost", "serve", "--port", "0", *map(str, options)],
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(without, **variables),
    )
    log = []
    # A log that nobody reads would fill the pipe and stop the server.
    reader = threading.Thread(target=lambda: log.extend(process.stderr), daemon=True)
    try:
        for line in process.stderr:
            log.append(line)
            if "Serving at" in line:
                break
        else:
            raise AssertionError(f"it ended before it served: {''.join(log)}")
        reader.start()
        yield Served(process, line.split("Serving at ")[1].split()[0], log)
    finally:
        process.kill()
        process.wait()
        if reader.ident is not None:
            reader.join(30)
        process.stderr.close()


class Program:
    """A server process. ``memory`` and ``peak`` are bytes of its resident memory, now and at most so far."""

    def __init__(self, process, port):
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

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

    def is_ready(self):
        assert self.process.poll() is None, "the server has ended"
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{self.url}/readyz", trust_env=False, timeout=5).status_code == 200
        return False

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
        """Sends the pieces on a new connection, and returns the first answer, or its beginning, in bounded time."""
        started = time.monotonic()
        with self.connect(timeout=timeout) as connection:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    connection.sendall(piece)
            answer = read_all(connection)
        assert time.monotonic() - started < 2 * timeout
        return answer


@contextlib.contextmanager
def serve_program(code, **variables):
    """Runs a program that serves on the port that is its argument, until the block ends; it answers already.

    Args:
        code: the program's text; it can import from ``support``.
        variables: environment variables to add.
    """
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", code, str(port)], env=environment(**variables))
    try:
        server = Program(process, port)
        wait_until(server.is_ready)
        yield server
    finally:
        process.kill()
        process.wait()


SAMPLES = """
import sys
from support.samples import Panics, echo_registry
from zerocost import create_app, default_registry
from zerocost.api.server.run import serve
from zerocost.api.settings import Settings
from zerocost.api.wire import protocol
protocol.HEAD_SECONDS = {head_seconds}
protocol.UNREAD_SECONDS = {unread_seconds}
registry = echo_registry()
registry.register_artifact("panics", Panics(), "custom")
for spec in default_registry().list_artifacts():
    registry.register_artifact(spec.name, spec.implementation, spec.interface)
serve(create_app(registry, Settings(**{settings!r})), port=int(sys.argv[1]), log_level="error")
"""


@contextlib.contextmanager
def serve_samples(head_seconds=30.0, unread_seconds=30.0, **settings):
    """A :class:`Program` that serves the sample artifacts and the built-in ones.

    Args:
        head_seconds: how long the server waits for the head of a request.
        unread_seconds: how long it waits for a client to read an answer.
        settings: of the app.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    code = SAMPLES.format(settings=settings, head_seconds=head_seconds, unread_seconds=unread_seconds)
    with serve_program(code) as server:
        yield server
