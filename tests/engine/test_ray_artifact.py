"""Whole artifacts on a Ray cluster, behind the interface that they have locally."""

import os
import signal
import threading
import time
from typing import Annotated, Any

import numpy as np
import pytest

import zerocost
from support.contract import ArtifactContract, context
from support.equality import same
from support.ray import MARKS, STORE
from support.ray_samples import Scale
from support.waiting import wait_until
from zerocost.core.limits import Limits
from zerocost.engine import ray_artifact, remote_calls

pytestmark = MARKS


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


def test_a_replica_that_is_lost_for_good_is_named_and_replaced(cluster):
    class Dying(Scale):
        """Dies when asked to."""

        def process_parallel(self, tensor, factor: float = 2.0):
            if factor == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return tensor * factor

    artifact = zerocost.RayArtifact(Dying(), 1)
    with pytest.raises(zerocost.ServiceUnavailable, match="replica 0 of 'under_test' was lost and could not be run"):
        artifact.execute({"tensor": np.ones(1), "factor": 0.0}, context())
    assert artifact.execute({"tensor": np.ones(1)}, context())["result"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Scale, 0), zerocost.RangeError, "num_replicas: 0 was given"),
        ((Scale, True), zerocost.DatatypeError, "num_replicas: bool True was given"),
        ((Scale, 1.5), zerocost.DatatypeError, "num_replicas: float 1.5 was given"),
        ((dict, 1), zerocost.DatatypeError, "implementation: dict was given"),
    ],
)
def test_replicas_that_cannot_be_are_refused(cluster, arguments, error, message):
    with pytest.raises(error, match=message):
        zerocost.RayArtifact(*arguments)


# What must hold before anything is sent


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("scaled_dot_product_attention", {"query": np.ones((8, 4)), "key": np.ones((8, 4)), "value": np.ones((8, 4))}),
        ("scaled_dot_product_attention", {"query": np.ones((8, 0)), "key": np.ones((8, 0)), "value": np.ones((8, 9))}),
        ("tensor_parallel", {"tensor": np.ones(4), "num_splits": 100}),
        ("tensor_parallel", {"tensor": np.ones(4), "num_splits": 3}),
        ("pipeline_parallel", {"tensor": np.ones(100)}),
    ],
)
def test_the_limits_of_a_server_hold(cluster, name, data):
    local = zerocost.default_registry()[name].implementation
    there = zerocost.RayArtifact(type(local), 1)
    limits = Limits(elements=50, fan_out=4, parts=10, operations=100)
    answers = []
    for artifact in (local, there):
        assert artifact.output_elements(data) == local.output_elements(data)
        try:
            artifact._ports.bind(data, limits)
            answers.append(None)
        except zerocost.ZerocostError as error:
            answers.append((type(error), str(error)))
    assert answers[0] == answers[1]


def test_limits_are_passed_to_the_replica(cluster):
    there = zerocost.RayArtifact(zerocost.TensorParallelArtifact, 1)
    with pytest.raises(zerocost.LimitExceeded, match="the outputs would have 102 elements"):
        there._ports.bind({"tensor": np.ones(100)}, Limits(50, 4, 10, 100))


class Picky(Scale):
    """Takes ones only, and has an input for callers in its own process."""

    uses = ("scale",)

    def process_parallel(self, tensor, out: Annotated[Any, {"x-in-process": True}] = None):
        return tensor

    def validate_input(self, input_data):
        return super().validate_input(input_data) and bool(np.all(np.asarray(input_data["tensor"]) == 1))

    def input_errors(self, input_data):
        return [
            *super().input_errors(input_data),
            *([("/tensor", "too long")] if len(input_data["tensor"]) > 3 else []),
        ]


