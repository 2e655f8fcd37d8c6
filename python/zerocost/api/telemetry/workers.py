"""The counters of several worker processes, so that any of them can report for all.

Every worker writes its counters to a file in a folder of the server, at most once a second and when it ends. The worker
that is asked adds the others' to its own. A request pays nothing for it, and the counters of a worker outlive it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from zerocost.core.files import atomic_file

__all__ = ["WorkerFolder"]

_EVERY_SECONDS = 1.0


class WorkerFolder:
    """The counters of every worker process of one server.

    Args:
        folder: where each worker has its file.
        snapshot: this process's counters.
    """

    def __init__(self, folder: str, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._folder = Path(folder)
        self._own = self._folder / f"{os.getpid()}.json"
        self._snapshot = snapshot
        self._written = b""

    def write(self) -> None:
        """Replaces this process's file, as a whole."""
        content = orjson.dumps({**self._snapshot(), "pid": os.getpid()}, option=orjson.OPT_NON_STR_KEYS)
        if content == self._written:
            return
        with atomic_file(self._own) as file:
            file.write(content)
        self._written = content

    def others(self) -> list[dict[str, Any]]:
        """What the other workers wrote last, also those that have ended; ``alive`` tells them apart."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            if path != self._own:
                seen = orjson.loads(path.read_bytes())
                found.append({**seen, "alive": _is_alive(seen["pid"])})
        return found

    async def keep_writing(self) -> None:
        """Writes until it is cancelled, and then once more."""
        try:
            while True:
                self.write()
                await asyncio.sleep(_EVERY_SECONDS)
        finally:
            self.write()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
