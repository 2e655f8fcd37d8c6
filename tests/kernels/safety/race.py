"""A program: calls the kernels of one case again and again while another thread writes to their arrays.

python -m kernels.safety.race CASE SECONDS [SCENE]

It ends with 0 if nothing was read or written outside of the arrays, nothing but allowed errors was raised, and calls
that nobody disturbs give the same bits afterwards as before. The level is what ``ZEROCOST_CPU`` says.
"""

import contextlib
import faulthandler
import itertools
import sys
import threading
import time

import numpy as np

from kernels.safety import guarded
from kernels.safety.maker import FLOATS, Maker
from kernels.safety.scenes import CASES, DTYPES
from zerocost import _kernels

SLICE = 0.04
FEWEST_CALLS = 3
MOST = 10
"""Times the seconds that were asked for: where each option once takes longer, the machine has something else to do."""


class Writer(threading.Thread):
    """Between :meth:`begin` and :meth:`end` it writes a scene's contents to its arrays, one after the other."""

    def __init__(self):
        super().__init__(daemon=True)
        self.writes = 0
        self._scene = None
        self._asked, self._begun, self._ended = threading.Event(), threading.Event(), threading.Event()

    def run(self):
        turn = 0
        while True:
            self._asked.wait()
            self._begun.set()
            while self._asked.is_set():
                turn += 1
                for index, (array, contents) in enumerate(self._scene.racing):
                    np.copyto(array, contents[(turn + index) % len(contents)])
                    self.writes += 1
            self._ended.set()

    def begin(self, scene):
        self._scene = scene
        self._begun.clear()
        self._ended.clear()
        self._asked.set()
        self._begun.wait()

    def end(self):
        self._asked.clear()
        self._ended.wait()


def bits(result):
    return result.tobytes() if isinstance(result, np.ndarray) else repr(result)


def quiet(scene):
    scene.calm()
    result = scene.call()
    scene.check(result)
    return bits(result)


def play(scene, writer, seconds):
    before = quiet(scene)
    writer.begin(scene)
    calls, end = 0, time.monotonic() + seconds
    while calls < FEWEST_CALLS or time.monotonic() < end:
        with contextlib.suppress(scene.allowed):
            scene.check(scene.call())
        calls += 1
    writer.end()
    assert quiet(scene) == before, "a quiet call gives another result than before"
    guarded.check_slack()
    return calls


def main(case, seconds, only=None):
    faulthandler.enable()
    sys.setswitchinterval(1e-4)
    writer = Writer()
    writer.start()
    ways = list(itertools.product(DTYPES.get(case, FLOATS), (1, 2), ("end", "start")))
    options = [option for option in CASES[case].items() if only in (None, option[0])]
    begin, played, calls = time.monotonic(), 0, 0
    # In each round every option once, each with another dtype, number of threads and side than in the round before.
    for number in range(len(ways)):
        for index, (name, make) in enumerate(options):
            if time.monotonic() > begin + MOST * seconds:
                break
            dtype, threads, flush = ways[(5 * index + 3 * number) % len(ways)]
            print(f"{case}: {name}, {dtype}, {threads} threads, {flush}", file=sys.stderr, flush=True)
            _kernels.set_num_threads(threads)
            rng = np.random.default_rng(number)
            with np.errstate(all="ignore"):
                scene = make(Maker(dtype, flush, rng))
                calls += play(scene, writer, max(SLICE, seconds / len(ways) / len(options)))
            played += 1
        if time.monotonic() > begin + seconds:
            break
    total = len(ways) * len(options)
    assert writer.writes > 100, "hardly anything was written while calls ran"
    print(f"{case} at {_kernels.cpu_level()}: {played} of {total} scenes, {calls} calls, {writer.writes} writes")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), *sys.argv[3:])
