"""Schedules: their bubbles and peaks are those of the formulas, and ``zerocost schedule`` shows them."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zerocost
from zerocost import pipeline_schedule
from zerocost.cli.app import main

KINDS = ("gpipe", "1f1b")


def check(schedule, forward, backward):
    """Everything runs once, one thing at a time on a stage, as soon as the stage and its inputs are ready."""
    stages, micro_batches = schedule.num_stages, schedule.num_microbatches
    ends = {(item.direction, item.stage, item.micro_batch): item.start + item.duration for item in schedule.items}
    assert len(ends) == len(schedule.items) == 2 * stages * micro_batches
    free = [0.0] * stages
    for item in schedule.items:
        if item.direction == "F":
            needed = ("F", item.stage - 1) if item.stage else None
        else:
            needed = ("B", item.stage + 1) if item.stage + 1 < stages else ("F", item.stage)
        ready = 0.0 if needed is None else ends[(*needed, item.micro_batch)]
        assert item.start == max(ready, free[item.stage])
        assert item.duration == (forward if item.direction == "F" else backward)[item.stage]
        free[item.stage] = item.start + item.duration
    assert schedule.makespan == max(ends.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stages", range(1, 17))
def test_bubble_and_peak_are_the_formulas(kind, stages):
    for micro_batches in range(1, 17):
        schedule = pipeline_schedule(stages, micro_batches, kind, forward=1, backward=2)
        check(schedule, [1] * stages, [2] * stages)
        assert schedule.idle == ((stages - 1) * 3.0,) * stages
        assert schedule.bubble_fraction == pytest.approx((stages - 1) / (micro_batches + stages - 1))
        assert schedule.bubble_to_ideal == pytest.approx((stages - 1) / micro_batches)
        for stage, peak in enumerate(schedule.peak):
            assert peak == (micro_batches if kind == "gpipe" else min(micro_batches, stages - stage))


@pytest.mark.parametrize("kind", KINDS)
def test_unequal_stages(kind):
    forward, backward = [1.0, 4.0, 2.0], [3.0, 1.0, 5.0]
    schedule = pipeline_schedule(3, 5, kind, forward=forward, backward=backward)
    check(schedule, forward, backward)
    # The slowest stage does 5 × 7 and can start only when the first micro-batch has come through 1 + 4.
    assert schedule.makespan >= 35 + 5
    assert schedule.idle[2] == schedule.makespan - 35


@given(
    durations=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=6),
    micro_batches=st.integers(1, 8),
    kind=st.sampled_from(KINDS),
)
def test_any_stages_respect_every_dependency(durations, micro_batches, kind):
    forward, backward = (list(map(float, each)) for each in zip(*durations, strict=True))
    schedule = pipeline_schedule(len(durations), micro_batches, kind, forward=forward, backward=backward)
    check(schedule, forward, backward)
    starts = [(item.start, item.stage) for item in schedule.items]
    assert starts == sorted(starts)
    # Every micro-batch goes through all stages, and every stage does all of its work.
    slowest = max(micro_batches * (f + b) for f, b in zip(forward, backward, strict=True))
    assert schedule.makespan >= max(sum(forward) + sum(backward), slowest)


def test_durations_may_be_an_array():
    from_list = pipeline_schedule(2, 4, forward=[1, 2], backward=[3, 0])
    assert pipeline_schedule(2, 4, forward=np.array([1, 2]), backward=np.array([3.0, 0.0])) == from_list


@pytest.mark.parametrize("kind", KINDS)
def test_many_stages_cost_as_much_as_many_micro_batches(kind):
    # A list of all stages for each turn of one of them would be 2**32 items.
    assert len(pipeline_schedule(1 << 16, 1, kind).items) == len(pipeline_schedule(1, 1 << 16, kind).items) == 1 << 17


@pytest.mark.parametrize(("kind", "makespan"), [("gpipe", 17.0), ("1f1b", 15.0)])
def test_unequal_stages_by_hand(kind, makespan):
    # Stage 0: F 1, B 2. Stage 1: F 3, B 1. Three micro-batches.
    # gpipe: stage 0 F at 0 1 2; stage 1 F at 1 4 7, then B2 at 10, B1 at 11, B0 at 12;
    #        stage 0 B2 at 11, B1 at 13, B0 at 15: ends at 17.
    # 1f1b:  stage 0 F0 at 0, F1 at 1; stage 1 F0 at 1, B0 at 4, F1 at 5, B1 at 8, F2 at 9, B2 at 12;
    #        stage 0 B0 at 5, F2 at 7, B1 at 9, B2 at 13: ends at 15.
    schedule = pipeline_schedule(2, 3, kind, forward=[1, 3], backward=[2, 1])
    assert schedule.makespan == makespan


def test_forward_only_is_what_a_pipeline_of_stages_runs():
    schedule = pipeline_schedule(2, 4, forward=3, backward=0)
    assert schedule.makespan == 3 * (4 + 2 - 1)


def test_a_known_schedule():
    items = [tuple(work) for work in pipeline_schedule(2, 2, "1f1b", forward=1, backward=1).items]
    assert items == [
        (0.0, 1.0, 0, 0, "F"),
        (1.0, 1.0, 0, 1, "F"),
        (1.0, 1.0, 1, 0, "F"),
        (2.0, 1.0, 1, 0, "B"),
        (3.0, 1.0, 0, 0, "B"),
        (3.0, 1.0, 1, 1, "F"),
        (4.0, 1.0, 1, 1, "B"),
        (5.0, 1.0, 0, 1, "B"),
    ]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0, 1), {}, zerocost.RangeError, "num_stages: 0 was given"),
        ((1, 0), {}, zerocost.RangeError, "num_microbatches: 0 was given"),
        ((1.0, 1), {}, zerocost.DatatypeError, "num_stages: float 1.0 was given"),
        ((1, True), {}, zerocost.DatatypeError, "num_microbatches: bool True was given"),
        ((1, 1, "zigzag"), {}, zerocost.RangeError, "kind: 'zigzag' was given, 'gpipe' or '1f1b'"),
        ((2, 2, 3), {}, zerocost.DatatypeError, "kind: int was given, 'gpipe' or '1f1b' is needed"),
        ((1, 1, None), {}, zerocost.DatatypeError, "kind: NoneType was given"),
        ((2, 1), {"forward": [1.0]}, zerocost.ShapeError, "forward: 1 durations were given, 2"),
        ((2, 1), {"backward": -1}, zerocost.RangeError, "backward: -1 was given"),
        ((2, 1), {"backward": float("nan")}, zerocost.RangeError, "backward: NaN was given"),
        ((2, 1), {"forward": "long"}, zerocost.DatatypeError, "forward: 'long' was given"),
        ((2, 1), {"forward": 10**400}, zerocost.RangeError, "forward: 1000"),
        ((2, 2), {"forward": 1e308}, zerocost.RangeError, "forward: 1e308 was given, a duration with which the time"),
        ((2, 2), {"backward": [1.0, 1e308]}, zerocost.RangeError, "backward: 1e308 was given"),
        ((1, 10**12), {}, zerocost.RangeError, "num_microbatches: 1 stages × 1000000000000 micro-batches was given"),
        ((4, 2**62), {}, zerocost.RangeError, "a product of at most 2097152 is allowed"),
        ((10**12, 1), {}, zerocost.RangeError, "num_stages: 1000000000000 stages × 1 micro-batches was given"),
        ((2**33, 2**33), {}, zerocost.RangeError, "a product of at most 2097152 is allowed"),
        ((10**30, 1), {}, zerocost.RangeError, "num_stages: 1" + 30 * "0"),
    ],
)
def test_invalid_schedules_are_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        pipeline_schedule(*arguments, **options)


def test_the_command_prints_it(capsys):
    assert main(["schedule", "--num-stages", "4", "--num-microbatches", "8", "--kind", "1f1b"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [["stage", str(stage)] for stage in range(4)]
    assert "F0" in lines[0]
    assert "B7" in lines[0]
    assert "makespan  33" in lines
    assert any("27.3% of the stages' time; 37.5% of the working time" in line for line in lines)
    assert "stage 3   idle 9 of 33, holds at most 1 micro-batches" in lines


def test_the_command_draws_it(tmp_path, capsys):
    file = tmp_path / "gantt.svg"
    assert main(["schedule", "-s", "2", "-m", "3", "--forward", "1,2", "--plot", str(file), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["num_stages"] == 2
    assert len(facts["items"]) == 12
    bars = ET.parse(file).getroot().findall(".//{http://www.w3.org/2000/svg}title")
    assert len(bars) == 12
    assert bars[0].text == "F0, stage 0: 0 to 1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-stages", "0"], "num_stages: 0 was given"),
        (["--num-microbatches", "1000000000000"], "num_microbatches: 4 stages × 1000000000000 micro-batches was given"),
        (["--forward", "1e308"], "forward: 1e308 was given"),
        (["--kind", "zigzag"], "zigzag"),
        (["--forward", "1,x"], "--forward: '1,x' was given"),
        (["--plot", "gantt.png"], "ends in .svg"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, message, capsys):
    assert main(["schedule", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
