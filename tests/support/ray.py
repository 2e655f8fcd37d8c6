"""A Ray cluster of two nodes on the loopback address, and the processes that it leaves."""

import ctypes
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.processes import run_python
from support.waiting import wait_until

MARKS = [
    # Ray warns about itself and leaves sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(sys.platform != "linux", reason="Ray clusters of several nodes on one machine need Linux"),
]
STORE = 100 * 2**20
_STARTS = 3
_SET_CHILD_SUBREAPER = 36


def descendants():
    """The processes below this one, by id, from /proc.

    From the first call on, also those whose parent has ended: the kernel gives such orphans to this process and not to
    the first one of the machine.
    """
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(status.parent.name)] = int(fields[1])
    found, new = set(), {os.getpid()}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def wait_for_the_end(before):
    """Waits until no process is there that was not there before."""
    wait_until(lambda: not descendants() - before, every=0.2)


@contextmanager
def two_nodes():
    """A cluster, and the options of a further node."""
    # Read when Ray is imported: on one machine it otherwise goes by the address of the network card.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'zerocost[ray]' brings it")
    before = descendants()
    node = {"num_cpus": 2, "object_store_memory": STORE, "node_ip_address": "127.0.0.1"}
    cluster = _started(node)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster, node
    finally:
        ray.shutdown()
        cluster.shutdown()
    wait_for_the_end(before)


def _started(node):
    """The cluster. On a busy machine a process of Ray may miss its own deadline, which says nothing about zerocost."""
    from ray.cluster_utils import Cluster

    for start in range(_STARTS):
        cluster = Cluster()
        try:
            cluster.add_node(**node, include_dashboard=False)
            cluster.add_node(**node)
            cluster.wait_for_nodes()
        except Exception:
            cluster.shutdown()
            if start == _STARTS - 1:
                raise
        else:
            return cluster
    raise AssertionError


def python(code, **variables):
    """Runs code in a process of its own, away from the cluster of this one, and returns what it prints."""
    return run_python("-c", code, seconds=100, without="RAY_", variables=variables).stdout.strip()
