"""Headers of requests."""

import pytest

from support.raw_http import BODY, head, status


@pytest.mark.parametrize(
    "name", ["content-type", "content-encoding", "accept", "host", "authorization", "request-timeout", "origin"]
)
def test_headers_that_come_twice(bounded, name):
    value = {"host": "localhost", "content-type": "application/json", "content-encoding": "gzip"}.get(name, "1")
    twice = {name.replace("-", "_"): [value, value], "content_length": len(BODY)}
    answer = bounded.send(head(**twice), BODY)
    # A server without a token never looks for one.
    assert status(answer) == (200 if name == "authorization" else 400), answer[:300]
