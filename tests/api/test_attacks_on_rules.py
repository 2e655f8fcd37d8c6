"""Rules of the protocol, limits and a panic, tried on a server process: status, bounded time and bounded memory."""

import json

import pytest

from support.raw_http import head, status
from support.invalid_requests import INVALID_REQUESTS


def post(server, path, body, **headers):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.send(head(path, content_length=len(text), **headers), text)


@pytest.mark.parametrize("case", INVALID_REQUESTS)
def test_requests_that_break_a_rule(bounded, case):
    answer = post(bounded, "/v2/models/echo/infer", INVALID_REQUESTS[case])
    assert status(answer) == (413 if case == "deep" else 400), answer[:500]


SCALE = "/artifacts/scale/execute"
FAN_OUT = {
    "splits": ("/artifacts/tensor_parallel/execute", {"tensor": [1.0, 2.0], "num_splits": 10**9}, 422),
    "a billion elements from none": (
        "/artifacts/scaled_dot_product_attention/execute",
        {
            name: {"dtype": "FP32", "shape": shape, "data": []}
            for name, shape in (("query", [1 << 20, 0]), ("key", [8, 0]), ("value", [8, 0]))
        },
        None,
    ),
    "outputs": ("/artifacts/huge/execute", {"shape": [10**6, 10**6]}, 413),
    "outputs that are not told": ("/artifacts/huge/execute", {"shape": [1 << 25], "tells": False}, 413),
    "steps": ("/chains/execute", {"pipeline": [{"artifact": "scale"}] * 1000}, 413),
    "each": (
        "/chains/execute",
        {"pipeline": [{"artifact": "picky", "each": "how"}], "initial_input": {"how": ["fine"] * 2000}},
        413,
    ),
    "depth": (SCALE, b"[" * 500_000 + b"]" * 500_000, 413),
    "objects": (SCALE, b'{"a":' * 150_000, 413),
    "empty lists": (SCALE, b'{"attention_matrix": [' + b",".join([b"[]"] * 300_000) + b"]}", None),
    "digits": (SCALE, b'{"factor": ' + b"1" * 900_000 + b', "attention_matrix": [[1]]}', 422),
    "exponents": (SCALE, b'{"factor": 1e999999999, "attention_matrix": [[1]]}', 422),
    "strides": (SCALE, {"attention_matrix": {"dtype": "FP64", "shape": [0, *[1 << 24] * 3], "data": []}}, 413),
    "lists without elements": (
        SCALE,
        {"attention_matrix": {"dtype": "FP64", "shape": [1 << 14, 1 << 14, 0], "data": []}},
        413,
    ),
    "outputs without elements": ("/artifacts/huge/execute", {"shape": [1 << 14, 1 << 14, 0]}, 413),
    "undeclared": (SCALE, {f"{index}": 1 for index in range(80_000)}, 422),
    "violations": ("/artifacts/echo/execute", {"list": ["x"] * 200_000}, 422),
    "a long name": (SCALE, {"k" * 900_000: 1}, 422),
}


@pytest.mark.parametrize("case", FAN_OUT)
def test_little_that_would_become_much(bounded, case):
    path, body, expected = FAN_OUT[case]
    answer = post(bounded, path, body)
    # Where nothing is too much for this server, it must only not cost much.
    assert status(answer) == expected if expected else status(answer) in (200, 413, 422), answer[:500]
    assert len(answer) < 1 << 22


@pytest.fixture
def symbols(small):
    """The first panic reads the symbols for its backtrace, once."""
    post(small, "/artifacts/panics/execute", {})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/artifacts/panics/execute", {}),
        ("/chains/execute", {"pipeline": [{"artifact": "panics"}]}),
        ("/v2/models/panics/infer", {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}),
    ],
)
def test_a_panic(symbols, bounded, path, body):
    for _ in range(5):
        answer = post(bounded, path, body, x_request_id="panic-1")
        assert status(answer) == 500
        assert b"x-request-id: panic-1\r\n" in answer
        assert b"a test asked for it" not in answer
