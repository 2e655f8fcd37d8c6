"""Fixtures for the tests of the server: clients, a bounded server process, the log."""

import io
import json
import logging
import time
from pathlib import Path

import pytest

from support.raw_http import FINE, status
from support.samples import sample_registry
from support.servers import MIB, serve_samples, serving
from zerocost import ArtifactRegistry
from zerocost.api.server.logs import configure_logs


@pytest.fixture(scope="module")
def client():
    """A client of a server for the sample artifacts."""
    with serving(sample_registry()) as client:
        yield client


@pytest.fixture
def registry():
    return ArtifactRegistry()


@pytest.fixture(scope="session")
def small():
    """A server process that takes bodies of 1 MiB, and waits a second for a head and for a body."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("reads memory from Linux's /proc")
    with serve_samples(head_seconds=1.0, max_body=MIB, request_timeout=1.0) as server:
        assert status(server.send(FINE)) == 200
        yield server


@pytest.fixture
def bounded(small):
    """The server of :func:`small`; afterwards it answers, has never held much more than before, and nothing hung."""
    small.forget_peak()
    before, started = small.memory, time.monotonic()
    yield small
    assert status(small.send(FINE)) == 200
    assert small.peak - before < 32 * MIB
    assert time.monotonic() - started < 30


@pytest.fixture
def lines():
    """The log as JSON lines, read so far."""
    root, levels = logging.getLogger(), {}
    before = root.handlers, root.level
    for name in ("zerocost", "uvicorn"):
        levels[name] = logging.getLogger(name).level
    stream = io.StringIO()
    configure_logs("json", "info")
    root.handlers[0].setStream(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers, root.level = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(False)
