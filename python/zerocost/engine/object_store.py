"""Arrays in Ray's object store: each once per call, immutable ones once for all calls."""

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
"""Bytes. Arrays up to this size fit into any object store (Ray's smallest has 75 MiB), so nodes need not be asked."""


class ObjectStore:
    """Puts arrays into the object store: each once per call, immutable ones once for all calls."""

    def __init__(self, ray: Any, nodes: Nodes) -> None:
        self._ray = ray
        self._nodes = nodes
        self._kept: dict[int, dict[tuple[Any, ...], Any]] = {}

    def for_call(self) -> tuple[Callable[[Any], Any], list[Node]]:
        """A function that puts values for one call, and the nodes of the cluster.

        Returns:
            ``put(value)``, which gives a reference to an array and anything else as it is. The list of nodes is empty
            until a large array is put: before that it is not worth asking.

        Raises:
            LimitExceeded: from ``put``: an array larger than the object store of a node.
        """
        references: dict[int, Any] = {}
        nodes: list[Node] = []

        def put(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                return value
            if value.nbytes > SMALL and not nodes:
                nodes.extend(self._nodes.current())
            if id(value) not in references:
                references[id(value)] = self._reference(value, nodes)
            return references[id(value)]

        return put, nodes

    def _reference(self, array: npt.NDArray[Any], nodes: list[Node]) -> Any:
        root = _immutable_root(array)
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
        # Ray would copy a strided array into the message itself, not into the store.
        return self._ray.put(np.asarray(array, order="C"))


def _immutable_root(array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """The array that this is a view of, if its memory is a ``bytes`` object, which nobody can write to.

    The ``writeable`` flag does not tell: the owner of an array can set it again.
    """
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    return root if isinstance(root.base, bytes) else None