def test_an_artifact_s_own_validation_is_called(cluster):
    there = zerocost.RayArtifact(Picky)
    assert there.uses == ("scale",)
    assert there.validate_input({"tensor": np.ones(3)})
    assert not there.validate_input({"tensor": np.zeros(3)})
    assert there.input_errors({"tensor": np.ones(9)}) == [("/tensor", "too long")]
    assert [where for where, _ in there.input_errors({"tensor": np.ones(1), "out": np.ones(1)})] == ["/out"]
    assert not there.validate_input({"tensor": np.ones(1), "out": np.ones(1)})
    with pytest.raises(zerocost.UndeclaredInput, match="'out' is not an input"):
        there.execute({"tensor": np.ones(1), "out": np.ones(1)}, context())


# Contexts, arrays, threads


class Looks(zerocost.ParallelArtifact):
    """Returns its context."""

    def execute(self, input_data, context):
        deadline = context.metadata.get("deadline")
        facts = {"threads": zerocost.num_threads(), "left": None if deadline is None else deadline - time.monotonic()}
        return {"result": {**facts, "names": sorted(context.metadata), "mode": context.mode}}

    def process_parallel(self, tensor):
        raise NotImplementedError


def test_a_context_arrives_without_local_metadata(cluster):
    there = zerocost.RayArtifact(Looks, 1)
    lock = threading.Lock()  # cannot be sent, as little as a tracer's spans
    metadata = {"deadline": time.monotonic() + 500, "span": lock.acquire, "request_id": "r"}
    facts = there.execute({"tensor": np.ones(1)}, zerocost.ExecutionContext("l", "x", "restful", metadata))["result"]
    assert (facts["names"], facts["mode"]) == (["deadline", "request_id"], "restful")
    assert 0 < facts["left"] <= 500
    packed, seconds = remote_calls.sendable(zerocost.ExecutionContext("l", "x", "restful", metadata))
    assert packed.metadata == {"request_id": "r"}, "a moment on the clock of one machine says nothing on another one"
    assert 0 < seconds <= 500
    assert there.execute({"tensor": np.ones(1)}, context())["result"]["left"] is None


@pytest.mark.parametrize(("num_replicas", "threads"), [(1, 2), (2, 2), (3, 1)])
def test_replicas_share_the_cpus_of_their_node(cluster, num_replicas, threads):
    there = zerocost.RayArtifact(Looks, num_replicas)
    assert there.execute({"tensor": np.ones(1)}, context())["result"]["threads"] == threads


def test_a_deadline_is_not_waited_for_and_a_late_replica_is_not_asked(cluster):
    class Sleeps(Scale):
        """Sleeps when asked to."""

        def process_parallel(self, tensor, factor: float = 2.0):
            time.sleep(60 * (factor == 0))
            return tensor

    there = zerocost.RayArtifact(Sleeps(), 2)
    for _ in range(2):
        there.execute({"tensor": np.ones(1)}, context())
    late = zerocost.ExecutionContext("s", "x", "zero_cost", {"deadline": time.monotonic() + 1})
    began = time.monotonic()
    with pytest.raises(zerocost.DeadlineExceeded, match="the deadline passed before replica 0 of 's' was there"):
        there.execute({"tensor": np.ones(1), "factor": 0.0}, late)
    for _ in range(4):
        there.execute({"tensor": np.ones(1)}, context())
    assert time.monotonic() - began < 30
    there.close()


def test_a_replica_that_is_stuck_is_started_again_and_runs_what_waited(cluster, monkeypatch, tmp_path):
    class Sticks(Scale):
        """Is stuck when asked to be."""

        def process_parallel(self, tensor, factor: float = 2.0):
            if factor == 0:
                (tmp_path / f"stuck {time.monotonic_ns()}").touch()
                time.sleep(600)
            return tensor * factor

    def until(seconds):
        return zerocost.ExecutionContext("s", "x", "zero_cost", {"deadline": time.monotonic() + seconds})

    monkeypatch.setattr(ray_artifact, "_GRACE_SECONDS", 1.0)
    there = zerocost.RayArtifact(Sticks(), 1)
    one, lost = {"tensor": np.ones(1)}, 0
    for _ in range(5):  # more often than Ray itself restarts it
        there.execute(one, until(60))
        with pytest.raises(zerocost.DeadlineExceeded):
            there.execute({**one, "factor": 0.0}, until(1.0))
        try:
            assert there.execute(one, until(60))["result"].tolist() == [2.0]
        except zerocost.ServiceUnavailable:
            lost += 1
    assert lost <= 1, "what waits is lost only with the replica that has used up its restarts"
    assert len(list(tmp_path.iterdir())) <= 5, "what was stuck is not run again"
    wait_until(lambda: there._calls == [0])
    there.close()


