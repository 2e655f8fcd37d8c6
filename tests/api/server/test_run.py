"""Starting a server."""

import pytest

import zerocost
from zerocost.api.server.run import background_server


def test_a_server_that_cannot_start_raises():
    async def broken(scope, receive, send):
        raise RuntimeError("no lifespan here")

    with pytest.raises(zerocost.ServiceUnavailable), background_server(broken, log_level="critical"):
        pass
