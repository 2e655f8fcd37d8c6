"""A real server on a free port, and a real client."""

from contextlib import ExitStack, contextmanager

import httpx2
import pytest

from zerocost import ArtifactRegistry, create_app, default_registry
from zerocost.api.server import background_server
from zerocost.api.settings import Settings


@contextmanager
def serving(registry=None, **settings):
    """A client of a server for ``registry`` (by default the built-in artifacts)."""
    registry = default_registry() if registry is None else registry
    with (
        background_server(create_app(registry, Settings(**settings))) as url,
        httpx2.Client(base_url=url, trust_env=False, timeout=60) as client,
    ):
        yield client


@pytest.fixture
def serve():
    """``serve(registry, **settings)`` starts a server that lives as long as the test and returns a client for it."""
    with ExitStack() as stack:
        yield lambda registry=None, **settings: stack.enter_context(serving(registry, **settings))


@pytest.fixture
def registry():
    return ArtifactRegistry()
