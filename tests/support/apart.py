"""Code that may end a process, in one of its own."""

import os
import subprocess
import sys
import textwrap

PREAMBLE = """
import threading
import numpy as np
from zerocost._kernels import json_spans, read_json, read_tensor, write_json

def refused(error, what, *arguments, **options):
    try:
        what(*arguments, **options)
    except error as raised:
        return str(raised)
    raise AssertionError("not refused")

def with_megabytes(count, error, what, *arguments, **options):
    # As refused, with so much address space beside what is in use.
    import resource
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (count << 20), limits[1]))
    try:
        return refused(error, what, *arguments, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
"""


def in_a_process(code):
    """Runs ``code`` in a process of its own."""
    code = PREAMBLE + textwrap.dedent(code)
    environment = {**os.environ, "ZEROCOST_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
