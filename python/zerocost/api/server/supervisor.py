"""Several worker processes behind one socket, and a supervisor that starts, replaces and stops them.

The workers are spawned, not forked: the kernels' threads, and whatever a third-party artifact holds, would not survive
a fork. Each worker makes its own registry and its own app.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from zerocost.api.server.run import run
from zerocost.api.settings import Settings
from zerocost.errors import ServiceUnavailable

__all__ = ["serve_workers"]

logger = logging.getLogger("zerocost.server")

_PAUSE = 1.0
"""Seconds before a dead worker is replaced, so that one that always dies does not keep the machine busy."""

MakeApp = Callable[[Settings], Any]


def serve_workers(make_app: MakeApp, settings: Settings, listener: socket.socket, **options: Any) -> None:
    """Serves with ``settings.processes`` processes until SIGINT or SIGTERM; all running requests finish first.

    Args:
        make_app: makes an app from settings. It is called in each worker process, so it must be picklable.
        settings: the server's.
        listener: a socket that listens; it is closed at the end.
        options: further options of ``uvicorn.Config``.

    Raises:
        ServiceUnavailable: the workers do not start.
    """
    cores = os.cpu_count() or 1
    share = max(1, cores // settings.processes)
    # All workers together have as many threads as a single one would.
    os.environ.setdefault("ZEROCOST_NUM_THREADS", str(share))
    settings = replace(settings, slots=settings.slots or share)
    with tempfile.TemporaryDirectory(prefix="zerocost-") as folder:
        _Supervisor(make_app, replace(settings, worker_folder=folder), listener, options).run()


class _Supervisor:
    def __init__(self, make_app: MakeApp, settings: Settings, listener: socket.socket, options: dict[str, Any]) -> None:
        self._arguments = (make_app, settings, listener, options)
        self._listener = listener
        self._wanted = settings.processes
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, BaseProcess] = {}
        self._started: dict[int, Any] = {}
        self._stopping = False

    def run(self) -> None:
        woken, wake = socket.socketpair()
        wake.setblocking(False)
        handlers = {sig: signal.signal(sig, self._stop) for sig in (signal.SIGINT, signal.SIGTERM)}
        before = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        try:
            for _ in range(self._wanted):
                self._start()
            while self._workers:
                wait([woken, *(worker.sentinel for worker in self._workers.values())])
                woken.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    woken.recv(4096)
                self._replace_dead_workers()
        finally:
            signal.set_wakeup_fd(before)
            for sig, handler in handlers.items():
                signal.signal(sig, handler)
            for worker in self._workers.values():
                worker.kill()
            woken.close()
            wake.close()
            self._listener.close()

    def _start(self) -> None:
        started = self._context.Event()
        worker = self._context.Process(target=_work, args=(*self._arguments, started), name="zerocost-worker")
        worker.start()
        assert worker.pid is not None  # noqa: S101 - it has just been started
        self._workers[worker.pid] = worker
        self._started[worker.pid] = started

    def _stop(self, sig: int, frame: Any) -> None:
        self._stopping = True
        for pid, worker in self._workers.items():
            if worker.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def _replace_dead_workers(self) -> None:
        for pid, worker in [(pid, worker) for pid, worker in self._workers.items() if not worker.is_alive()]:
            worker.join()
            del self._workers[pid]
            served = self._started.pop(pid).is_set()
            if self._stopping:
                continue
            if not served:
                self._stop(signal.SIGTERM, None)
                raise ServiceUnavailable("a worker did not start; the log says why")
            logger.error("worker %d ended with %s and is replaced", pid, worker.exitcode)
            time.sleep(_PAUSE)
            if not self._stopping:
                self._start()


def _follow_supervisor() -> None:
    """Ends this worker if its supervisor is killed, since nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _work(
    make_app: MakeApp, settings: Settings, listener: socket.socket, options: dict[str, Any], started: Any
) -> None:
    """What a worker process does."""
    # Until the server has its own handlers, only the supervisor reacts to a signal that all processes get.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        app = make_app(settings)
    except Exception:
        logger.exception("a worker could not make its app")
        sys.exit(1)
    app.state.on_serving = started.set
    threading.Thread(target=_follow_supervisor, daemon=True).start()
    run(app, listener, **options)