def test_a_late_error_of_a_lost_replica_does_not_replace_the_new_one(cluster):
    there = zerocost.RayArtifact(Scale, 1)
    lost = there._replicas[0]
    there._ray.kill(lost)
    with pytest.raises(zerocost.ServiceUnavailable):
        there.execute({"tensor": np.ones(1)}, context())
    assert there.execute({"tensor": np.ones(1)}, context())["result"].tolist() == [2.0]
    fresh = there._replicas[0]
    there._calls[0] += 1
    there._release_lost(0, lost)  # another call that was under way
    there.execute({"tensor": np.ones(1)}, context())
    assert there._replicas[0] is fresh
    assert there._calls == [0]


def test_a_replica_that_cannot_be_started_again_is_an_error_and_tried_again(cluster, monkeypatch):
    import ray

    there = zerocost.RayArtifact(Scale, 1)
    start = there._starts[0]
    there._ray.kill(there._replicas[0])
    with pytest.raises(zerocost.ServiceUnavailable):
        there.execute({"tensor": np.ones(1)}, context())

    def fails():
        raise ray.exceptions.RaySystemError("no connection")

    there._starts[0] = fails
    with pytest.raises(zerocost.ServiceUnavailable, match="replica 0 of 'under_test'"):
        there.execute({"tensor": np.ones(1)}, context())
    there._starts[0] = start
    assert there.execute({"tensor": np.ones(1)}, context())["result"].tolist() == [2.0]
    assert there._calls == [0]


def test_an_array_is_sent_once(cluster, monkeypatch):
    import ray

    there, shapes, put = zerocost.RayArtifact(Pair, 1), [], ray.put

    def counting(value):
        shapes.append(value.shape)
        return put(value)

    monkeypatch.setattr(ray, "put", counting)
    array = np.ones(2**18)
    outputs = there.execute({"first": array, "second": array, "small": np.ones(3)}, context())
    assert outputs["total"] == 2**19 + 3
    assert shapes == [array.shape]


class Pair(zerocost.Artifact):
    """Adds up."""

    def get_schema(self):
        return {"type": "object", "properties": {name: {"x-tensor": {}} for name in ("first", "second", "small")}}

    def execute(self, input_data, context):
        return {"total": sum(float(array.sum()) for array in input_data.values())}


def test_an_array_larger_than_the_object_store(cluster):
    with pytest.raises(zerocost.LimitExceeded, match="start Ray with more object_store_memory"):
        zerocost.RayArtifact(Scale, 1).execute({"tensor": np.zeros(STORE // 8 + 1)}, context())


def test_inputs_that_cannot_be_sent_are_named(cluster):
    class Locked(Scale):
        """Holds a lock."""

        def __init__(self):
            self.lock = threading.Lock()

    with pytest.raises(zerocost.DatatypeError, match=r"Locked cannot be sent to another process .*; give its class"):
        zerocost.RayArtifact(Locked())
    there = zerocost.RayArtifact(Scale, 1)
    with pytest.raises(zerocost.DatatypeError, match="an input cannot be sent to another process"):
        there.execute({"tensor": np.array([threading.Lock()], object)}, context())
    assert there._calls == [0]
    assert there.execute({"tensor": np.ones(1)}, context())["result"].tolist() == [2.0]
