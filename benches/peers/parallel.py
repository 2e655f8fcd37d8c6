"""Splitting, gathering and sharded layers against NumPy with the same threads; a pipeline against its formula."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import ml_dtypes
import numpy as np

from benches.peers.measure import ROUNDS, Row, in_turn
from zerocost import _kernels
from zerocost._kernels import num_threads
from zerocost.artifacts.parallel.gather import gather
from zerocost.artifacts.parallel.pipeline_parallel import PipelineParallelArtifact
from zerocost.artifacts.parallel.tensor_parallel import TensorParallelArtifact

_split = TensorParallelArtifact().process_parallel


def rows() -> list[Row]:
    """Every comparison of this part."""
    return [*_views(), *_products(), _pipeline()]


def _views() -> list[Row]:
    found = []
    for shape, parts in (((16, 16), 2), ((2048, 4096), 2), ((2048, 4096), 64)):
        tensor = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        ours, theirs = partial(_split, tensor, parts), partial(np.array_split, tensor, parts, -1)
        assert all(np.array_equal(*pair) for pair in zip(ours(), theirs(), strict=True))
        found.append(Row(f"split {shape} in {parts}", *_versus("numpy.array_split", *in_turn([ours, theirs]))))
        views = ours()
        ours, theirs = partial(gather, views), partial(np.concatenate, views, -1)
        assert np.array_equal(ours(), theirs())
        found.append(Row(f"gather {shape} from {parts}", *_versus("numpy.concatenate", *in_turn([ours, theirs]))))
    return found


def _versus(peer: str, ours: float, theirs: float) -> tuple[float, str, float]:
    return ours, peer, theirs


def _products() -> list[Row]:
    cases: list[tuple[tuple[int, int, int], type, dict[str, object], bool]] = [
        ((2048, 4096, 4096), np.float32, {"num_splits": 2}, False),
        ((2048, 4096, 4096), np.float32, {"num_splits": 8}, False),
        ((2048, 4096, 4096), np.float32, {"num_splits": 2, "mode": "row"}, False),
        ((512, 2048, 2048), np.float64, {"num_splits": 2}, False),
        ((64, 256, 256), np.float16, {"num_splits": 2}, False),
        ((64, 256, 256), ml_dtypes.bfloat16, {"num_splits": 2}, False),
        ((256, 1024, 1024), np.float32, {"num_splits": 2}, False),
        ((16, 4096, 4096), np.float32, {"num_splits": 2}, False),
        ((16, 4096, 4096), np.float32, {"num_splits": 2}, True),
        ((1, 4096, 4096), np.float32, {"num_splits": 2}, False),
    ]
    return [_product(shape, dtype, options, transposed) for shape, dtype, options, transposed in cases]


def _product(shape: tuple[int, int, int], dtype: type, options: dict[str, object], transposed: bool) -> Row:
    rng = np.random.default_rng(0)
    m, k, n = shape
    tensor = rng.standard_normal((m, k)).astype(dtype)
    weight = rng.standard_normal((k, n)).astype(dtype)
    weight = np.asfortranarray(weight) if transposed else weight
    sharded = partial(_split, tensor, weight=weight, **options)
    unsplit = partial(np.matmul, tensor, weight)
    wide = [array.astype(np.float64) for array in (tensor, weight)]
    bound = (np.abs(wide[0]) @ np.abs(wide[1])) * (1e-6 if np.dtype(dtype).itemsize > 2 else 1e-2)
    assert (np.abs(sharded().astype(np.float64) - wide[0] @ wide[1]) <= bound).all()
    best = partial(_split, tensor, num_splits=1, weight=weight)
    ours, theirs, whole = _after_a_rest([sharded, unsplit, best])
    name = f"linear {list(options.values())} {m}×{k}×{n} {np.dtype(dtype).name}{' transposed' if transposed else ''}"
    limit = min(whole, theirs)
    flops = f"{2 * m * k * n / limit / 1e9:.0f} Gflop/s, best product, {num_threads()} threads"
    return Row(name, ours, "numpy.matmul, unsplit", theirs, flops, limit / ours)


def _pipeline(stages: int = 2, micro_batches: int = 16) -> Row:
    """Equal stages that release the GIL, one thread each, against running them one after another."""
    rng = np.random.default_rng(0)
    # A stage takes some milliseconds, as a layer does: in shorter ones the waking of threads is what is measured.
    tensor = rng.standard_normal((micro_batches * 256, 768), dtype=np.float32)
    weight = rng.standard_normal((768, 768), dtype=np.float32) / 28
    stage = partial(_kernels.sharded_linear, weight=weight, num_splits=1, axis=-1, bias=None, mode="column")
    run = PipelineParallelArtifact().process_parallel
    batches = np.array_split(tensor, micro_batches)

    def one_after_another() -> object:
        found = batches
        for _ in range(stages):
            found = [stage(batch) for batch in found]
        return np.concatenate(found)

    together = partial(
        run, tensor, num_stages=stages, stages=[stage] * stages, num_microbatches=micro_batches, schedule="gpipe"
    )
    threads = num_threads()
    _kernels.set_num_threads(1)
    try:
        assert np.array_equal(together(), one_after_another())
        ours, theirs = in_turn([together, one_after_another])
    finally:
        _kernels.set_num_threads(threads)
    formula = theirs * (micro_batches + stages - 1) / (micro_batches * stages)
    work = f"pipeline of {stages} equal stages, {micro_batches} micro-batches"
    return Row(work, ours, "one stage after another", theirs, "(M+S-1)/(M·S) of that time", formula / ours)


def _after_a_rest(calls: list[Callable[[], object]]) -> list[float]:
    """As ``in_turn``, one call at a time, each after the threads of the one before have gone to sleep.

    OpenBLAS's threads keep spinning for some milliseconds after a product and would slow down whoever comes next.
    """
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(ROUNDS):
        for series, call in zip(times, calls, strict=True):
            time.sleep(0.05)
            start = time.perf_counter()
            call()
            series.append(time.perf_counter() - start)
    return [sorted(series)[len(series) // 2] for series in times]
