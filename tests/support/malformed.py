"""Strategies of Hypothesis for binary bodies with malformed headers, and what every reader of them must keep."""

import contextlib
import json
import tracemalloc

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from support.safetensors import message
from zerocost import ZerocostError
from zerocost.api.settings import Settings
from zerocost.api.wire.problems import status_of
from zerocost.api.wire.request import Request
from zerocost.core.datatypes import DATATYPES, dtype_of
from zerocost.core.safetensors import to_pieces

MIB = 1 << 20
LIMITS = Settings(max_body=MIB, max_parts=20, max_elements=1 << 16, max_values=10_000, max_depth=20)

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


@contextlib.contextmanager
def bounded_memory():
    """At most 8 MiB: more than a body of 1 MiB may cost, and much less than what a header can announce."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


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
