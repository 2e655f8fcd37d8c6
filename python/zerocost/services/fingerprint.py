"""What stands for an active artifact and its parameters in a key."""

from __future__ import annotations

import hashlib
import threading
import uuid
from typing import Any

import numpy as np

from zerocost.services.active import Active

__all__ = ["Fingerprints"]


class Fingerprints:
    """Tells implementations apart: one that takes another's place under its name has another fingerprint.

    This package's own artifacts have the same one in every process of one version, so a cache that processes share
    serves them all. Of anybody else's it is not known what they will be in another process; theirs are this process's.
    """

    def __init__(self) -> None:
        # The implementation is held, so that no other one can get its place in memory.
        self._known: dict[int, tuple[object, int]] = {}
        self._lock = threading.Lock()
        self._process = uuid.uuid4().hex

    def of(self, active: Active) -> str | None:
        """The artifact as text; None if its parameters hold something that may change under the key."""
        params = _frozen(active.params)
        if params is None:
            return None
        implementation = active.spec.implementation
        kind = type(implementation)
        if kind.__module__.startswith("zerocost.artifacts."):
            return f"{kind.__qualname__} {params}"
        with self._lock:
            _, number = self._known.setdefault(id(implementation), (implementation, len(self._known)))
        return f"{active.spec.name} {self._process} {number} {params}"


def _frozen(value: Any) -> str | None:
    """The content of plain values and arrays as text; None for any other object."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f"{value.dtype}{value.shape}{content}"
    if isinstance(value, list | tuple):
        items = [_frozen(item) for item in value]
    elif isinstance(value, dict):
        items = [_frozen(item) for pair in sorted(value.items()) for item in pair]
    else:
        return None
    return None if any(item is None for item in items) else f"{type(value).__name__}{items}"
