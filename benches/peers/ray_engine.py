"""What Ray costs against a plain call, from which size it pays, and what that means for a cluster.

``python -m benches.peers.ray_engine`` also prints a table for 2 to 256 nodes. It is computed from the costs that were
measured on one machine, under the assumptions that are printed with it; nobody has run it on that many nodes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from benches.peers.measure import ROUNDS, Row
from zerocost import _kernels
from zerocost.errors import PluginError

NODES = (2, 4, 8, 16, 32, 64, 128, 256)
NETWORK = 10e9 / 8
"""Assumed bytes a second between two nodes: 10 Gbit/s."""


@dataclass(frozen=True)
class Costs:
    """Seconds, measured on this machine.

    Attributes:
        call: of a task without arrays, beyond the plain call.
        mebibyte: more for each MiB that goes to a task and comes back.
        flop: of one floating-point operation of a large product on one node.
    """

    call: float
    mebibyte: float
    flop: float


def rows() -> list[Row]:
    """A plain call against the same call as a Ray task."""
    try:
        times = _measure()
    except PluginError:
        return [Row("call without arrays", _median(lambda: _touch(0)), "Ray task", None)]
    return [
        Row(f"call with {size} MiB there and back", plain, "Ray task", there) for size, (plain, there) in times.items()
    ]


def _touch(array: Any) -> Any:
    return array + 1


def _measure() -> dict[int, tuple[float, float]]:
    """Seconds of a plain call and of a Ray task, by MiB that go in and come out."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from zerocost.engine.ray_executor import RayExecutor

    executor = RayExecutor()
    times = {}
    for size in (0, 1, 8, 64):
        array = np.ones(size * 2**20 // 4, np.float32) if size else 0
        assert np.array_equal(executor.shards(_touch, [(array,)])[0], _touch(array))
        # In a function of its own, so that the loop's value is bound.
        times[size] = _pair(executor, array)
    return times


def _pair(executor: Any, array: Any) -> tuple[float, float]:
    return _median(lambda: _touch(array)), _median(lambda: executor.shards(_touch, [(array,)]))


def _median(call: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS + 2):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times[2:])


def _costs(times: dict[int, tuple[float, float]]) -> Costs:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal((1024, 1024), dtype=np.float32) for _ in range(2))
    product = _median(lambda: _kernels.sharded_linear(x, w, 1, -1, None, "column"))
    call = times[0][1] - times[0][0]
    return Costs(call, max(0.0, times[64][1] - times[64][0] - call) / 64, product / (2 * 1024**3))


def predicted(costs: Costs, nodes: int, rows: int, width: int) -> tuple[float, float, float]:
    """Seconds of `[rows, width] @ [width, width]` in float32 column shards: on one node, on ``nodes``, and their ratio.

    The driver starts one task for each node, one after another; every node fetches the tensor over the driver's link,
    one after another, holds its part of the weight already, and sends its columns back over the same link.
    """
    whole = 2.0 * rows * width * width * costs.flop
    tensor, result = 4.0 * rows * width, 4.0 * rows * width
    store = costs.mebibyte * (tensor + result) / 2**20 / 2
    wire = (nodes * tensor + result) / NETWORK
    cluster = nodes * costs.call + store + wire + whole / nodes
    return whole, cluster, whole / cluster


def main() -> None:
    """Prints the measured costs and the computed table."""
    times = _measure()
    costs = _costs(times)
    for size, (plain, there) in times.items():
        print(f"{size:>3} MiB: plain call {plain * 1e3:8.3f} ms, Ray task {there * 1e3:8.3f} ms")
    print(f"a Ray call costs {costs.call * 1e6:.0f} µs and {costs.mebibyte * 1e6:.0f} µs for each MiB there and back")
    print(f"a node multiplies at {1e-9 / costs.flop:.0f} Gflop/s ({_kernels.num_threads()} threads)")
    print(f"without arrays, work of more than {2 * costs.call * 1e3:.2f} ms is faster on two nodes than on one")
    print()
    print("Computed, not run: [rows, width] @ [width, width], float32, column shards, one for each node. Assumed:")
    print(f"every node as fast as this one, {NETWORK * 8 / 1e9:.0f} Gbit/s out of the driver and no faster in total,")
    print("weights on their nodes already, tasks started one after another, nothing overlapped.")
    print(f"{'nodes':>6}" + "".join(f"{f'{rows} x {width}':>24}" for rows, width in _SHAPES))
    for nodes in NODES:
        cells = [predicted(costs, nodes, rows, width) for rows, width in _SHAPES]
        print(f"{nodes:>6}" + "".join(f"{there * 1e3:>14.1f} ms {ratio:>5.2f} x" for _, there, ratio in cells))


_SHAPES = ((2048, 4096), (2048, 16384), (2048, 65536))


if __name__ == "__main__":
    main()
