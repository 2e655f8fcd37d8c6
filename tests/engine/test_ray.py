"""Shards and stages on a Ray cluster of two nodes: equal to those on threads, and sent no more than once."""

import gc
import itertools
import os
import time
import weakref

import ml_dtypes
import numpy as np
import pytest

import zerocost
from support.contract import context
from support.equality import same
from support.ray import MARKS
from support.ray_samples import run

pytestmark = MARKS


# Equality with threads


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("mode", ["column", "row"])
def test_a_sharded_layer_on_ray_gives_the_same(registries, mode, dtype):
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((3, 40, 64), (64, 30), (30,)))
    here, there = (
        run(registry, "tensor_parallel", tensor=x, weight=w, bias=b, num_splits=3, mode=mode) for registry in registries
    )
    assert there.dtype == here.dtype
    assert there.shape == here.shape
    if mode == "column":
        assert same(np.ascontiguousarray(there), np.ascontiguousarray(here))
    else:
        scale = np.abs(x.astype(np.float64)) @ np.abs(w.astype(np.float64))
        rounding = {8: 1e-14, 4: 1e-6}.get(np.dtype(dtype).itemsize) or float(ml_dtypes.finfo(dtype).eps)
        assert (np.abs(there.astype(np.float64) - here.astype(np.float64)) <= rounding * scale).all()


def test_shards_left_apart(registries):
    x, w = np.ones((2, 4)), np.arange(20.0).reshape(4, 5)
    for registry in registries:
        parts = run(registry, "tensor_parallel", tensor=x, weight=w, num_splits=2, gather=False)
        assert [part.shape for part in parts] == [(2, 3), (2, 2)]
    assert zerocost.gather(parts).tolist() == (x @ w).tolist()


def test_views_are_made_locally(registries):
    tensor = np.arange(6.0)
    assert all(np.shares_memory(part, tensor) for part in run(registries[1], "tensor_parallel", tensor=tensor))


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_a_pipeline_on_ray_gives_the_same(registries, schedule):
    tensor = np.random.default_rng(0).standard_normal((13, 5))
    stages = ["scale", np.tanh, {"artifact": "scale", "params": {"factor": 3.0}}, lambda batch: batch + 1]
    here, there = (
        run(registry, "pipeline_parallel", tensor=tensor, stages=stages, num_microbatches=6, schedule=schedule)
        for registry in registries
    )
    assert same(here, there)


def test_stages_of_one_pipeline_have_processes_of_their_own(registries):
    tensor = np.zeros((2, 3), np.int64)

    def mark(batch):
        marked = batch.copy()
        marked[:, 0] = os.getpid() if not marked[0, 0] else marked[:, 0]
        marked[:, 1] = os.getpid()
        return marked

    result = run(registries[1], "pipeline_parallel", tensor=tensor, num_stages=2, stages=[mark, mark])
    first, second = result[0, 0], result[0, 1]
    assert len({first, second, os.getpid()}) == 3


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"weight": np.zeros((3, 4))}, zerocost.ShapeError, "weight: shape"),
        ({"weight": np.zeros((6, 3), np.float32)}, zerocost.DatatypeError, "weight: dtype float32"),
        (
            {"weight": np.zeros((6, 3)), "num_splits": 0},
            zerocost.RangeError,
            "num_splits: 0 is less than the minimum of 1",
        ),
        ({"weight": np.zeros((6, 3)), "axis": 0}, zerocost.RangeError, "axis: 0 was given"),
    ],
)
def test_wrong_input_is_refused_like_locally(registries, data, error, message):
    for registry in registries:
        with pytest.raises(error, match=message):
            run(registry, "tensor_parallel", tensor=np.zeros((4, 6)), **data)


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("slow", [0, 1, 2])
def test_1f1b_bounds_what_is_alive_at_every_stage(registries, tmp_path, where, slow):
    log = tmp_path / "log"

    def stage(number):
        def work(batch):
            with log.open("a") as lines:
                lines.write(f"enter {number}\n")
            time.sleep(0.05 if number == slow else 0)
            if number == 2:
                with log.open("a") as lines:
                    lines.write("leave\n")
            return batch

        return work

    run(
        registries[where],
        "pipeline_parallel",
        tensor=np.arange(9),
        num_stages=3,
        stages=[stage(number) for number in range(3)],
        num_microbatches=9,
        schedule="1f1b",
    )
    alive, most = [0, 0, 0], [0, 0, 0]
    for line in log.read_text().splitlines():
        if line == "leave":
            alive = [count - 1 for count in alive]
        else:
            # From this stage on: what has entered it and has not left the pipeline.
            alive[int(line[-1])] += 1
            most = list(map(max, most, alive))
    assert alive == [0, 0, 0]
    assert all(count <= 3 - number for number, count in enumerate(most)), most


# What is sent


@pytest.fixture
def puts(executor, monkeypatch):
    """The shapes of the arrays that were put into the object store."""
    shapes = []
    put = executor._ray.put

    def counting(value):
        shapes.append(value.shape)
        return put(value)

    monkeypatch.setattr(executor._ray, "put", counting)
    return shapes


