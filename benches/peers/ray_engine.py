"""What Ray costs against a plain call, from which size it pays, and what that means for a cluster.

``python -m benches.peers.ray_engine`` also prints a table for 2 to 256 nodes. It is computed from the costs that were
measured on one machine, under the assumptions that are printed with it; nobody has run it on that many nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benches.peers.measure import Row, in_turn
from zerocost import _kernels
from zerocost.artifacts.parallel.pipeline_parallel import PipelineParallelArtifact
from zerocost.core.artifact_base import ExecutionContext
from zerocost.errors import PluginError

NODES = (2, 4, 8, 16, 32, 64, 128, 256)
NETWORK = 10e9 / 8
"""Assumed bytes a second between two nodes: 10 Gbit/s."""
_SIZES = (0, 1, 8, 64)
_SHAPES = ((2048, 4096), (2048, 16384), (2048, 65536))
_ROWS = 2048
_MIB = 2**20
_CONTEXT = ExecutionContext("bench", "parallel", "zero_cost", {})


@dataclass(frozen=True)
class Costs:
    """Seconds, measured on this machine.

    Attributes:
        call: of a task without arrays, beyond the plain call.
        mebibyte: more for each MiB that goes to a task and comes back.
        join: of copying a MiB of results together, which the driver does when columns come back.
        flop: of one floating-point operation of a large product on one node.
    """

    call: float
    mebibyte: float
    join: float
    flop: float


def rows() -> list[Row]:
    """Plain calls against the same calls on Ray."""
    try:
        with _executor() as executor:
            times, pipeline = _calls(executor), _pipeline(executor)
    except PluginError:
        return [Row("call without arrays", in_turn([partial(_touch, 0)])[0], "Ray task", None)]
    found = [
        Row(f"call with {size} MiB there and back", plain, "Ray task", there) for size, (plain, there) in times.items()
    ]
    return [*found, Row("pipeline of 2 stages, 4 micro-batches of 1 MiB", *_versus("Ray actors", *pipeline))]


def _versus(peer: str, ours: float, theirs: float) -> tuple[float, str, float]:
    return ours, peer, theirs


@contextmanager
def _executor() -> Iterator[Any]:
    """An executor on a cluster of this process, which ends with the block."""
    from zerocost.engine.ray_executor import RayExecutor

    executor = RayExecutor()
    try:
        yield executor
    finally:
        import ray

        ray.shutdown()


def _touch(array: Any) -> Any:
    return array + 1


def _random(mebibytes: int) -> Any:
    return np.random.default_rng(mebibytes).random(mebibytes * _MIB // 4, np.float32) if mebibytes else 0


def _calls(executor: Any) -> dict[int, tuple[float, float]]:
    """Seconds of a plain call and of a Ray task, by MiB that go in and come out."""
    times = {}
    for size in _SIZES:
        array = _random(size)
        plain, there = partial(_touch, array), partial(executor.shards, _touch, [(array,)], _CONTEXT)
        assert np.array_equal(there()[0], plain())
        ours, theirs = in_turn([plain, there])
        times[size] = (ours, theirs)
    return times


def _pipeline(executor: Any) -> tuple[float, float]:
    """Seconds of a pipeline on threads and on Ray, which starts a process for each stage at every call."""
    data = {"tensor": _random(4), "num_stages": 2, "stages": [_touch, _touch], "num_microbatches": 4}
    here, there = (
        partial(PipelineParallelArtifact(executor=where).execute, data, _CONTEXT) for where in (None, executor)
    )
    assert np.array_equal(here()["result"], there()["result"])
    ours, theirs = in_turn([here, there], warmup=1)
    return ours, theirs


def _costs(times: dict[int, tuple[float, float]]) -> Costs:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal((1024, 1024), dtype=np.float32) for _ in range(2))
    halves = [rng.random((1024, 8192), np.float32) for _ in range(2)]
    product, join = in_turn(
        [partial(_kernels.sharded_linear, x, w, 1, -1, None, "column"), partial(np.concatenate, halves, -1)]
    )
    call = times[0][1] - times[0][0]
    mebibyte = max(0.0, times[64][1] - times[64][0] - call) / 64
    return Costs(call, mebibyte, join / 64, product / (2 * 1024**3))


def predicted(costs: Costs, nodes: int, rows: int, width: int, *, shared: bool = True) -> tuple[float, float, float]:
    """Seconds of `[rows, width] @ [width, width]` in float32 column shards: on one node, on ``nodes``, and their ratio.

    The driver starts one task for each node, one after another; every node fetches the tensor over the driver's link,
    one after another, and its part of the weight too unless the weight is ``shared`` and there already; it sends its
    columns back over the same link, and the driver copies them together.
    """
    whole = 2.0 * rows * width * width * costs.flop
    tensor, result = 4.0 * rows * width, 4.0 * rows * width
    weight = 0.0 if shared else 4.0 * width * width
    store = costs.mebibyte * (tensor + weight + result) / _MIB / 2
    wire = (nodes * tensor + weight + result) / NETWORK
    cluster = nodes * costs.call + store + wire + costs.join * result / _MIB + whole / nodes
    return whole, cluster, whole / cluster


def pays_from(costs: Costs, *, shared: bool) -> int | None:
    """The least width, in steps of 256, from which two nodes are faster than one; None: not up to 2**17."""
    widths = range(256, 2**17 + 1, 256)
    return next((width for width in widths if predicted(costs, 2, _ROWS, width, shared=shared)[2] > 1), None)


def work_that_pays(costs: Costs, nodes: int) -> float:
    """Seconds of work without arrays from which ``nodes`` are faster than one: n · call + work / n < work."""
    return nodes * costs.call / (1 - 1 / nodes)


def main() -> None:
    """Prints the measured costs and the computed table."""
    with _executor() as executor:
        times, (here, there) = _calls(executor), _pipeline(executor)
    costs = _costs(times)
    for size, (plain, task) in times.items():
        print(f"{size:>3} MiB: plain call {plain * 1e3:8.3f} ms, Ray task {task * 1e3:8.3f} ms")
    print(f"pipeline of 2 stages, 4 micro-batches of 1 MiB: threads {here * 1e3:.1f} ms, Ray {there * 1e3:.0f} ms")
    print(f"a Ray call costs {costs.call * 1e6:.0f} µs and {costs.mebibyte * 1e6:.0f} µs for each MiB there and back,")
    print(f"joining the columns that come back is a copy in the driver, {costs.join * 1e6:.0f} µs for each MiB")
    print(f"a node multiplies at {1e-9 / costs.flop:.0f} Gflop/s ({_kernels.num_threads()} threads)")
    print()
    print("Computed, not run: [rows, width] @ [width, width], float32, column shards, one for each node. Assumed:")
    print(f"every node as fast as this one, {NETWORK * 8 / 1e9:.0f} Gbit/s out of the driver and no faster in total,")
    print("weights on their nodes already, tasks started one after another, nothing overlapped.")
    print(f"Work without arrays: two nodes are faster than one from {work_that_pays(costs, 2) * 1e3:.2f} ms on.")
    for shared, what in ((True, "a weight that is shared and there already"), (False, "a weight that travels too")):
        width = pays_from(costs, shared=shared)
        size = "no width up to 131072" if width is None else f"width {width} ({_ROWS * width * 4 / _MIB:.0f} MiB in)"
        print(f"{_ROWS} rows, {what}: two nodes are faster than one from {size} on.")
    print(f"{'nodes':>6}" + "".join(f"{f'{rows} x {width}':>24}" for rows, width in _SHAPES))
    for nodes in NODES:
        cells = [predicted(costs, nodes, rows, width) for rows, width in _SHAPES]
        print(f"{nodes:>6}" + "".join(f"{there * 1e3:>14.1f} ms {ratio:>5.2f} x" for _, there, ratio in cells))


if __name__ == "__main__":
    main()
