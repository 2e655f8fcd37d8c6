"""Stages are views of contiguous slices; with costs no partition has a cheaper dearest stage."""

import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zerocost
from support.contract import ArtifactContract, context
from zerocost.artifacts.parallel.pipeline_parallel import PipelineParallelArtifact


def pipeline(tensor, registry=None, **parameters):
    result = PipelineParallelArtifact(registry).execute({"tensor": tensor, **parameters}, context("pipeline_parallel"))
    assert result["artifact_used"] == "pipeline_parallel"
    return result["result"]


class TestContract(ArtifactContract):
    def make(self):
        return PipelineParallelArtifact()


class TestContractWithCosts(TestContract):
    def example(self, artifact):
        return {"tensor": np.arange(12.0).reshape(6, 2), "costs": [1, 2, 3, 4, 5, 6], "num_stages": 3}


@given(length=st.integers(0, 20), num_stages=st.integers(1, 9), axis=st.sampled_from([0, 1, -1]))
def test_without_costs_stages_are_those_of_numpy(length, num_stages, axis):
    tensor = np.zeros((length, 3) if axis == 0 else (3, length), np.int16)
    stages = pipeline(tensor, num_stages=num_stages, axis=axis)
    for stage, expected in zip(stages, np.array_split(tensor, num_stages, axis), strict=True):
        assert stage.shape == expected.shape
        assert stage.size == 0 or np.shares_memory(stage, tensor)


@given(
    costs=st.lists(st.integers(0, 20) | st.sampled_from([0, 100]), min_size=0, max_size=9),
    num_stages=st.integers(1, 5),
)
def test_with_costs_the_dearest_stage_is_as_cheap_as_can_be(costs, num_stages):
    tensor = np.arange(len(costs))
    stages = pipeline(tensor, num_stages=num_stages, costs=costs)
    assert len(stages) == num_stages
    assert np.concatenate(stages).tolist() == tensor.tolist()
    used = min(num_stages, len(costs))
    assert all(stage.size for stage in stages[:used])
    assert not any(stage.size for stage in stages[used:])
    if not costs:
        return
    # By brute force, earliest cuts first: the first of the best is the one.
    partitions = [(0, *cuts, len(costs)) for cuts in itertools.combinations(range(1, len(costs)), used - 1)]
    best = min(partitions, key=lambda cuts: max(sum(costs[a:b]) for a, b in itertools.pairwise(cuts)))
    assert [stage.size for stage in stages[:used]] == [b - a for a, b in itertools.pairwise(best)]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32, np.float16, np.float64])
def test_costs_of_any_number_type_and_layout(dtype):
    costs = np.array([[1, 9], [1, 9], [1, 9], [3, 9]], dtype)[:, 0]
    assert [stage.size for stage in pipeline(np.zeros(4), num_stages=2, costs=costs)] == [3, 1]


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"num_stages": 0}, zerocost.RangeError, "num_stages: 0 is less than the minimum of 1"),
        ({"num_stages": -1}, zerocost.RangeError, "num_stages: -1 is less than the minimum of 1"),
        ({"num_stages": 1.5}, zerocost.DatatypeError, "num_stages: 1.5 is not of type"),
        ({"num_stages": False}, zerocost.DatatypeError, "num_stages: false is not of type"),
        ({"num_stages": 10**13}, zerocost.RangeError, "num_stages: 10000000000000 was given, at most 16777216"),
        ({"num_stages": 10**13, "costs": [1.0, 2, 3]}, zerocost.RangeError, "num_stages: 10000000000000 was given"),
        ({"axis": 1}, zerocost.RangeError, "axis: 1 was given"),
        ({"costs": [1.0, 2.0]}, zerocost.ShapeError, r"costs: shape \[2\] was given, \[3\] \(one for each slice\)"),
        ({"costs": []}, zerocost.ShapeError, r"costs: shape \[0\] was given"),
        ({"costs": [[1.0], [1.0], [1.0]]}, zerocost.ShapeError, r"costs: shape \[3, 1\] was given"),
        ({"costs": [1.0, -2.0, 1.0]}, zerocost.RangeError, r"costs: -2 \(for slice 1\) was given, a finite number"),
        ({"costs": [1.0, 2.0, np.nan]}, zerocost.RangeError, r"costs: NaN \(for slice 2\)"),
        ({"costs": [np.inf, 2.0, 1.0]}, zerocost.RangeError, r"costs: inf \(for slice 0\)"),
        ({"costs": ["a", "b", "c"]}, zerocost.DatatypeError, "costs: lists of text"),
        ({"costs": 3}, zerocost.DatatypeError, "costs: int was given"),
        ({"costs": np.zeros(3, complex)}, zerocost.DatatypeError, "costs: dtype complex128"),
    ],
)
def test_invalid_numbers_of_stages_are_refused(parameters, error, message):
    with pytest.raises(error, match=message) as caught:
        pipeline(np.zeros(3), **parameters)
    assert caught.value.argument in parameters


