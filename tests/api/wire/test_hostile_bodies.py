"""Bodies that are made to be expensive or to overflow something: no 5xx, and little work."""

import asyncio
import json
import tracemalloc

import pytest

from support.safetensors import message
from support.samples import echo_registry
from support.servers import serving
from zerocost.api.settings import Settings
from zerocost.api.wire.body import BodyReader, BodyStream
from zerocost.api.wire.request import Request

LONG = [0, 1 << 24, 1 << 24, 1 << 24]
"""No elements, and strides that no array can have."""


@pytest.fixture(scope="module")
def server():
    with serving(echo_registry()) as client:
        yield client


def send_safetensors(server, body, path="/artifacts/scale/execute"):
    return server.post(path, content=body, headers={"content-type": "application/vnd.safetensors"})


def infer(server, request, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.post("/v2/models/echo/infer", json=request, headers=headers)


def tensor(datatype="FP64", **more):
    return {"name": f"x_{datatype}", "datatype": datatype, "shape": [1], **more}


@pytest.mark.parametrize("datatype", ["FP64", "FP16", "BOOL", "BYTES"])
@pytest.mark.parametrize(
    "shape", [LONG, [*LONG[1:], 0], [0, *[2] * 20], [0, *[1 << 20] * 31]], ids=["front", "end", "fits", "32 axes"]
)
def test_empty_shapes_that_no_array_can_have(server, datatype, shape):
    expected = 200 if shape == [0, *[2] * 20] else 413
    assert infer(server, {"inputs": [tensor(datatype, shape=shape, data=[])]}).status_code == expected
    text = json.dumps({"inputs": [tensor(datatype, shape=shape, parameters={"binary_data_size": 0})]})
    headers = {"inference-header-content-length": str(len(text))}
    assert server.post("/v2/models/echo/infer", content=text, headers=headers).status_code == expected


def test_the_same_on_the_native_routes(server):
    typed = {"dtype": "FP64", "shape": LONG, "data": []}
    body = {"attention_matrix": typed}
    assert server.post("/artifacts/scale/execute", json=body).status_code == 413
    chain = {"pipeline": [{"artifact": "scale"}], "initial_input": body}
    assert server.post("/chains/execute", json=chain).status_code == 413
    entry = {"dtype": "F64", "shape": LONG, "data_offsets": [0, 0]}
    assert send_safetensors(server, message({"attention_matrix": entry})).status_code == 413


@pytest.mark.parametrize("name", ["timeout", "priority"])
@pytest.mark.parametrize("value", [10**400, 2**70, 2**64], ids=["10^400", "2^70", "2^64"])
def test_numbers_beyond_64_bits(server, name, value):
    request = {"inputs": [tensor(data=[1])], "parameters": {name: value}}
    assert infer(server, request).status_code == 400
    request["parameters"][name] = 2**64 - 1
    assert infer(server, request).status_code == 200


@pytest.mark.parametrize("value", [10**400, -(10**4000), 2**64], ids=["10^400", "-10^4000", "2^64"])
def test_sizes_beyond_64_bits(server, value):
    for wrong in (
        tensor(shape=[value], data=[]),
        tensor(shape=[value] * 32, data=[]),
        tensor(shape=[0, value], data=[]),
        tensor(parameters={"binary_data_size": value}),
        tensor("BYTES", parameters={"binary_data_size": value}),
    ):
        assert infer(server, {"inputs": [wrong]}).status_code == 400
    # A value that is too large is beyond a limit; a negative one, or one outside of the data, is wrong.
    beyond = 413 if value > 0 else 422
    for entry, expected in (
        ({"shape": [value], "data_offsets": [0, 8]}, beyond),
        ({"shape": [1], "data_offsets": [value, value + 8]}, 422),
        ({"shape": [0, value], "data_offsets": [0, 0]}, beyond),
    ):
        body = message({"attention_matrix": {"dtype": "F64", **entry}})
        assert send_safetensors(server, body).status_code == expected, entry
    echoed = server.post("/artifacts/echo/execute", json={"number": value, "integer": value})
    assert echoed.status_code == 200
    assert echoed.json()["data"] == {"number": value, "integer": value}
    pieces = {"tensor": [1.0], "num_splits": value}
    assert server.post("/artifacts/pieces/execute", json=pieces).status_code == beyond


def test_many_requested_outputs(server):
    outputs = [{"name": f"x_FP64.{index}"} for index in range(40_000)]
    answer = infer(server, {"inputs": [tensor(data=[1])], "outputs": outputs}, request_timeout="20")
    assert answer.status_code == 413
    assert len(answer.content) < 1000


ENTRY = {"dtype": "F64", "shape": [1, 1], "data_offsets": [0, 8]}
ENTRY_TEXT = json.dumps(ENTRY).encode()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b'{"attention_matrix": %s%s}' % (ENTRY_TEXT, b" " * (1 << 20)), 200),
        (b'{"attention_matrix": %s%s}' % (ENTRY_TEXT, b" " * (3 << 20)), 413),
        (b'{"attention_matrix": %s, "attention_matrix": %s}' % (ENTRY_TEXT, ENTRY_TEXT), 400),
        (b'{"attention_matrix": %s, "factor": %s}' % (ENTRY_TEXT, b"[" * 500_000 + b"]" * 500_000), 413),
        (b'{"attention_matrix": %s, "factor": [%s]}' % (ENTRY_TEXT, b",".join([b"[]"] * 300_000)), 413),
        (json.dumps({"attention_matrix": ENTRY, "__metadata__": {"json": "{}", "of": "a stranger"}}).encode(), 200),
        (json.dumps({"attention_matrix": ENTRY, "__metadata__": {"json": "{}", "of": 1}}).encode(), 422),
        (json.dumps({"attention_matrix": ENTRY, "__metadata__": []}).encode(), 422),
        (b'{"attention_matrix": %s, "n": NaN}' % ENTRY_TEXT, 400),
    ],
    ids=["filled", "too long", "twice", "deep", "many values", "metadata", "number in metadata", "list", "NaN"],
)
def test_safetensors_headers(serve, header, status):
    client = serve(echo_registry(), max_parts=100)
    answer = send_safetensors(client, message(header, bytes(8)))
    assert answer.status_code == status, answer.text[:500]


