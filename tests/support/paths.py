"""Where the files are that tests read."""

import os
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
SHARED = Path(os.environ.get("ZEROCOST_SHARED_DATA") or ROOT.parent / "shared" / "data")
"""Traces and expected results that are not part of the repository; tests/README.md lists them."""


def shared_data(name):
    """The path of a file in ``SHARED``. The test is skipped where the file is missing."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} does not exist; ZEROCOST_SHARED_DATA names its folder")
    return path
