"""Python programs in processes of their own."""

import os
import subprocess
import sys
import textwrap

from support.paths import TESTS


def environment(without=None, **more):
    """This process's environment, where also ``support`` can be imported.

    Args:
        without: variables whose names contain this are left out.
        more: variables to add.
    """
    kept = {name: value for name, value in os.environ.items() if without is None or without not in name}
    path = os.pathsep.join(filter(None, [str(TESTS), kept.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, **more}


def run_python(*arguments, check=True, seconds=60, without=None, variables=None, **options):
    """Runs ``python ARGUMENTS`` and returns the finished process, with its output as text.

    Args:
        arguments: of the interpreter.
        check: the test fails when the exit code is not 0.
        seconds: how long it may take.
        without: environment variables whose names contain this are left out.
        variables: environment variables to add.
        options: further options of ``subprocess.run``.
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment(without, **(variables or {})),
        text=True,
        timeout=seconds,
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )
    assert not check or done.returncode == 0, (done.returncode, (done.stderr or "")[-3000:])
    return done


def run_code(code, *arguments, **options):
    """Runs a program that is given as indented text, as :func:`run_python` does."""
    return run_python("-c", textwrap.dedent(code), *arguments, **options)


MEMORY = """
def refused(error, what, *arguments, **options):
    "The message of the error that the call must raise."
    try:
        what(*arguments, **options)
    except error as raised:
        return str(raised)
    raise AssertionError("not refused")

def limit_memory(megabytes):
    "From here on, this process gets so much more address space. Returns the limits as they were."
    import resource
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), limits[1]))
    return limits

def with_megabytes(count, error, what, *arguments, **options):
    "As refused, with so much address space beside what is in use."
    import resource
    limits = limit_memory(count)
    try:
        return refused(error, what, *arguments, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
"""
"""The beginning of a program that needs little memory to be left."""

JSON_PREAMBLE = f"""
import threading
import numpy as np
from zerocost._kernels import json_spans, read_json, read_tensor, write_json
{MEMORY}
"""


def run_json_code(code):
    """Runs code on the JSON reader and writer that might end the process; it has two threads."""
    run_python("-c", JSON_PREAMBLE + textwrap.dedent(code), variables={"ZEROCOST_NUM_THREADS": "2"})