def test_bytes_are_flat_or_nested_as_the_shape_says(server):
    for data, status in (
        (["a", "b", "c", "d"], 200),
        ([["a", "b"], ["c", "d"]], 200),
        ([["a"], ["b", "c", "d"]], 400),
        ([["a", "b", "c", "d"]], 400),
        ([[["a", "b"]], [["c", "d"]]], 400),
        (["a", ["b"], "c", "d"], 400),
        (["a", "b", ["c", "d"]], 400),
        ([["a", "b"], ["c", 1]], 400),
        ([["a", "b"], "cd"], 400),
    ):
        answer = infer(server, {"inputs": [tensor("BYTES", shape=[2, 2], data=data)]})
        assert answer.status_code == status, (data, answer.text)
    for shape, data in (([2, 0], [[], []]), ([0, 2], []), ([0], []), ([], ["a"])):
        answer = infer(server, {"inputs": [tensor("BYTES", shape=shape, data=data)]})
        assert answer.status_code == 200, (shape, answer.text)


@pytest.mark.parametrize("datatype", ["FP64", "INT8", "BOOL", "BYTES"])
def test_null_data_counts_as_missing(server, datatype):
    answer = infer(server, {"inputs": [tensor(datatype, data=None)]})
    assert answer.status_code == 400
    assert answer.json()["error"] == f"x_{datatype}: 'data' must be a list"
    answer = infer(server, {"inputs": [tensor(datatype, data=None, parameters={"binary_data_size": 1})]})
    assert answer.status_code == 400
    assert "only one of" in answer.json()["error"]


NATIVE = "/artifacts/scale/execute"
LONG_NAME = "k" * 1_000_000
LOUD = {
    "many undeclared": (NATIVE, {"attention_matrix": [[1.0]], **{f"{index}{'k' * 100}": 1 for index in range(20_000)}}),
    "a long name": (NATIVE, {"attention_matrix": [[1.0]], LONG_NAME: 1}),
    "many long names": (NATIVE, {"attention_matrix": [[1.0]], **{f"{n}{LONG_NAME[:50_000]}": 1 for n in range(100)}}),
    "many violations": ("/artifacts/echo/execute", {"list": ["x"] * 100_000}),
    "a long value": ("/artifacts/echo/execute", {"list": "x" * 1_000_000}),
    "a long dtype": (NATIVE, {"attention_matrix": {"dtype": LONG_NAME, "shape": [1], "data": [1]}}),
    "a long artifact": ("/chains/execute", {"pipeline": [{"artifact": LONG_NAME}]}),
    "a long member": ("/chains/execute", {LONG_NAME: 1, "pipeline": []}),
    "a long key of a step": ("/chains/execute", {"pipeline": [{"artifact": "scale", LONG_NAME: 1}]}),
    "a long port": (
        "/chains/execute",
        {"pipeline": [{"artifact": "scale", "inputs": {"factor": f"$.{LONG_NAME}"}}], "initial_input": {"a": 1}},
    ),
    "long parameters": ("/chains/execute", {"pipeline": [{"artifact": "scale", "params": {LONG_NAME: 1}}]}),
    "a long input": ("/v2/models/echo/infer", {"inputs": [{"name": LONG_NAME, "datatype": "FP64", "shape": [1]}]}),
    "a long datatype": ("/v2/models/echo/infer", {"inputs": [tensor(LONG_NAME, data=[1])]}),
    "a long output": (
        "/v2/models/echo/infer",
        {"inputs": [tensor(data=[1])], "outputs": [{"name": LONG_NAME}]},
    ),
    "a long parameter": ("/v2/models/echo/infer", {"inputs": [tensor(data=[1])], "parameters": {LONG_NAME: [1]}}),
    "many parameters": (
        "/v2/models/scale/infer",
        {
            "inputs": [{"name": "attention_matrix", "datatype": "FP64", "shape": [1, 1], "data": [1]}],
            "parameters": {f"{index}{'k' * 100}": 1 for index in range(20_000)},
        },
    ),
}


@pytest.mark.parametrize("case", LOUD)
def test_errors_are_short(server, case):
    path, body = LOUD[case]
    answer = server.post(path, json=body, headers={"request-timeout": "10"})
    expected = 400 if path.startswith("/v2") else 404 if case == "a long artifact" else 422
    assert answer.status_code == expected, answer.text[:500]
    assert len(answer.content) < 64_000
    if not path.startswith("/v2") and "errors" in answer.json():
        assert len(answer.json()["errors"]) <= 21
    assert all(len(value) < 8000 for value in answer.headers.values())


def test_one_byte_messages_become_one_buffer():
    left = 200_000

    async def receive():
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": b"x", "more_body": left > 0}

    for read in (
        lambda request: BodyStream(request, Settings()).rest(),
        lambda request: BodyReader(Settings()).read_whole(request),
    ):
        left = 200_000
        tracemalloc.start()
        try:
            body = asyncio.run(read(Request({"type": "http", "headers": []}, receive)))
            assert len(body) == 200_000
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()
