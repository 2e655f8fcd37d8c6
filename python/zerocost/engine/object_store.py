"""What is in Ray's object store: each array once, and what can never change once for all calls."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.engine.placement import Node, Nodes
from zerocost.errors import LimitExceeded

__all__ = ["SMALL", "ObjectStore"]

SMALL = 2**20
"""Bytes. Arrays up to here fit any object store (Ray's smallest has 75 MiB), and are sent rather than waited for."""


class ObjectStore:
    """Puts arrays into the object store: each once for a call, and what can never change once for all calls."""

    def __init__(self, ray: Any, nodes: Nodes) -> None:
        self._ray = ray
        self._nodes = nodes
        self._kept: dict[int, dict[tuple[Any, ...], Any]] = {}

    def for_call(self) -> tuple[Callable[[Any], Any], list[Node]]:
        """What one call needs.

        Returns:
            ``put(value)``: a reference to an array, anything else as it is. And the nodes of the cluster, once a large
            array was put; until then none: it is not worth asking.

        Raises:
            LimitExceeded: from ``put``: an array larger than the object store of a node.
        """
        references: dict[int, Any] = {}
        nodes: list[Node] = []

        def put(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                return value
            if value.nbytes > SMALL and not nodes:
                nodes.extend(self._nodes.now())
            if id(value) not in references:
                references[id(value)] = self._reference(value, nodes)
            return references[id(value)]

        return put, nodes

    def _reference(self, array: npt.NDArray[Any], nodes: list[Node]) -> Any:
        root = _unchangeable_root(array)
        if root is None:
            return self._put(array, nodes)
        if id(root) not in self._kept:
            self._kept[id(root)] = {}
            weakref.finalize(root, self._kept.pop, id(root), None)
        kept = self._kept[id(root)]
        part = (array.ctypes.data, array.shape, array.strides, array.dtype)
        if part not in kept:
            kept[part] = self._put(array, nodes)
        return kept[part]

    def _put(self, array: npt.NDArray[Any], nodes: list[Node]) -> Any:
        holds = min((node.store for node in nodes), default=0)
        if array.nbytes > SMALL and array.nbytes > holds:
            raise LimitExceeded(
                f"an array of {array.nbytes:,} bytes was given, the object store of a node holds {holds:,}; start "
                "Ray with more object_store_memory, or cut the array into more parts"
            )
        # A strided array would be copied into the message itself instead of the store.
        return self._ray.put(np.asarray(array, order="C"))


def _unchangeable_root(array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """The array that this is a view of, if nobody can write to its memory because it is a ``bytes`` object.

    The flag says too little, as whoever owns an array can set it back.
    """
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    return root if isinstance(root.base, bytes) else None
