"""A Redis or Valkey server of the machine, on a port of its own."""

import contextlib
import shutil
import signal
import socket
import subprocess

import pytest

from support.ports import free_port
from support.waiting import wait_until

COMMAND = shutil.which("redis-server") or shutil.which("valkey-server")
needs_redis = pytest.mark.skipif(COMMAND is None, reason="redis-server is not installed (apt-get install redis-server)")


class RedisServer:
    """A server process that keeps nothing on disk."""

    def __init__(self, folder, *options):
        self.port = free_port()
        self.command = [COMMAND, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self.command += ["--enable-debug-command", "local", *options]
        self.process = None
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers)

    def _answers(self):
        assert self.process.poll() is None, "the Redis server has ended"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
