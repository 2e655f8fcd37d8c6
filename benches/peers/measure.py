"""How two ways of doing the same work are compared.

A claim is a ratio: ours and the peer's take turns (A B A B …) in one process after a warm-up, medians of at least
seven, results compared before the times are. Beside the ratio stands the distance to what the machine can do, measured
in the same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

ROUNDS = 9


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        work: what is done, with shape and dtype.
        ours: seconds, or what ``unit`` says.
        peer: the name of the peer.
        theirs: the same; None where the peer is not installed, or where there is none to name (``peer`` is empty).
        limit: what the machine could do, in words.
        share: how much of the limit ours reaches, 0 to 1; None where there is none.
        notes: what else was measured, ours before theirs.
        unit: ``"s"`` or ``"B"``.
    """

    work: str
    ours: float
    peer: str
    theirs: float | None
    limit: str = ""
    share: float | None = None
    notes: str = ""
    unit: str = "s"

    @property
    def ratio(self) -> float | None:
        """How many times faster, or smaller, ours is."""
        return None if self.theirs is None else self.theirs / self.ours

    def to_dict(self) -> dict[str, object]:
        """The row as JSON."""
        return {**asdict(self), "ratio": self.ratio}


def in_turn(
    calls: Sequence[Callable[[], object]], *, rounds: int = ROUNDS, warmup: int = 2, least: float = 0.002
) -> list[float]:
    """The median seconds of each call, measured in turn. Short calls are repeated until a round takes ``least``."""
    repeats = []
    for call in calls:
        for _ in range(warmup):
            call()
        start = time.perf_counter()
        call()
        repeats.append(max(1, round(least / max(time.perf_counter() - start, 1e-9))))
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for index, (call, repeat) in enumerate(zip(calls, repeats, strict=True)):
            start = time.perf_counter()
            for _ in range(repeat):
                call()
            times[index].append((time.perf_counter() - start) / repeat)
    return [statistics.median(series) for series in times]


def copy_limit(nbytes: int, threads: int) -> Callable[[], object]:
    """A warm threaded copy of ``nbytes``: what moving the same bytes once costs on this machine."""
    from concurrent.futures import ThreadPoolExecutor

    source = np.random.default_rng(0).integers(0, 255, nbytes, dtype=np.uint8)
    target = np.empty_like(source)
    if threads == 1:
        return lambda: np.copyto(target, source)
    pool = ThreadPoolExecutor(threads)
    cuts = [slice(index * nbytes // threads, (index + 1) * nbytes // threads) for index in range(threads)]
    return lambda: list(pool.map(lambda cut: np.copyto(target[cut], source[cut]), cuts))
