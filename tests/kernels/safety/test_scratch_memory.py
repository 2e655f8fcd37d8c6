"""Scratch memory of a kernel that is not available: an error, and the process keeps working.

Each case is a process of its own (``scratch_memory.py``) whose address space is bounded.
"""

import sys

import pytest

from kernels.safety.scratch_memory import CASES
from support.processes import run_python


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is bounded and read as Linux does it")
@pytest.mark.parametrize("case", CASES)
def test_scratch_memory_that_is_not_available(case):
    finished = run_python("-W", "ignore", "-m", "kernels.safety.scratch_memory", case, check=False, seconds=100)
    assert finished.returncode == 0, "\n".join(finished.stderr.splitlines()[-12:])
