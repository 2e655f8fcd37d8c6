"""Pipeline schedules as data, for planning: who works on what, and when; what idles, and what must be held.

GPipe: Huang et al. 2019, arXiv:1811.06965. 1F1B: Narayanan et al. 2021, arXiv:2104.04473.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zerocost import _kernels
from zerocost.artifacts.parallel.options import one_of
from zerocost.errors import DatatypeError, ShapeError

__all__ = ["KINDS", "PipelineSchedule", "Work", "pipeline_schedule"]

KINDS = ("gpipe", "1f1b")


class Work(NamedTuple):
    """One pass of one micro-batch through one stage; ``direction`` is ``"F"`` or ``"B"``."""

    start: float
    duration: float
    stage: int
    micro_batch: int
    direction: str


@dataclass(frozen=True)
class PipelineSchedule:
    """A schedule, counted. Times have the unit of the durations that it was made from.

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
    items: tuple[Work, ...]
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
    forward: float | Sequence[float] = 1.0,
    backward: float | Sequence[float] = 2.0,
) -> PipelineSchedule:
    """The schedule of a training step. A pure function: nothing is run.

    Args:
        num_stages: S, at least 1.
        num_microbatches: M, at least 1; S · M is at most 2**21, as each pass is an item of the result.
        kind: ``"gpipe"`` (all forward passes, then all backward passes) or ``"1f1b"`` (one of each in turn).
        forward: how long a forward pass of one micro-batch takes: one number, or one for each stage, at least 0.
        backward: the same for the backward pass; 0 for a pipeline that only runs forward.

    Raises:
        DatatypeError: a count that is no integer, a kind that is no text, a duration that is no number.
        RangeError: a count below 1, counts that are too large, an unknown kind, a duration that is negative or not
            finite, or so long that the sum of all is not finite.
        ShapeError: durations of another number than there are stages.
    """
    one_of(kind, KINDS, "schedule")
    _kernels.schedule_passes(num_stages, num_microbatches)
    stages = int(num_stages)
    rows, makespan, idle, peak = _kernels.schedule(
        kind, num_microbatches, _durations(forward, stages, "forward"), _durations(backward, stages, "backward")
    )
    items = tuple(Work(*row) for row in rows)
    return PipelineSchedule(kind, stages, int(num_microbatches), items, makespan, tuple(idle), tuple(peak))


def _durations(given: float | Sequence[float], stages: int, argument: str) -> list[float]:
    try:
        if not isinstance(given, Sequence) or isinstance(given, str):
            return [float(given)] * stages
        durations = [float(duration) for duration in given]
    except (TypeError, ValueError, OverflowError):
        raise DatatypeError(
            f"{argument}: {given!r} was given, a number or one for each stage is needed", argument
        ) from None
    if len(durations) != stages:
        raise ShapeError(
            f"{argument}: {len(durations)} durations were given, {stages} (num_stages) are needed", argument
        )
    return durations