def test_a_tensor_without_axes_is_refused():
    with pytest.raises(zerocost.ShapeError, match="tensor: rank 0 was given"):
        pipeline(np.zeros(()))


# Running stages


class Scale(zerocost.ParallelArtifact):
    """Multiplies."""

    def process_parallel(self, tensor, factor: float = 2.0):
        return tensor * factor


class Keyed(zerocost.ParallelArtifact):
    """Needs a key."""

    def process_parallel(self, tensor, key: str):
        return tensor


@pytest.fixture
def registry():
    registry = zerocost.default_registry()
    registry.register_artifact("scale", Scale(), "parallel")
    registry.register_artifact("keyed", Keyed(), "parallel")
    return registry


def add_one(batch):
    return batch + 1


@given(
    length=st.integers(0, 12),
    num_microbatches=st.none() | st.integers(1, 15),
    schedule=st.sampled_from(["gpipe", "1f1b"]),
    axis=st.sampled_from([0, 1, -1]),
    num_stages=st.integers(1, 4),
)
def test_the_result_is_that_of_running_stages_one_after_another(length, num_microbatches, schedule, axis, num_stages):
    shape = (length, 3) if axis == 0 else (3, length)
    tensor = np.random.default_rng(0).standard_normal(shape)
    stages = [np.tanh, add_one, lambda batch: batch * np.float64(3), np.negative][:num_stages]
    expected = tensor
    for stage in stages:
        expected = stage(expected)
    result = pipeline(
        tensor, num_stages=num_stages, stages=stages, num_microbatches=num_microbatches, schedule=schedule, axis=axis
    )
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


def test_stages_of_every_kind(registry):
    stages = ["scale", {"artifact": "scale", "params": {"factor": 10.0}}, Scale(), add_one]
    result = pipeline(np.arange(6.0), registry, stages=stages)
    assert result.tolist() == (np.arange(6.0) * 40 + 1).tolist()


def test_default_registry_passes_itself(registry):
    result = registry["pipeline_parallel"].implementation.execute(
        {"tensor": np.ones(4), "num_stages": 2, "stages": ["scale", "scale"]}, context()
    )
    assert result["result"].tolist() == [4.0] * 4


def test_a_pipeline_in_a_chain(registry):
    service = zerocost.ArtifactCommunicationService(registry)
    steps = [
        {"artifact": "scale"},
        {"artifact": "pipeline_parallel", "params": {"num_stages": 2, "stages": ["scale", "scale"]}},
    ]
    assert service.chain_artifacts(steps, {"tensor": np.array([1.0, 2.0, 3.0])})["result"].tolist() == [8.0, 16.0, 24.0]


def test_stages_that_return_what_they_get_copy_nothing():
    tensor = np.arange(8.0)
    result = pipeline(tensor, num_stages=2, stages=[lambda batch: batch] * 2)
    assert np.shares_memory(result, tensor)


def test_micro_batches_are_cut_as_splits_are():
    seen = []
    pipeline(
        np.arange(7), num_stages=1, num_microbatches=3, stages=[lambda batch: seen.append(batch.tolist()) or batch]
    )
    assert seen == [[0, 1, 2], [3, 4], [5, 6]]
    seen.clear()
    pipeline(np.arange(2), num_stages=1, num_microbatches=9, stages=[lambda batch: seen.append(batch.size) or batch])
    assert seen == [1, 1], "a slice is the smallest micro-batch"


