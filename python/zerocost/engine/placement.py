"""Which node a shard, a stage or a replica runs on, and how many kernel threads it has there.

Ray tells every worker to use one thread (``OMP_NUM_THREADS``), however many cores its node has.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from zerocost._kernels import set_num_threads

__all__ = ["Node", "Nodes", "Place", "places", "set_num_threads", "threads_for"]

_FRESH = 10.0
"""Seconds for which work that is not sent to a certain node goes by what the nodes were."""


@dataclass(frozen=True)
class Node:
    """A node that is alive: its id, its CPUs, and the bytes of its object store."""

    id: str
    cpus: int
    store: int


@dataclass(frozen=True)
class Place:
    """Where work runs.

    Attributes:
        threads: how many kernel threads it has.
        options: of the task or actor.
    """

    threads: int
    options: dict[str, Any] = field(default_factory=dict)


class Nodes:
    """The nodes of a cluster that have CPUs, in one order at every call."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._last: list[Node] = []
        self._asked = -_FRESH

    def now(self) -> list[Node]:
        """The nodes. Asking costs a quarter of a small task."""
        resources = {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}
        found = [
            Node(name, int(has["CPU"]), int(has.get("object_store_memory", 0)))
            for name, has in sorted(resources.items())
            if has.get("CPU")
        ]
        self._last, self._asked = found, time.monotonic()
        return found

    def lately(self) -> list[Node]:
        """The nodes as they were some seconds ago at most."""
        return self._last if time.monotonic() - self._asked < _FRESH else self.now()


def places(nodes: list[Node], count: int, *, neighbours: bool = False) -> list[Place]:
    """One place for each of ``count`` shards, stages or replicas, spread evenly over the nodes.

    The same number is on the same node at every call, so that what it was sent is there already. Softly: a node that is
    gone is no reason to fail.

    Args:
        nodes: of the cluster; where there is none yet, Ray waits for one.
        count: how many there are.
        neighbours: whether those with neighbouring numbers share a node, as they hand arrays to each other.
    """
    if not nodes:
        return [Place(1)] * count
    homes = [number * len(nodes) // count if neighbours else number % len(nodes) for number in range(count)]
    return [Place(threads_for(nodes[home].cpus, homes.count(home)), _options(nodes, home)) for home in homes]


def threads_for(cpus: int, sharing: int) -> int:
    """The share of a node's CPUs, at least 1; what ``ZEROCOST_NUM_THREADS`` says here, where it says something."""
    chosen = os.environ.get("ZEROCOST_NUM_THREADS")
    return int(chosen) if chosen else max(1, cpus // sharing)


def _options(nodes: list[Node], home: int) -> dict[str, Any]:
    if len(nodes) < 2:
        return {}
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(nodes[home].id, soft=True)}
