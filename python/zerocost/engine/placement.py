"""Which node a shard, a stage or a replica runs on, and how many kernel threads it has there.

Ray tells every worker to use one thread (``OMP_NUM_THREADS``), however many cores its node has.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from zerocost._kernels import set_num_threads

__all__ = ["Node", "Nodes", "Placement", "placements", "set_num_threads", "threads_for"]

_FRESH_SECONDS = 10.0
"""How old a list of nodes may be for work that is not sent to a certain node."""


@dataclass(frozen=True)
class Node:
    """A live node: its id, its CPUs, and the bytes of its object store."""

    id: str
    cpus: int
    store: int


@dataclass(frozen=True)
class Placement:
    """Where work runs.

    Attributes:
        threads: how many kernel threads it has.
        options: of the task or actor.
    """

    threads: int
    options: dict[str, Any] = field(default_factory=dict)


class Nodes:
    """The nodes of a cluster that have CPUs, in the same order at every call."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._last: list[Node] = []
        self._asked = -_FRESH_SECONDS

    def current(self) -> list[Node]:
        """The nodes. Asking costs a quarter of a small task."""
        resources = {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}
        found = [
            Node(name, int(has["CPU"]), int(has.get("object_store_memory", 0)))
            for name, has in sorted(resources.items())
            if has.get("CPU")
        ]
        self._last, self._asked = found, time.monotonic()
        return found

    def recent(self) -> list[Node]:
        """The nodes as they were at most some seconds ago."""
        return self._last if time.monotonic() - self._asked < _FRESH_SECONDS else self.current()


def placements(nodes: list[Node], count: int, *, adjacent: bool = False) -> list[Placement]:
    """One placement for each of ``count`` shards, stages or replicas, spread evenly over the nodes.

    The same number runs on the same node at every call, so that what it was sent is there already. The affinity is
    soft: a node that is gone must not be an error.

    Args:
        nodes: of the cluster; where there is none yet, Ray waits for one.
        count: how many there are.
        adjacent: whether consecutive numbers share a node, as they hand arrays to each other.
    """
    if not nodes:
        return [Placement(1)] * count
    indexes = [number * len(nodes) // count if adjacent else number % len(nodes) for number in range(count)]
    return [
        Placement(threads_for(nodes[index].cpus, indexes.count(index)), _affinity(nodes, index)) for index in indexes
    ]


def threads_for(cpus: int, sharing: int) -> int:
    """The share of a node's CPUs, at least 1; ``ZEROCOST_NUM_THREADS`` of this process overrides it."""
    chosen = os.environ.get("ZEROCOST_NUM_THREADS")
    return int(chosen) if chosen else max(1, cpus // sharing)


def _affinity(nodes: list[Node], index: int) -> dict[str, Any]:
    if len(nodes) < 2:
        return {}
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(nodes[index].id, soft=True)}