def test_artifacts_see_stage_and_micro_batch():
    seen = []

    class Watching(Scale):
        """Remembers its contexts."""

        def execute(self, input_data, context):
            seen.append(
                (context.mode, context.metadata["stage"], context.metadata["micro_batch"], context.metadata["me"])
            )
            return super().execute(input_data, context)

    outer = zerocost.ExecutionContext("p", "parallel", "restful", {"me": 1})
    PipelineParallelArtifact().execute({"tensor": np.ones(2), "num_stages": 2, "stages": [Watching()] * 2}, outer)
    assert sorted(seen) == [("restful", stage, batch, 1) for stage in (0, 1) for batch in (0, 1)]


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("zerocost-stage")]


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_stages_overlap(schedule):
    # Micro-batch 0 can only leave stage 1 once micro-batch 1 is in stage 0: one after another would time out.
    inside = threading.Event()

    def first(batch):
        if batch[0] == 1:
            inside.set()
        return batch

    def second(batch):
        assert inside.wait(30)
        return batch

    pipeline(np.arange(2), num_stages=2, stages=[first, second], schedule=schedule)
    assert not threads()


def alive_at_each_stage(schedule, num_stages, num_microbatches):
    """The largest number of micro-batches that had entered a stage and not left the pipeline."""
    lock = threading.Lock()
    entered, left, peaks = [0] * num_stages, [0], [0] * num_stages

    def stage(index):
        def run(batch):
            with lock:
                entered[index] += 1
                peaks[index] = max(peaks[index], entered[index] - left[0])
            time.sleep(0.02 if index == num_stages - 1 else 0.0)
            if index == num_stages - 1:
                with lock:
                    left[0] += 1
            return batch

        return run

    stages = [stage(index) for index in range(num_stages)]
    pipeline(
        np.arange(num_microbatches),
        num_stages=num_stages,
        num_microbatches=num_microbatches,
        stages=stages,
        schedule=schedule,
    )
    return peaks


def test_1f1b_bounds_what_is_alive():
    peaks = alive_at_each_stage("1f1b", 3, 9)
    assert all(peak <= 3 - stage for stage, peak in enumerate(peaks)), peaks


def test_gpipe_runs_ahead():
    # The last stage is slow, so the first one has finished long before.
    assert alive_at_each_stage("gpipe", 3, 9)[0] > 3


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("num_microbatches", [1, 6])
def test_an_exception_stops_the_pipeline(schedule, num_microbatches):
    after = []

    def fail(batch):
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken") as caught:
        pipeline(
            np.arange(6),
            num_stages=3,
            num_microbatches=num_microbatches,
            stages=[add_one, fail, lambda batch: after.append(1) or batch],
            schedule=schedule,
        )
    assert caught.value.__notes__ == ["in stage 1 (fail) of the pipeline, micro-batch 0"]
    assert not after
    assert not threads()


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, BaseException])
def test_a_base_exception_stops_the_pipeline_too(schedule, error):
    def fail(batch):
        if batch[0] == 1:
            raise error("stop")
        return batch

    with pytest.raises(error, match="stop") as caught:
        pipeline(np.arange(8), num_stages=3, num_microbatches=8, stages=[add_one, fail, add_one], schedule=schedule)
    assert caught.value.__notes__ == ["in stage 1 (fail) of the pipeline, micro-batch 0"]
    assert not threads()


def test_a_later_micro_batch_is_named():
    def fail_on_four(batch):
        if 4 in batch:
            raise ValueError("four")
        return batch

    with pytest.raises(ValueError, match="four") as caught:
        pipeline(np.arange(6), num_stages=2, num_microbatches=6, stages=[add_one, fail_on_four])
    assert caught.value.__notes__ == ["in stage 1 (fail_on_four) of the pipeline, micro-batch 3"]


def test_a_deadline_holds_for_every_stage():
    deadline = time.monotonic() + 0.5
    late = zerocost.ExecutionContext("p", "parallel", "zero_cost", {"deadline": deadline})
    ran = []

    def slow(batch):
        ran.append(1)
        time.sleep(max(0.0, deadline - time.monotonic()) + 0.01)
        return batch

    with pytest.raises(zerocost.DeadlineExceeded):
        PipelineParallelArtifact().execute({"tensor": np.arange(8), "num_stages": 2, "stages": [slow, slow]}, late)
    assert len(ran) == 1
    assert not threads()


