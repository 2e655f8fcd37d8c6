"""Fingerprints: an active artifact and its parameters as part of a key."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Hashable
from functools import cached_property
from typing import Any

import numpy as np

from zerocost.core.datatypes import datatype_of
from zerocost.services.active_artifacts import ActiveArtifact

__all__ = ["Fingerprints", "batching_key"]

_LARGEST = 2**20
"""Bytes of parameters or attributes. Hashing them takes about a millisecond."""


class Fingerprints:
    """Fingerprints of artifacts. One that was changed, or that replaced another under its name, gets a new fingerprint.

    This package's own artifacts have the same fingerprint in every process of one version, so processes can share a
    cache. A third-party artifact may be another in another process, so its fingerprint is valid in this process only.
    It includes the attributes of the instance, up to 1 MiB, which are read at every forward pass. State elsewhere (in
    the class, the module, a file, a server) is not included. An artifact that hands its work to another process
    (``RayArtifact``, ``RemoteArtifact``) has no fingerprint: its attributes are connections.
    """

    def __init__(self) -> None:
        # The implementation is held, so that no other object gets its id.
        self._known: dict[int, tuple[object, int]] = {}
        self._lock = threading.Lock()
        self._process = uuid.uuid4().hex

    def of(self, active: ActiveArtifact) -> str | None:
        """The fingerprint, or None if parameters or attributes have no text form or exceed 1 MiB."""
        params = _text(active.params)
        implementation = active.spec.implementation
        kind = type(implementation)
        if params is None or active.is_built_in:
            return None if params is None else f"{kind.__qualname__} {params}"
        attributes = _attributes(implementation)
        if attributes is None:
            return None
        with self._lock:
            _, number = self._known.setdefault(id(implementation), (implementation, len(self._known)))
        return f"{active.spec.name} {self._process} {number} {params} {attributes}"


def batching_key(active: ActiveArtifact) -> Hashable:
    """Requests with equal keys can run as one batch: the same artifact object with the same parameters.

    The caller must hold the artifact as long as the key, because the key contains its id.
    """
    return active.spec.name, id(active.spec.implementation), _text(active.params) or object()


def _attributes(implementation: object) -> str | None:
    kind = type(implementation)
    if any(getattr(parent, "__slots__", ()) for parent in kind.__mro__):
        return None
    own = {
        name: value
        for name, value in vars(implementation).items()
        if not isinstance(getattr(kind, name, None), cached_property)  # derived from the others
    }
    return _text(own)


def _text(value: Any) -> str | None:
    try:
        return _frozen(value) if _bytes_in(value) <= _LARGEST else None
    except (TypeError, RecursionError):  # keys that cannot be sorted, a list that contains itself
        return None


def _bytes_in(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(_bytes_in(key) + _bytes_in(item) for key, item in value.items())
    return 8 + sum(map(_bytes_in, value)) if isinstance(value, list | tuple) else 8


def _frozen(value: Any) -> str | None:
    """Plain values and arrays as text; None for any other object."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return repr(value)
    if isinstance(value, np.ndarray | np.generic) and (
        value.dtype.kind in "biuf" or datatype_of(value.dtype) == "BF16"
    ):
        content = hashlib.sha256(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data).hexdigest()
        return f"{value.dtype}{value.shape}{content}"
    if isinstance(value, list | tuple):
        items = [_frozen(item) for item in value]
    elif isinstance(value, dict):
        items = [_frozen(item) for pair in sorted(value.items()) for item in pair]
    else:
        return None
    return None if any(item is None for item in items) else f"{type(value).__name__}{items}"
