"""Pipeline schedules as data, for planning: when each stage works on what, how long it idles, how much it holds.

- GPipe (Huang et al. 2019, arXiv:1811.06965): every stage runs all forward passes, then all backward passes, the last
  micro-batch first.
- 1F1B (PipeDream-Flush; Narayanan et al. 2021, arXiv:2104.04473): stage s of S runs S - 1 - s forward passes ahead,
  then one forward and one backward pass in turn, then the backward passes that are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from math import isfinite, isnan
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from zerocost import _kernels
from zerocost.artifacts.options import check_choice
from zerocost.errors import RangeError, ShapeError

__all__ = ["KINDS", "MOST_PASSES", "Pass", "PipelineSchedule", "pipeline_schedule"]

KINDS = ("gpipe", "1f1b")
# Forward and backward together. It bounds the memory of the result, whatever numbers a caller gives.
MOST_PASSES = 1 << 22


class Pass(NamedTuple):
    """One pass of one micro-batch through one stage; ``direction`` is ``"F"`` or ``"B"``."""

    start: float
    duration: float
    stage: int
    micro_batch: int
    direction: str


@dataclass(frozen=True)
class PipelineSchedule:
    """A schedule and its figures. Times have the unit of the given durations.

    Attributes:
        kind: ``"gpipe"`` or ``"1f1b"``.
        num_stages: S.
        num_microbatches: M.
        items: every pass, by start, then by stage.
        makespan: when the last pass ends.
        idle: for each stage the makespan minus its own work. With equal stages it is (S - 1)(F + B).
        peak: for each stage the largest number of micro-batches that it holds at one time: M under GPipe, min(M, S - s)
            at stage s under 1F1B.
    """

    kind: str
    num_stages: int
    num_microbatches: int
    items: tuple[Pass, ...]
    makespan: float
    idle: tuple[float, ...]
    peak: tuple[int, ...]

    @property
    def bubble_fraction(self) -> float:
        """The share of all stages' time in which they idle. With equal stages it is (S - 1)/(M + S - 1).

        Megatron-LM's (S - 1)/M is the ratio to the ideal time instead; see :attr:`bubble_to_ideal`.
        """
        whole = self.makespan * self.num_stages
        return sum(self.idle) / whole if whole else 0.0

    @property
    def bubble_to_ideal(self) -> float:
        """The idle time over the time that is worked. With equal stages it is (S - 1)/M, as Megatron-LM counts."""
        worked = self.makespan * self.num_stages - sum(self.idle)
        return sum(self.idle) / worked if worked else 0.0


def pipeline_schedule(
    num_stages: int,
    num_microbatches: int,
    kind: str = "gpipe",
    *,
    forward: float | Iterable[float] = 1.0,
    backward: float | Iterable[float] = 2.0,
) -> PipelineSchedule:
    """The schedule of a training step. A pure function: nothing is run.

    Args:
        num_stages: S, at least 1.
        num_microbatches: M, at least 1; S · M is at most 2**21, as each pass is an item of the result.
        kind: ``"gpipe"`` (all forward passes, then all backward passes) or ``"1f1b"`` (one of each in turn).
        forward: how long a forward pass of one micro-batch takes: one number, or one for each stage, at least 0.
        backward: the same for the backward pass; 0 for a pipeline that only runs forward.

    Raises:
        DatatypeError: a count that is not an integer, a kind that is not text, a duration that is not a number.
        RangeError: a count below 1, counts that are too large, an unknown kind, a duration that is negative or not
            finite, or so long that the sum of all is not finite.
        ShapeError: durations of another number than there are stages.
    """
    check_choice(kind, KINDS, "kind")
    stages = _kernels.positive(num_stages, "num_stages")
    micro_batches = _kernels.positive(num_microbatches, "num_microbatches")
    if 2 * stages * micro_batches > MOST_PASSES:
        argument = "num_stages" if stages > micro_batches else "num_microbatches"
        given = f"{stages} stages × {micro_batches} micro-batches was given"
        raise RangeError(f"{argument}: {given}, a product of at most {MOST_PASSES // 2} is allowed", argument)
    durations = {"F": _durations(forward, stages, "forward"), "B": _durations(backward, stages, "backward")}
    _check_sum(durations["F"], durations["B"], micro_batches)

    last = stages - 1
    # When each pass ended, and each stage is free; what each stage has worked, holds, and has held at most.
    ends = {"F": [0.0] * (stages * micro_batches), "B": [0.0] * (stages * micro_batches)}
    free, worked = [0.0] * stages, [0.0] * stages
    alive, peak = [0] * stages, [0] * stages
    items = []
    for direction, stage, micro_batch in (_gpipe if kind == "gpipe" else _one_f_one_b)(stages, micro_batches):
        at = stage * micro_batches + micro_batch
        if direction == "F":
            ready = ends["F"][at - micro_batches] if stage else 0.0
            alive[stage] += 1
            peak[stage] = max(peak[stage], alive[stage])
        else:
            ready = ends["B"][at + micro_batches] if stage < last else ends["F"][at]
            alive[stage] -= 1
        start, duration = max(ready, free[stage]), durations[direction][stage]
        ends[direction][at] = free[stage] = start + duration
        worked[stage] += duration
        items.append(Pass(start, duration, stage, micro_batch, direction))
    items.sort(key=attrgetter("start", "stage"))
    makespan = max(free)
    idle = tuple(makespan - time for time in worked)
    return PipelineSchedule(kind, stages, micro_batches, tuple(items), makespan, idle, tuple(peak))


def _gpipe(stages: int, micro_batches: int) -> Iterator[tuple[str, int, int]]:
    """Direction, stage and micro-batch of every pass: those of a stage in its order, none before one that it needs."""
    for micro_batch in range(micro_batches):
        for stage in range(stages):
            yield "F", stage, micro_batch
    for micro_batch in reversed(range(micro_batches)):
        for stage in reversed(range(stages)):
            yield "B", stage, micro_batch


def _one_f_one_b(stages: int, micro_batches: int) -> Iterator[tuple[str, int, int]]:
    """As :func:`_gpipe`. Before stage s runs forward pass m it has run backward pass m - (S - s)."""
    for turn in range(micro_batches + stages):
        # Those that have a pass in this turn: forward all while there are micro-batches, backward a part of them.
        first = 0 if turn < micro_batches else max(0, stages - turn)
        end = stages if turn < micro_batches else min(stages, stages - turn + micro_batches)
        for stage in range(first, end):
            if 0 <= turn - (stages - stage) < micro_batches:
                yield "B", stage, turn - (stages - stage)
            if turn < micro_batches:
                yield "F", stage, turn


def _durations(given: float | Iterable[float], stages: int, argument: str) -> list[float]:
    # What has no order, or is not a collection of numbers, is not a number either.
    is_one = isinstance(given, str | bytes | Mapping | Set) or (isinstance(given, np.ndarray) and given.ndim == 0)
    if is_one or not isinstance(given, Iterable):
        return [_kernels.number(given, argument)] * stages
    durations = [_kernels.number(duration, argument) for duration in given]
    if len(durations) != stages:
        raise ShapeError(
            f"{argument}: {len(durations)} durations were given, {stages} (num_stages) are needed", argument
        )
    return durations


def _check_sum(forward: list[float], backward: list[float], micro_batches: int) -> None:
    passes = 2 * len(forward) * micro_batches
    whole = 0.0
    for argument, durations in (("forward", forward), ("backward", backward)):
        for duration in durations:
            if not (isfinite(duration) and duration >= 0):
                allowed = "a finite number of at least 0 is allowed"
                raise RangeError(f"{argument}: {_text(duration)} was given, {allowed}", argument)
        # No makespan is longer than all work one after another, no idle time of all stages longer than that of each;
        # the number of passes more than covers both, and rounding.
        whole += sum(durations) * passes
        if not isfinite(whole):
            allowed = "a duration with which the time of all passes is finite is allowed"
            raise RangeError(f"{argument}: {_text(max(durations))} was given, {allowed}", argument)


def _text(duration: float) -> str:
    return "NaN" if isnan(duration) else f"{duration:g}".replace("e+", "e")
