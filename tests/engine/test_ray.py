"""Shards, stages and whole artifacts on a Ray cluster of two nodes on the loopback address."""

import os
import signal
import sys
import threading
import time

import ml_dtypes
import numpy as np
import pytest

import zerocost
from contract import ArtifactContract, context, same
from engine.cluster import MARKS, STORE

pytestmark = MARKS


@pytest.fixture(scope="module")
def executor(cluster):
    from zerocost.engine import executor

    return executor("ray")


@pytest.fixture(scope="module")
def registries(executor):
    """The same artifacts here and on Ray."""
    here, there = zerocost.default_registry(), zerocost.default_registry(executor)
    for registry in (here, there):
        registry.register_artifact("scale", Scale(), "parallel")
    return here, there


class Scale(zerocost.ParallelArtifact):
    """Multiplies."""

    def process_parallel(self, tensor, factor: float = 2.0):
        """Multiplies.

        Args:
            tensor: any.
            factor: by what.
        """
        return np.asarray(tensor) * factor


def run(registry, name, **data):
    return registry[name].implementation.execute(data, context(name))["result"]


# Equality with threads


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("mode", ["column", "row"])
def test_a_sharded_layer_is_the_same_there(registries, mode, dtype):
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


def test_views_are_made_here(registries):
    tensor = np.arange(6.0)
    assert all(np.shares_memory(part, tensor) for part in run(registries[1], "tensor_parallel", tensor=tensor))


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_a_pipeline_is_the_same_there(registries, schedule):
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
        ({"weight": np.zeros((6, 3)), "num_splits": 0}, zerocost.RangeError, "num_splits: 0 was given"),
        ({"weight": np.zeros((6, 3)), "axis": 0}, zerocost.RangeError, "axis: 0 was given"),
    ],
)
def test_wrong_input_is_refused_as_it_is_here(registries, data, error, message):
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
def test_what_somebody_could_write_to_is_never_remembered(executor, freeze):
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


# What goes wrong


def test_an_exception_in_a_stage_keeps_its_class_and_says_where(registries):
    def fail(batch):
        if 3 in batch:
            raise LookupError("broken")
        return batch

    for registry in registries:
        with pytest.raises(LookupError, match="broken") as caught:
            run(
                registry,
                "pipeline_parallel",
                tensor=np.arange(4),
                num_stages=2,
                stages=[np.negative, lambda b: fail(-b)],
            )
        assert any("in stage 1" in note and "micro-batch 1" in note for note in caught.value.__notes__)


def test_a_stage_that_returns_the_wrong_batch(registries):
    for registry in registries:
        with pytest.raises(zerocost.ShapeError, match="a stage must keep the 2 slices"):
            run(registry, "pipeline_parallel", tensor=np.arange(4), num_stages=2, stages=[np.negative, lambda b: b[:1]])


def test_an_exception_in_a_shard_says_which(executor):
    def fail(number):
        if number == 2:
            raise ValueError("two")
        return number

    with pytest.raises(ValueError, match="two") as caught:
        executor.shards(fail, [(1,), (2,), (3,)], context())
    assert caught.value.__notes__ == ["in shard 1, on Ray"]


def test_a_shard_whose_worker_is_killed_is_run_again(executor, tmp_path):
    def shard(number):
        marker = tmp_path / "killed"
        if number == 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number * 10

    assert executor.shards(shard, [(0,), (1,), (2,)], context()) == [0, 10, 20]
    assert (tmp_path / "killed").exists()


def test_a_stage_whose_worker_is_killed_is_run_again(registries, tmp_path):
    def stage(batch):
        marker = tmp_path / "killed"
        if batch[0] == 2 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return batch * 10

    result = run(
        registries[1],
        "pipeline_parallel",
        tensor=np.arange(4),
        num_stages=2,
        stages=[stage, np.negative],
        num_microbatches=4,
    )
    assert result.tolist() == [0, -10, -20, -30]
    assert (tmp_path / "killed").exists()


def test_a_shard_that_always_kills_its_worker_is_an_error_that_names_it(cluster):
    from zerocost.engine.ray_executor import RayExecutor

    def shard(number):
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(zerocost.ServiceUnavailable, match="shard 1 was lost and could not be run again"):
        RayExecutor(retries=1).shards(shard, [(0,), (1,)], context())


def test_a_node_that_is_removed_in_the_middle(cluster, executor):
    nodes, node = cluster
    extra = nodes.add_node(**{**node, "num_cpus": 4})
    nodes.wait_for_nodes()

    def shard(number, weight):
        time.sleep(2)
        return number * int(weight.sum())

    weight = executor.share(np.full(2**18, 10 / 2**18))  # large: so the shards are spread over the nodes
    timer = threading.Timer(1.0, nodes.remove_node, args=[extra], kwargs={"allow_graceful": False})
    timer.start()
    try:
        assert executor.shards(shard, [(number, weight) for number in range(6)], context()) == [0, 10, 20, 30, 40, 50]
    finally:
        timer.join()