REFUSED_STAGES = [
    ({"stages": [add_one]}, zerocost.RangeError, r"stages: 1 were given, 2 \(num_stages\) are needed"),
    ({"stages": []}, zerocost.RangeError, "stages: 0 were given"),
    ({"stages": "scale"}, zerocost.DatatypeError, "stages: str was given, a list is needed"),
    ({"stages": [add_one, 7]}, zerocost.DatatypeError, r"stages\[1\]: int was given"),
    ({"stages": [add_one, Scale]}, zerocost.DatatypeError, r"stages\[1\]: Scale was given"),
    ({"stages": ["scale", "scal"]}, zerocost.UnknownArtifact, "Artifact scal not found; did you mean 'scale'"),
    ({"stages": ["scale", {"artifact": "scale", "inputs": {}}]}, zerocost.InvalidInput, "unknown key 'inputs'"),
    ({"stages": ["scale", {"params": {}}]}, zerocost.DatatypeError, "a step has an 'artifact'"),
    ({"stages": ["scale", {"artifact": "scale", "params": {"facto": 1}}]}, zerocost.InvalidInput, "'factor'"),
    ({"stages": ["scale", {"artifact": "scale", "params": {"factor": "x"}}]}, zerocost.InvalidInput, "factor: "),
    ({"stages": ["scale", {"artifact": "scale", "params": {"tensor": [1.0]}}]}, zerocost.InvalidInput, "bound to"),
    ({"stages": ["scale", "keyed"]}, zerocost.MissingInput, r"stages\[1\] \(keyed\): key required"),
    (
        {"stages": [add_one, add_one], "num_microbatches": 0},
        zerocost.RangeError,
        "num_microbatches: 0 is less",
    ),
    (
        {"stages": [add_one, add_one], "num_microbatches": 1.0},
        zerocost.DatatypeError,
        "a whole number is needed",
    ),
    ({"stages": [add_one, add_one], "schedule": "zigzag"}, zerocost.RangeError, "schedule: .zigzag. was given"),
    ({"stages": [add_one, add_one], "axis": 3}, zerocost.RangeError, "axis: 3 was given"),
    ({"stages": [add_one, add_one], "costs": [1, 1, 1]}, zerocost.RangeError, "costs: given together with stages"),
    ({"stages": [add_one, lambda batch: batch[:0]]}, zerocost.ShapeError, "a stage must keep the 2 slices along"),
    ({"stages": [add_one, np.sum]}, zerocost.DatatypeError, "result: float64 was given"),
    ({"stages": [add_one, lambda batch: None]}, zerocost.DatatypeError, "result: NoneType was given"),
    ({"schedule": 3}, zerocost.DatatypeError, "schedule: 3 was given"),
    ({"schedule": "2f2b"}, zerocost.RangeError, "schedule: .2f2b. was given"),
    ({"num_microbatches": 2}, zerocost.RangeError, "num_microbatches: given without stages"),
]


@pytest.mark.parametrize(("parameters", "error", "message"), REFUSED_STAGES)
def test_stages_that_cannot_run_are_refused(registry, parameters, error, message):
    with pytest.raises(error, match=message):
        pipeline(np.arange(3.0), registry, num_stages=2, **parameters)
    assert not threads()


def test_names_need_a_registry():
    with pytest.raises(zerocost.InvalidInput, match="'scale' was named, but this artifact was made without a registry"):
        pipeline(np.arange(3.0), num_stages=1, stages=["scale"])


class Elsewhere:
    """An executor on another machine that cannot be reached."""

    is_local = False

    def pipeline(self, *_):
        raise AssertionError("a stage left this process")


def test_here_keeps_the_stages_in_this_process():
    remote = PipelineParallelArtifact(executor=Elsewhere())
    stages = [lambda batch: batch + 1, lambda batch: batch * 2]
    with pytest.raises(AssertionError, match="left this process"):
        remote.process_parallel(np.arange(4.0), 2, stages=stages)
    assert np.array_equal(remote.here().process_parallel(np.arange(4.0), 2, stages=stages), [2, 4, 6, 8])
    assert isinstance(remote.executor, Elsewhere)
    local = PipelineParallelArtifact()
    assert local.here() is local
