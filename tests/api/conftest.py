"""A real server on a free port, and a real client."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.raw_http import FINE, status
from support.servers import MIB, serve_samples, serving
from zerocost import ArtifactRegistry


@pytest.fixture
def serve():
    """``serve(registry, **settings)`` starts a server that lives as long as the test and returns a client for it."""
    with ExitStack() as stack:
        yield lambda registry=None, **settings: stack.enter_context(serving(registry, **settings))


@pytest.fixture
def registry():
    return ArtifactRegistry()


@pytest.fixture(scope="session")
def small():
    """A server that takes 1 MiB, waits a second for what is announced, and as long for a head."""
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
