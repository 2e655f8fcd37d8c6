"""What is in Ray's object store: each array once, and what can never change once for all calls."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.errors import LimitExceeded

__all__ = ["ObjectStore"]

_SMALL = 2**20
"""Bytes. Arrays up to here fit any object store (Ray's smallest has 75 MiB), and are sent rather than waited for."""

_Put = Callable[[Any], Any]
_Place = Callable[[int], dict[str, Any]]


class ObjectStore:
    """Puts arrays into the object store, and tasks on the nodes."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._kept: dict[int, dict[tuple[Any, ...], Any]] = {}

    def for_call(self) -> tuple[_Put, _Place]:
        """What one call needs.

        Returns:
            ``put(value)``: a reference to an array, anything else as it is. And ``place(number)``: the options of a
            task that put it on its node; to be asked after all arrays were put.

        Raises:
            LimitExceeded: from ``put``: an array larger than the object store of a node.
        """
        references: dict[int, Any] = {}
        nodes: list[Any] = []

        def put(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                return value
            if value.nbytes > _SMALL and not nodes:
                # Asking costs a quarter of a small task.
                alive = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
                nodes.extend(sorted(alive, key=lambda node: node["NodeID"]))
            if id(value) not in references:
                references[id(value)] = self._reference(value, nodes)
            return references[id(value)]

        def place(number: int) -> dict[str, Any]:
            if len(nodes) < 2:
                return {}
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            # The same number on the same node at every call: what it was sent is there already. Softly: a node that is
            # gone is no reason to fail.
            node = nodes[number % len(nodes)]["NodeID"]
            return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)}

        return put, place

    def _reference(self, array: npt.NDArray[Any], nodes: list[Any]) -> Any:
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

    def _put(self, array: npt.NDArray[Any], nodes: list[Any]) -> Any:
        sizes = [int(node["Resources"].get("object_store_memory", 0)) for node in nodes]
        if array.nbytes > _SMALL and array.nbytes > min(sizes, default=0):
            raise LimitExceeded(
                f"an array of {array.nbytes:,} bytes was given, the object store of a node holds "
                f"{min(sizes, default=0):,}; start Ray with more object_store_memory, or cut the array into more parts"
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