def test_an_array_larger_than_the_object_store(registries):
    tensor = np.zeros((STORE // 8 + 1, 1))
    with pytest.raises(zerocost.LimitExceeded, match="start Ray with more object_store_memory"):
        run(registries[1], "tensor_parallel", tensor=tensor, weight=np.zeros((1, 2)))


def test_a_deadline_stops_a_pipeline(executor):
    artifact = zerocost.PipelineParallelArtifact(executor=executor)
    late = zerocost.ExecutionContext("p", "parallel", "zero_cost", {"deadline": time.monotonic() + 2})
    began = time.monotonic()
    with pytest.raises(zerocost.DeadlineExceeded):
        artifact.execute({"tensor": np.arange(2), "num_stages": 1, "stages": [lambda b: time.sleep(60)]}, late)
    assert time.monotonic() - began < 30


# Whole artifacts


class TestContract(ArtifactContract):
    @pytest.fixture(autouse=True, scope="class")
    def _cluster(self, cluster):
        """Every test of the contract needs the cluster."""

    def make(self):
        return zerocost.RayArtifact(Scale())

    def example(self, artifact):
        return {"tensor": np.arange(4.0)}


def test_an_artifact_on_ray_takes_the_old_name(cluster):
    registry = zerocost.default_registry()
    registry.register_artifact("scale", Scale(), "parallel")
    service = zerocost.ArtifactCommunicationService(registry)
    steps = [{"artifact": "scale", "params": {"factor": 5.0}}, {"artifact": "tensor_parallel"}]
    here = service.chain_artifacts(steps, {"tensor": np.arange(5.0)})
    registry.register_artifact("scale", zerocost.RayArtifact(Scale(), 2), "parallel", replace=True)
    assert same(service.chain_artifacts(steps, {"tensor": np.arange(5.0)}), here)


def test_an_artifact_with_a_state_has_one_replica(cluster):
    from zerocost.artifacts.memory.lru_cache import LRUCacheArtifact

    with pytest.raises(zerocost.RangeError, match="LRUCacheArtifact has a state, so it has 1 replica"):
        zerocost.RayArtifact(LRUCacheArtifact)
    memory = zerocost.RayArtifact(LRUCacheArtifact, num_replicas=1)
    assert memory.execute({"operation": "put", "key": "a", "value": 7}, context())["result"] is True
    assert memory.execute({"operation": "get", "key": "a"}, context())["result"] == 7


def test_the_exceptions_of_an_artifact_come_through(cluster):
    artifact = zerocost.RayArtifact(Scale(), 1)
    with pytest.raises(zerocost.MissingInput, match="tensor required"):
        artifact.execute({}, context())
    with pytest.raises(zerocost.UndeclaredInput, match="'facto' is not an input"):
        artifact.execute({"tensor": np.ones(1), "facto": 1}, context())


def test_a_replica_that_is_killed_comes_back(cluster, tmp_path):
    class Dying(Scale):
        """Dies once."""

        def process_parallel(self, tensor, factor: float = 2.0):
            marker = tmp_path / "killed"
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return tensor * factor

    artifact = zerocost.RayArtifact(Dying(), 1)
    assert artifact.execute({"tensor": np.ones(2)}, context())["result"].tolist() == [2.0, 2.0]
    assert (tmp_path / "killed").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Scale, 0), zerocost.RangeError, "num_replicas: 0 was given"),
        ((Scale, True), zerocost.DatatypeError, "num_replicas: True was given"),
        ((Scale, 1.5), zerocost.DatatypeError, "num_replicas: 1.5 was given"),
        ((dict, 1), zerocost.DatatypeError, "implementation: dict was given"),
    ],
)
def test_replicas_that_cannot_be_are_refused(cluster, arguments, error, message):
    with pytest.raises(error, match=message):
        zerocost.RayArtifact(*arguments)


# Without a cluster


def test_an_unknown_executor():
    from zerocost.engine import executor

    assert executor("threads") is None
    with pytest.raises(zerocost.RangeError, match="executor: 'mpi' was given, 'threads' or 'ray' is allowed"):
        executor("mpi")


def test_the_command_line_refuses_an_unknown_executor(capsys):
    from zerocost.cli.app import main

    assert main(["serve", "--executor", "mpi"]) == 2
    assert capsys.readouterr().err == "error: executor: 'mpi' was given, 'threads' or 'ray' is allowed\n"


def test_ray_that_is_not_installed_says_what_to_install(monkeypatch):
    from zerocost.engine import executor

    monkeypatch.setitem(sys.modules, "ray", None)
    for ask in (lambda: executor("ray"), lambda: zerocost.RayArtifact(Scale())):
        with pytest.raises(zerocost.PluginError, match=r"pip install 'zerocost\[ray\]'"):
            ask()


def test_usage_statistics_are_off(cluster):
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
