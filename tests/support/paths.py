"""Where things are that tests read."""

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
SHARED = Path(os.environ.get("ZEROCOST_SHARED_DATA") or ROOT.parent / "shared" / "data")
"""Traces and expected results that are no part of the repository: tests that read them skip where it is missing."""
