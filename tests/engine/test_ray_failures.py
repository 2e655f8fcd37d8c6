"""Failures on a Ray cluster, and before there is one."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import zerocost
from artifacts.parallel import test_pipeline_parallel
from support.contract import context
from support.equality import same
from support.ray import MARKS, STORE, python
from support.ray_samples import Scale, run
from support.waiting import wait_until

pytestmark = MARKS


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


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_a_stage_that_is_lost_for_good_is_an_error_that_names_it_and_the_micro_batch(cluster, schedule):
    from zerocost.engine.ray_executor import RayExecutor

    def fatal(batch):
        if batch[0] == -2:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch

    # Micro-batch 0 may be lost with the process that was just about to hand it on.
    artifact = zerocost.PipelineParallelArtifact(executor=RayExecutor(retries=1))
    stages = {"num_stages": 3, "stages": [np.negative, fatal, np.negative], "num_microbatches": 4}
    with pytest.raises(
        zerocost.ServiceUnavailable,
        match=r"^micro-batch [01] in stage 1 \(fatal\) of the pipeline was lost and could",
    ):
        artifact.execute({"tensor": np.array([1, 2, 3, 4]), "schedule": schedule, **stages}, context())


def test_a_stage_that_cannot_be_sent_is_named(registries):
    lock = threading.Lock()

    def locked(batch):
        with lock:
            return batch

    stages = {"num_stages": 2, "stages": [np.negative, locked]}
    assert run(registries[0], "pipeline_parallel", tensor=np.arange(2), **stages).tolist() == [0, -1]
    with pytest.raises(
        zerocost.DatatypeError, match=r"stages: stage 1 \(locked\) cannot be sent to another process \(.+\)"
    ):
        run(registries[1], "pipeline_parallel", tensor=np.arange(2), **stages)


def test_a_deadline_holds_for_shards_that_are_stuck_and_for_those_that_wait(executor):
    def stuck(number):
        time.sleep(600 if number else 0)

    late = zerocost.ExecutionContext("t", "parallel", "zero_cost", {"deadline": time.monotonic() + 3})
    began = time.monotonic()
    with pytest.raises(zerocost.DeadlineExceeded, match=r"the deadline passed before shard [01] was there"):
        executor.shards(stuck, [(number,) for number in range(7)], late)  # on four CPUs
    # All of them were stopped, so no CPU is taken.
    assert executor.shards(abs, [(-number,) for number in range(8)], context()) == list(range(8))
    assert time.monotonic() - began < 60


def test_the_deadline_of_a_call_reaches_its_shards(executor):
    artifact = zerocost.TensorParallelArtifact(executor)
    layer = {"tensor": np.ones((1, 2)), "weight": np.ones((2, 2))}
    late = zerocost.ExecutionContext("t", "parallel", "zero_cost", {"deadline": time.monotonic() - 1})
    with pytest.raises(zerocost.DeadlineExceeded, match="the deadline passed before shard 0 was there"):
        artifact.execute(layer, late)
    assert artifact.execute(layer, context())["result"].tolist() == [[2.0, 2.0]]


@pytest.mark.timeout(240)
def test_a_node_that_is_removed_in_the_middle(cluster, executor, tmp_path):
    """Of shards, of a pipeline, and of an artifact's calls: all of them go on elsewhere."""
    nodes, node = cluster
    extra = nodes.add_node(**{**node, "num_cpus": 4})
    nodes.wait_for_nodes()

    def seen(what):
        import ray

        (tmp_path / f"{what} {ray.get_runtime_context().get_node_id()}").touch()
        time.sleep(1)

    def shard(number, weight):
        seen("shard")
        time.sleep(2)
        return number * int(weight.sum())

    def stage(batch):
        seen("stage")
        return batch * 10

    class Slow(Scale):
        """Sleeps."""

        def process_parallel(self, tensor, factor: float = 2.0):
            seen("replica")
            time.sleep(3)
            return tensor * factor

    weight = executor.share(np.full(2**18, 10 / 2**18))  # large: so the shards are spread over the nodes
    large = np.arange(3 * 2**18).reshape(3, -1)
    artifact, pipeline = zerocost.RayArtifact(Slow(), 3), zerocost.PipelineParallelArtifact(executor=executor)
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(artifact.execute, {"tensor": np.full(1, index)}, context()) for index in range(3)]
        stages = {"tensor": np.repeat(large, 3, 0), "num_stages": 3, "stages": [stage] * 3, "num_microbatches": 9}
        staged = pool.submit(pipeline.execute, stages, context())
        shards = pool.submit(executor.shards, shard, [(number, weight) for number in range(6)], context())
        wait_until(
            lambda: all((tmp_path / f"{what} {extra.node_id}").exists() for what in ("shard", "stage", "replica")), 60
        )
        nodes.remove_node(extra, allow_graceful=False)
        assert shards.result() == [0, 10, 20, 30, 40, 50]
        assert same(staged.result()["result"], np.repeat(large, 3, 0) * 1000)
        assert [call.result()["result"].tolist() for call in calls] == [[0.0], [2.0], [4.0]]
    artifact.close()


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


# Without a cluster


def test_an_unknown_executor():
    from zerocost.engine import executor

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


def test_usage_statistics_are_off():
    ask = """
try:
    from ray._common.usage import usage_lib
except ImportError:  # up to Ray 2.50
    from ray._private.usage import usage_lib
print(usage_lib.usage_stats_enabled())
"""
    assert python(ask) == "True", "Ray's own default, without which this test could not fail"
    connect = "from zerocost.engine.cluster import connect\nray = connect()"
    assert python(f"{connect}\n{ask}\nray.shutdown()").splitlines()[-1] == "False"


ASK = """
import zerocost
from zerocost.engine import executor
try:
    executor("ray")
except zerocost.ServiceUnavailable as error:
    print(error)
"""


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "127.0.0.1:99999", "host:", "http://127.0.0.1:1"])
def test_an_address_without_a_cluster(address):
    assert python(ASK, RAY_ADDRESS=address).startswith(f"no Ray cluster answers at {address}: ")


def test_a_cluster_that_cannot_be_started_here(tmp_path):
    folder = tmp_path / ("x" * 120)  # sockets have shorter names
    folder.mkdir()
    assert python(ASK, RAY_TMPDIR=str(folder)).startswith("Ray cannot be started here: ")


def test_a_cluster_of_another_ray_version_is_refused(cluster):
    address = cluster[0].address
    there = {"RAY_ADDRESS": address, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # as the cluster was started
    told = python(f"import ray\nray.__version__ = '1.0.0'\n{ASK}", **there)
    assert told.startswith(f"the Ray cluster at {address} cannot be joined: Version mismatch")


# The stages that are refused on threads


@pytest.fixture(scope="module")
def there(executor):
    import ray

    ray.cloudpickle.register_pickle_by_value(test_pipeline_parallel)
    registry = zerocost.default_registry(executor)
    registry.register_artifact("scale", test_pipeline_parallel.Scale(), "parallel")
    registry.register_artifact("keyed", test_pipeline_parallel.Keyed(), "parallel")
    return registry


@pytest.mark.parametrize(("parameters", "error", "message"), test_pipeline_parallel.REFUSED_STAGES)
def test_invalid_stages_are_refused_on_ray_too(there, parameters, error, message):
    with pytest.raises(error, match=message):
        run(there, "pipeline_parallel", tensor=np.arange(3.0), num_stages=2, **parameters)
