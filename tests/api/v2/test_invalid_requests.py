"""Requests that break a rule of the Open Inference Protocol, sent to a server process."""

import json

import pytest

from support.invalid_requests import INVALID_REQUESTS
from support.raw_http import raw_post, status


@pytest.mark.parametrize("case", INVALID_REQUESTS)
def test_requests_that_break_a_rule(bounded, case):
    answer = raw_post(bounded, "/v2/models/echo/infer", INVALID_REQUESTS[case])
    assert status(answer) == (413 if case == "deep" else 400), answer[:500]
    assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) == {"error"}
