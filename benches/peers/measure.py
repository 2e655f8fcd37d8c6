"""How two ways of doing the same work are compared.

A claim is a ratio: ours and the peer's take turns (A B A B …) in one process after a warm-up, medians of at least
seven, results compared before the times are. Beside the ratio stands the distance to what the machine can do, measured
in the same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

ROUNDS = 9
PAUSE = 0.02
"""Seconds before every turn: the idle threads of many libraries spin after a call, on the cores of whoever is next."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        work: what is done, with shape and dtype.
        ours: seconds, or what ``unit`` says.
        peer: the name of the peer.
        theirs: the same; None where the peer has no time (``missing`` says why), or where there is none to name
            (``peer`` is empty).
        limit: what the machine could do, in words.
        share: how much of the limit ours reaches, 0 to 1; None where there is none.
        notes: what else was measured, ours before theirs.
        unit: ``"s"`` or ``"B"``.
        missing: why a peer that is named has no time.
    """

    work: str
    ours: float
    peer: str
    theirs: float | None
    limit: str = ""
    share: float | None = None
    notes: str = ""
    unit: str = "s"
    missing: str = "not installed"

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
            time.sleep(PAUSE)
            start = time.perf_counter()
            for _ in range(repeat):
                call()
            times[index].append((time.perf_counter() - start) / repeat)
    return [statistics.median(series) for series in times]


@dataclass(frozen=True)
class Peer:
    """Another way of doing the same work.

    Attributes:
        name: what the table calls it.
        make: imports what is needed and gives the call. An ImportError means "not installed".
        array: turns what the call returns into a NumPy array.
    """

    name: str
    make: Callable[[], Callable[[], Any]]
    array: Callable[[Any], np.ndarray] = np.asarray


def compare(
    work: str,
    ours: Callable[[], Any],
    peers: Sequence[Peer],
    same: Callable[[Any, np.ndarray], bool],
    *,
    limit: Callable[[], object] | float | None = None,
    limit_name: str = "",
    rounds: int = ROUNDS,
    warmup: int = 2,
) -> list[Row]:
    """One row for each peer, each measured in turn with ours after its result was found to be the ``same``.

    ``limit`` is what the machine could do: a call that is measured along, or seconds. A peer at a time: the idle
    threads of many libraries spin for a while after a call, on the cores of whoever comes next, and long turns leave
    that behind. A peer that is not installed or that cannot do the work is named.
    """
    found = []
    for peer in peers:
        calls = [ours, *([limit] if callable(limit) else [])]
        missing = ""
        try:
            theirs = peer.make()
            result = peer.array(theirs())
        except ImportError:
            missing = "not installed"
        except Exception as error:  # whatever another library says
            missing = f"cannot: {type(error).__name__}: {error}".splitlines()[0][:80]
        else:
            if not same(ours(), result):
                raise AssertionError(f"{work}: {peer.name} has another result")
            calls.append(theirs)
        times = in_turn(calls, rounds=rounds, warmup=warmup, least=0.05)
        least = times[1] if callable(limit) else limit
        share = None if least is None else least / times[0]
        words = "" if least is None else f"{least * 1e3:.3g} ms, {limit_name}"
        found.append(Row(work, times[0], peer.name, None if missing else times[-1], words, share, missing=missing))
    return found


def copy_limit(nbytes: int, threads: int) -> Callable[[], object]:
    """A warm threaded copy of ``nbytes``: what moving the same bytes once costs on this machine."""
    source = np.random.default_rng(0).integers(0, 255, nbytes, dtype=np.uint8)
    target = np.empty_like(source)
    return _threaded(lambda cut: np.copyto(target[cut], source[cut]), nbytes, threads)


def fill_limit(nbytes: int, threads: int) -> Callable[[], object]:
    """A warm threaded fill of ``nbytes``: what writing an output costs on this machine."""
    target = np.empty(nbytes, np.uint8)
    return _threaded(lambda cut: target[cut].fill(0), nbytes, threads)


def _threaded(work: Callable[[slice], object], nbytes: int, threads: int) -> Callable[[], object]:
    if threads == 1:
        return lambda: work(slice(nbytes))
    pool = ThreadPoolExecutor(threads)
    cuts = [slice(index * nbytes // threads, (index + 1) * nbytes // threads) for index in range(threads)]
    return lambda: list(pool.map(work, cuts))
