"""Malformed headers of binary bodies: a right result or a clear error, and no memory for the sizes that they claim.

The safetensors heads as the server and as RemoteArtifact read them, and the Open Inference heads.
"""

import asyncio
import contextlib
import functools
import json
import tracemalloc

import httpx2
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from support.equality import same_values
from support.safetensors import message
from support.samples import echo_registry
from zerocost import ExecutionContext, RemoteArtifact, ServiceUnavailable, ShapeError, ZerocostError
from zerocost.api.settings import Settings
from zerocost.api.v2.body import InferenceRequest
from zerocost.api.v2.values import inputs_of, write_outputs
from zerocost.api.wire.body import BodyStream
from zerocost.api.wire.problems import status_of
from zerocost.api.wire.request import Request
from zerocost.api.wire.safetensors import read_safetensors
from zerocost.core.datatypes import DATATYPES, dtype_of
from zerocost.core.safetensors import MEDIA_TYPE, split_values, to_pieces

MIB = 1 << 20
LIMITS = Settings(max_body=MIB, max_parts=20, max_elements=1 << 16, max_values=10_000, max_depth=20)
MUCH = 8 * MIB
"""More than a body of 1 MiB may cost, and much less than what a head can announce."""

some = settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])

NUMBERS = st.one_of(
    st.integers(-2, 40),
    st.sampled_from([1 << 16, 1 << 31, 1 << 32, 1 << 53, (1 << 63) - 1, 1 << 63, 1 << 64, 10**400]),
    st.floats(allow_nan=False, allow_infinity=False),
)
NAMES = st.sampled_from(["a", "a.0", "a.1", "a.0.0", "a.", ".0", "a.00", "b.2", "", "__metadata__", "json", "é\n.0"])
TEXTS = (
    NAMES
    | st.sampled_from(["F32", "U8", "BOOL", "FP32", "BYTES", "[1]", "{}", "x." + "1" * 5000])
    | st.text(max_size=8)
)
FLAT = st.none() | st.booleans() | NUMBERS | TEXTS
JUNK = st.recursive(
    FLAT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=8
)
DEEP = b"[" * 1020 + b"]" * 1020


