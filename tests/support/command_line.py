"""What the tests of the command line share: options that add artifacts, a matrix, and a process."""

import numpy as np

from support.processes import run_python

SCALE = ["--artifact", "scale=support.cli_artifacts:Scale"]
SPLIT = ["--artifact", "split=support.cli_artifacts:Split"]
FREE = ["--artifact", "free=support.cli_artifacts:Free"]
FAILS = ["--artifact", "fails=support.cli_artifacts:Fails"]
PIPELINE = [{"artifact": "scale", "id": "double"}, {"artifact": "split", "params": {"axis": 0}}]
MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3)


def subprocess_of(*arguments, **options):
    return run_python("-m", "zerocost", *arguments, check=False, **options)
