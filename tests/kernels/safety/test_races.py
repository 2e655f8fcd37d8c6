"""Another thread writes to the arrays that a kernel reads: the numbers may be any, everything else stays intact.

Each case and CPU level is a process of its own (``race.py``), since what goes wrong there ends a process.
``ZEROCOST_RACE_SECONDS`` says how long each of them runs (make soak: longer).
"""

import os
import signal

import pytest

from kernels.safety.scenes import CASES, LEVELLESS
from support.processes import run_python
from zerocost import _kernels

SECONDS = float(os.environ.get("ZEROCOST_RACE_SECONDS", "0.7"))
LEVELS = _kernels.cpu_levels()
RUNS = [(case, level) for case in CASES for level in (LEVELS[-1:] if case in LEVELLESS else LEVELS)]


@pytest.mark.timeout(60 + 10 * SECONDS)
@pytest.mark.parametrize(("case", "level"), RUNS)
def test_another_thread_writes_during_a_call(case, level):
    finished = run_python(
        *("-W", "ignore", "-m", "kernels.safety.race", case, SECONDS),
        check=False,
        seconds=40 + 10 * SECONDS,
        variables={"ZEROCOST_CPU": level},
    )
    if finished.returncode != 0:
        ended = signal.Signals(-finished.returncode).name if finished.returncode < 0 else finished.returncode
        *_, scene = [line for line in finished.stderr.splitlines() if line.startswith(f"{case}: ")] or ["no scene"]
        last = "\n".join(finished.stderr.splitlines()[-12:])
        pytest.fail(f"{ended} in {scene} at {level}\n{last}")
    print(finished.stdout, end="")