def text_of(draw, value):
    """JSON, with DEEP where the text "deep" stands: more than Python's own encoder can write."""
    text = json.dumps(value, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    return text.replace(b'"deep"', DEEP)


def places(value, path=()):
    """Where the values in a JSON value are."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def mutated(draw, value):
    """A JSON value with a few of its members replaced, renamed, repeated or left out."""
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(list(places(value))))
        if not path:
            continue
        inside = value
        for key in path[:-1]:
            inside = inside[key]
        how = draw(st.sampled_from(["replace", "rename", "remove", "repeat"]))
        if how == "replace":
            inside[path[-1]] = draw(JUNK)
        elif how == "rename" and isinstance(inside, dict):
            inside[draw(TEXTS)] = inside.pop(path[-1])
        elif how == "remove":
            del inside[path[-1]]
        elif isinstance(inside, list):
            inside.append(inside[path[-1]])
    return value


def damaged(draw, data):
    """Bytes of which a few were changed, left out or put in."""
    data = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data[: draw(st.none() | st.integers(0, len(data)))])


@st.composite
def arrays(draw):
    datatype = draw(st.sampled_from([name for name in DATATYPES if name != "BYTES"]))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    dtype = dtype_of(datatype)
    size = int(np.prod(shape)) * dtype.itemsize
    content = draw(st.binary(min_size=size, max_size=size))
    if datatype == "BOOL":
        content = bytes(byte & 1 for byte in content)
    return np.frombuffer(content, dtype).reshape(shape)


VALUES = st.dictionaries(NAMES.filter(lambda name: name != "__metadata__"), arrays(), max_size=4)


@st.composite
def messages(draw):
    """A safetensors message, whole or changed in its JSON or in its bytes."""
    pieces = to_pieces(draw(VALUES), draw(st.sampled_from(["{}", '{"n": 1}', '{"a": 1}', "[]", "{", '"\\ud800"'])))
    head = json.loads(pieces[0][8:])
    head = head if draw(st.booleans()) else mutated(draw, head)
    text = text_of(draw, head)
    size = draw(st.sampled_from([len(text)] * 8 + [0, 1 << 20, 1 << 40, (1 << 64) - 1]))
    body = message(text, b"".join(pieces[1:]), size=size)
    return body if draw(st.booleans()) else damaged(draw, body)


def or_refused(call):
    """What the call returns; None where it raises a client's error. Any other exception is raised."""
    try:
        return call()
    except ZerocostError as error:
        if not (400 <= status_of(error) < 500 and str(error)):
            raise
        return None


def request_of(body, step):
    """A request whose body arrives in pieces."""
    pieces = [body[at : at + step] for at in range(0, len(body), step)] or [b""]

    async def receive():
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    return Request({"headers": [], "type": "http"}, receive)


async def at_once(size, job):
    """Reads long texts where short ones are read too."""
    return job()


@some
@given(VALUES, st.integers(1, 100))
def test_a_safetensors_body_is_what_was_sent(values, step):
    assume(not any("." in name for name in values))
    tensors, others = split_values({**values, "list": [np.arange(2), np.zeros((0, 3))]})
    body = b"".join(to_pieces(tensors, json.dumps({**others, "n": 1})))
    read, _ = asyncio.run(read_safetensors(request_of(body, step), LIMITS, at_once))
    assert same_values(read, {**values, "list": [np.arange(2), np.zeros((0, 3))], "n": 1})


@some
@given(messages(), st.integers(1, 100))
@example(message(b'{"x.%s": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}' % (b"1" * 5000)), 100)
def test_malformed_safetensors_bodies(body, step):
    tracemalloc.start()
    try:
        inputs = or_refused(lambda: asyncio.run(read_safetensors(request_of(body, step), LIMITS, at_once))[0])
        if inputs is None:
            return
        assert all(isinstance(name, str) for name in inputs)
        size, rest = int.from_bytes(body[:8], "little"), body[8:]
        # Everything that was sent is there.
        arrays = [item for value in inputs.values() for item in (value if isinstance(value, list) else [value])]
        assert sum(item.nbytes for item in arrays if isinstance(item, np.ndarray)) == len(rest) - size
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MUCH


def test_a_tensor_and_a_list_of_one_name():
    entry = {"dtype": "U8", "shape": [1]}
    for names in (("a.0", "a"), ("a", "a.0")):
        head = {name: {**entry, "data_offsets": [at, at + 1]} for at, name in enumerate(names)}
        with pytest.raises(ShapeError, match=r"a: given as a tensor and as a list|a\.0: the elements of a list"):
            asyncio.run(read_safetensors(request_of(message(head, b"xy"), 100), LIMITS, at_once))


# The same heads in answers, as RemoteArtifact reads them.


@functools.cache
def answered_once():
    """Imports what the first answer imports, so that its memory is not counted."""
    with pytest.raises(ServiceUnavailable):
        remote(httpx2.Response(200, headers={"content-type": MEDIA_TYPE}, content=iter([b""])))


def remote(answer):
    artifact = RemoteArtifact("http://server", "scale", timeout=10)
    artifact._client = httpx2.Client(transport=httpx2.MockTransport(lambda request: answer))
    try:
        return artifact.execute({}, ExecutionContext("scale", "attention", "zero_cost"))
    finally:
        artifact.close()


LENGTHS = st.sampled_from([None, "exact", "0", "8", "1" * 18, "1" * 5000, "²", "-1", "x"])


@some
@given(messages(), LENGTHS, st.integers(1, 100))
@example(message(b"", size=1 << 50), "1" * 18, 10)
@example(message(b"", size=32 * MIB), "1" * 18, 10)
@example(message(b'{"x": {"dtype": %s}}' % DEEP), None, 100)
def test_malformed_safetensors_answers(body, length, step):
    headers = {"content-type": MEDIA_TYPE}
    if length is not None:
        headers["content-length"] = str(len(body)) if length == "exact" else length
    pieces = (body[at : at + step] for at in range(0, len(body), step))
    answered_once()
    tracemalloc.start()
    try:
        sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        with contextlib.suppress(ServiceUnavailable):
            assert isinstance(remote(httpx2.Response(200, headers=sent, content=pieces)), dict)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MUCH


@st.composite
def problems(draw):
    document = {
        "code": draw(
            st.sampled_from(["shape_error", "invalid_input", "plan_error", "error", "none", "limit_exceeded"])
        ),
        "detail": "no",
        "errors": [{"pointer": "/a~1b", "message": "no"}],
        "step": 1,
        "artifact": "a",
        "port": "p",
        "request_id": "r",
    }
    return text_of(draw, mutated(draw, document))


@some
@given(
    problems(),
    st.sampled_from([400, 413, 422, 429, 500, 502, 503]),
    st.sampled_from(["99", "²", "9" * 400, "-1", "x", ""]),
)
@example(json.dumps({"code": "invalid_input", "detail": "no", "errors": [1]}).encode(), 422, "")
@example(b'{"code": "invalid_input", "detail": %s}' % DEEP, 422, "")
@example(b"{}", 503, "²")
def test_malformed_problem_documents(content, status, wait):
    with pytest.raises(ZerocostError):
        remote(httpx2.Response(status, headers=[(b"retry-after", wait.encode("latin-1"))], content=iter([content])))


@pytest.mark.parametrize("answer", ["{}", '{"schema": 1, "description": "x"}', '{"schema": {}}', "[]"])
def test_malformed_descriptions(answer):
    artifact = RemoteArtifact("http://server", "scale")
    answers = httpx2.MockTransport(lambda _: httpx2.Response(200, content=iter([answer.encode()])))
    artifact._client = httpx2.Client(transport=answers)
    with pytest.raises(ServiceUnavailable, match="not a zerocost server's"):
        artifact.get_schema()
    artifact.close()


# Open Inference.

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
    tracemalloc.start()
    try:
        answered = or_refused(lambda: asyncio.run(inferred(*request, step)))
        if answered is None:
            return
        parsed, (head, blocks) = answered
        answer = json.loads(head)
        assert answer["id"] == parsed.id if "id" in answer else parsed.id is None
        announced = [output.get("parameters", {}).get("binary_data_size", 0) for output in answer["outputs"]]
        assert sum(announced) == sum(map(len, blocks))
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MUCH


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