def test_an_array_is_put_once_for_a_call_and_a_shared_one_once_for_all(registries, executor, puts):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 8)), rng.standard_normal((8, 6))
    layer = {"tensor": x, "num_splits": 3}
    first = run(registries[1], "tensor_parallel", weight=w, **layer)
    assert sorted(puts) == [(3, 8), (8, 2), (8, 2), (8, 2)], "the tensor once, not once for each shard"
    puts.clear()
    shared = executor.share(w)
    for _ in range(3):
        assert same(run(registries[1], "tensor_parallel", weight=shared, **layer), first)
    assert sorted(puts) == [(3, 8), (3, 8), (3, 8), (8, 2), (8, 2), (8, 2)]
    puts.clear()
    run(registries[1], "tensor_parallel", weight=shared, tensor=x, num_splits=2, mode="row")
    assert sorted(puts) == [(3, 4), (3, 4), (4, 6), (4, 6)], "other parts are other arrays"


@pytest.mark.parametrize("freeze", [False, True])
def test_writable_arrays_are_never_cached(executor, freeze):
    def total(array):
        return float(array.sum())

    weight = np.ones(1000)
    for value in (1.0, 2.0):
        weight.flags.writeable = True
        weight[:] = value
        weight.flags.writeable = not freeze
        assert executor.shards(total, [(weight,), (weight[:500],)], context()) == [1000 * value, 500 * value]


def test_a_shared_array_is_a_copy_that_nobody_can_write_to(executor, puts):
    import gc

    for array in (np.arange(6.0).reshape(2, 3)[:, ::2], np.ones((0, 3)), np.ones(3, ml_dtypes.bfloat16), 1.0):
        shared = executor.share(array)
        assert same(shared, np.ascontiguousarray(array).reshape(np.shape(array)))
        with pytest.raises(ValueError, match="read-only"):
            shared[...] = 0
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            shared.flags.writeable = True
        assert executor.shards(lambda array: array.shape, [(shared,)], context()) == [np.shape(array)]
    del shared
    gc.collect()
    assert not executor._store._kept, "forgotten when nobody holds it"


def test_large_shards_stay_on_their_nodes(executor):
    def node(weight):
        import ray

        return ray.get_runtime_context().get_node_id()

    weight = executor.share(np.zeros((2, 2**18)))
    places = [executor.shards(node, [(weight[0],), (weight[1],)], context()) for _ in range(3)]
    assert len(set(places[0])) == 2
    assert places == [places[0]] * 3


# Threads


def threads_and_node(*_):
    import ray

    return zerocost.num_threads(), ray.get_runtime_context().get_node_id()


def test_shards_share_the_cpus_of_their_node(executor, monkeypatch):
    large, small = executor.share(np.zeros(2**18)), np.zeros(1)
    for count, expected in ((2, 2), (3, 1), (4, 1), (9, 1)):
        found = executor.shards(threads_and_node, [(large,)] * count, context())
        nodes = [node for _, node in found]
        assert len(set(nodes)) == 2
        alone = [threads for threads, node in found if nodes.count(node) == 1]
        assert alone in ([], [2], [2, 2]), "a node has 2 CPUs"
        assert all(threads == expected for threads, node in found if nodes.count(node) > 1 or count == 2)
    # Where Ray chooses the nodes, all may be on one.
    assert [threads for threads, _ in executor.shards(threads_and_node, [(small,)], context())] == [2]
    assert [threads for threads, _ in executor.shards(threads_and_node, [(small,)] * 2, context())] == [1, 1]
    monkeypatch.setenv("ZEROCOST_NUM_THREADS", "3")
    for array in (large, small):
        assert [threads for threads, _ in executor.shards(threads_and_node, [(array,)] * 4, context())] == [3] * 4


@pytest.mark.parametrize(("num_stages", "expected"), [(1, [2]), (2, [2, 2]), (3, [1, 1, 2]), (4, [1, 1, 1, 1])])
def test_stages_share_the_cpus_of_their_node_with_their_neighbours(executor, num_stages, expected):
    def note(stage):
        def run(batch):
            threads, node = threads_and_node()
            batch = batch.copy()
            batch[0, stage] = f"{threads} {node}"
            return batch

        return run

    table = zerocost.PipelineParallelArtifact(executor=executor).execute(
        {
            "tensor": np.full((1, num_stages), "", "U80"),
            "num_stages": num_stages,
            "stages": [note(stage) for stage in range(num_stages)],
        },
        context(),
    )["result"]
    threads, nodes = zip(*(entry.split() for entry in table[0]), strict=True)
    assert list(map(int, threads)) == expected
    assert len(set(nodes)) == min(num_stages, 2)
    assert sum(a != b for a, b in itertools.pairwise(nodes)) <= 1, "neighbours share a node"


def test_functions_are_not_kept(executor):
    def shard(number):
        return number

    assert executor.shards(shard, [(1,), (2,)], context()) == [1, 2]
    there = weakref.ref(shard)
    del shard
    gc.collect()
    assert there() is None
