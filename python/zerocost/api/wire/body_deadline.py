"""The body deadline: a client that is too slow with its body gets a 408."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from zerocost.api.wire.problems import HTTPError

__all__ = ["BodyDeadline"]

_EXPIRED = -1.0
"""What stands in place of the time at which a task had to have its body, once the task was cancelled."""


class BodyDeadline:
    """A context in which a task reads a body. It ends the reading when the body does not arrive in time.

    One timer serves all tasks: one for each costs more than a small request.

    Raises:
        HTTPError: inside, when it takes too long (408).
    """

    def __init__(self, seconds: float) -> None:
        """Takes the seconds that a body may take; 0 for no limit."""
        self._seconds = seconds or math.inf
        self._reading: dict[asyncio.Task[Any] | None, float] = {}
        self._sweeping = False

    def __enter__(self) -> None:
        """Starts the clock of the current task."""
        self._reading[asyncio.current_task()] = time.monotonic() + self._seconds
        if not self._sweeping:
            self._sweep()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """The body has arrived, or was given up."""
        task = asyncio.current_task()
        until = self._reading.pop(task)
        if until == _EXPIRED and kind is asyncio.CancelledError and task is not None:
            task.uncancel()
            raise HTTPError(408, "timeout", "the body did not arrive in time") from None

    def _sweep(self) -> None:
        now = time.monotonic()
        for task, until in self._reading.items():
            if now >= until > _EXPIRED and task is not None:
                self._reading[task] = _EXPIRED
                task.cancel()
        self._sweeping = bool(self._reading)
        if self._sweeping:
            asyncio.get_running_loop().call_later(min(self._seconds, 1.0), self._sweep)
