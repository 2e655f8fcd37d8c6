"""Requests that break a rule of the Open Inference Protocol, and malformed ones."""

import asyncio
import json

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from support.invalid_requests import INVALID_REQUESTS
from support.malformed import (
    LIMITS,
    MIB,
    arrays,
    bounded_memory,
    damaged,
    mutated,
    or_refused,
    request_of,
    some,
    text_of,
)
from support.raw_http import raw_post, status
from support.samples import echo_registry
from zerocost.api.v2.body import InferenceRequest
from zerocost.api.v2.values import inputs_of, write_outputs
from zerocost.api.wire.body import BodyStream
from zerocost.core.datatypes import DATATYPES, dtype_of


@pytest.mark.parametrize("case", INVALID_REQUESTS)
def test_requests_that_break_a_rule(bounded, case):
    answer = raw_post(bounded, "/v2/models/echo/infer", INVALID_REQUESTS[case])
    assert status(answer) == (413 if case == "deep" else 400), answer[:500]
    assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) == {"error"}


# Malformed requests

PORTS = echo_registry().get_artifact("echo").ports


@st.composite
def requests(draw):
    """An Open Inference request and its binary data, whole or changed."""
    inputs, blocks = [], []
    for index, array in enumerate(draw(st.lists(arrays() | st.just(None), min_size=1, max_size=3))):
        datatype = "BYTES" if array is None else next(name for name in DATATYPES if dtype_of(name) == array.dtype)
        entry = {"name": f"x_{datatype}", "datatype": datatype, "shape": [2] if array is None else list(array.shape)}
        block = b"\1\0\0\0a\0\0\0\0" if array is None else array.tobytes()
        if index % 2:
            inputs.append({**entry, "parameters": {"binary_data_size": len(block)}})
            blocks.append(block)
        elif array is None:
            inputs.append({**entry, "data": ["a", ""]})
        else:
            with np.errstate(invalid="ignore"):  # signaling NaNs
                finite = np.nan_to_num(array.astype(float), posinf=0, neginf=0) if array.dtype.kind in "fV" else array
            inputs.append({**entry, "data": finite.ravel().tolist()})
    request = {
        "id": "1",
        "inputs": inputs,
        "parameters": {"number": 1.5, "timeout": 1000, "binary_data_output": True},
        "outputs": [{"name": inputs[0]["name"], "parameters": {"binary_data": False}}],
    }
    request = request if draw(st.booleans()) else mutated(draw, request)
    text = text_of(draw, request)
    data = b"".join(blocks)
    if draw(st.integers(0, 3)) == 0:
        text, data = damaged(draw, text), damaged(draw, data)
    return text, data


async def inferred(text, data, step):
    request = InferenceRequest.from_json(text, PORTS, LIMITS)
    # The route checks this before it reads on.
    assume(request.binary_size <= MIB)
    await request.read_binary(BodyStream(request_of(data, step), LIMITS))
    request.decode_bytes()
    return request, write_outputs(inputs_of(request, PORTS), request, "echo", "1")


@some
@given(requests(), st.integers(1, 100))
@example((b'{"inputs": [{"name": "x_FP32", "datatype": [], "shape": [1], "data": [1]}]}', b""), 1)
@example((b'{"inputs": [{"name": "list", "datatype": "BYTES", "shape": [1], "data": ["%s"]}]}' % (b"[" * 200), b""), 1)
def test_malformed_open_inference_requests(request, step):
    with bounded_memory():
        answered = or_refused(lambda: asyncio.run(inferred(*request, step)))
        if answered is None:
            return
        parsed, (head, blocks) = answered
        answer = json.loads(head)
        assert answer["id"] == parsed.id if "id" in answer else parsed.id is None
        announced = [output.get("parameters", {}).get("binary_data_size", 0) for output in answer["outputs"]]
        assert sum(announced) == sum(map(len, blocks))


@some
@given(st.binary(max_size=40), st.lists(st.integers(0, 3), max_size=3), st.integers(1, 50))
def test_malformed_bytes_elements(data, shape, step):
    text = json.dumps(
        {
            "inputs": [
                {"name": "x_BYTES", "datatype": "BYTES", "shape": shape, "parameters": {"binary_data_size": len(data)}}
            ]
        }
    ).encode()
    answered = or_refused(lambda: asyncio.run(inferred(text, data, step)))
    if answered is not None:
        assert json.loads(answered[1][0])["outputs"][0]["shape"] == shape
