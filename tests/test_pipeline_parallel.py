"""Stages are views of contiguous slices; with costs no partition has a cheaper dearest stage."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zerocost
from contract import ArtifactContract, context
from zerocost.artifacts.parallel.pipeline_parallel import PipelineParallelArtifact


def pipeline(tensor, **parameters):
    result = PipelineParallelArtifact().execute({"tensor": tensor, **parameters}, context("pipeline_parallel"))
    assert result["artifact_used"] == "pipeline_parallel"
    return result["result"]


class TestContract(ArtifactContract):
    def make(self):
        return PipelineParallelArtifact()


class TestContractWithCosts(ArtifactContract):
    def make(self):
        return PipelineParallelArtifact()

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
        ({"num_stages": 0}, zerocost.RangeError, "num_stages: 0 was given, an integer of at least 1"),
        ({"num_stages": -1}, zerocost.RangeError, "num_stages: -1 was given"),
        ({"num_stages": 1.5}, zerocost.DatatypeError, "num_stages: float 1.5 was given"),
        ({"num_stages": False}, zerocost.DatatypeError, "num_stages: bool False was given"),
        ({"axis": 1}, zerocost.RangeError, "axis: 1 was given"),
        ({"costs": [1.0, 2.0]}, zerocost.ShapeError, r"costs: shape \[2\] was given, \[3\] \(one for each slice\)"),
        ({"costs": []}, zerocost.ShapeError, r"costs: shape \[0\] was given"),
        ({"costs": [[1.0], [1.0], [1.0]]}, zerocost.ShapeError, r"costs: shape \[3, 1\] was given"),
        ({"costs": [1.0, -2.0, 1.0]}, zerocost.RangeError, r"costs: -2 \(for slice 1\) was given, finite numbers"),
        ({"costs": [1.0, 2.0, np.nan]}, zerocost.RangeError, r"costs: NaN \(for slice 2\)"),
        ({"costs": [np.inf, 2.0, 1.0]}, zerocost.RangeError, r"costs: inf \(for slice 0\)"),
        ({"costs": ["a", "b", "c"]}, zerocost.DatatypeError, "costs: lists of text"),
        ({"costs": 3}, zerocost.DatatypeError, "costs: int was given"),
        ({"costs": np.zeros(3, complex)}, zerocost.DatatypeError, "costs: dtype complex128"),
    ],
)
def test_what_cannot_be_staged_is_refused(parameters, error, message):
    with pytest.raises(error, match=message) as caught:
        pipeline(np.zeros(3), **parameters)
    assert caught.value.argument in parameters


def test_a_tensor_without_axes_is_refused():
    with pytest.raises(zerocost.ShapeError, match="tensor: rank 0 was given"):
        pipeline(np.zeros(()))
