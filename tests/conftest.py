"""What holds for the whole suite."""

import signal
from contextlib import ExitStack

import pytest
from hypothesis import settings

from support.redis import RedisServer
from support.servers import serving

# A shell starts what runs in the background with SIGINT ignored, and child processes inherit that: those that tests
# interrupt would never end.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Each example of Hypothesis has 200 ms by default, which a busy machine does not keep. Tests have a timeout.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


@pytest.fixture
def serve():
    """``serve(registry, **settings)`` starts a server that lives as long as the test and returns a client for it."""
    with ExitStack() as stack:
        yield lambda registry=None, **settings: stack.enter_context(serving(registry, **settings))


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """A Redis server for the tests of one file, which may kill it and start it again."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()
