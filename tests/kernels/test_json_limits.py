"""What the JSON reader and writer refuse: limits, wrong shapes, and texts that do not fit into memory."""

import json
import sys

import numpy as np
import pytest

from support.processes import run_json_code
from zerocost import LimitExceeded, MalformedJSON, RangeError, ShapeError
from zerocost._kernels import json_spans, read_json, read_tensor


@pytest.mark.parametrize("value", [-1, -(10**30), 1 << 64, 10**5000], ids=["-1", "-10^30", "2^64", "10^5000"])
def test_invalid_limits(value):
    for name, calls in {
        "max_depth": (read_json, json_spans, lambda text, **limit: read_tensor(text, "FP64", [0], **limit)),
        "max_values": (read_json, json_spans),
        "max_elements": (read_json, lambda text, **limit: read_tensor(text, "FP64", [0], **limit)),
    }.items():
        for call in calls:
            with pytest.raises(RangeError, match=rf"^{name}: .* was given, 0 to \d+ is allowed") as raised:
                call(b"[]", **{name: value})
            assert raised.value.argument == name
    with pytest.raises(ShapeError, match=r"^shape: .* was given, lengths from 0 to \d+ are allowed"):
        read_tensor(b"[]", "FP64", [0, value])


def test_limits_of_nothing():
    with pytest.raises(LimitExceeded, match="nested deeper than 0 levels"):
        read_json(b"[]", max_depth=0)
    assert read_json(b"1", max_depth=0) == 1
    with pytest.raises(LimitExceeded, match="more than 0 values"):
        read_json(b"1", max_values=0)
    with pytest.raises(LimitExceeded, match="more than 0 elements"):
        read_tensor(b"[1]", "FP64", [0], max_elements=0)


@pytest.mark.parametrize("text", ["[[1,2],[3,4]]", "[[[1],[2]],[[3],[4]]]", "[[1],[2],[3],[4]]"])
def test_a_shape_that_is_not_the_data_s(text):
    given = list(np.shape(json.loads(text)))
    for shape in ([4], [1, 4], [2, 2, 1, 1]):
        with pytest.raises(ShapeError) as raised:
            read_tensor(text.encode(), "FP64", shape)
        assert str(raised.value) == f"the data is nested as {given}, its shape asks for {shape} or one flat list"
    with pytest.raises(ShapeError, match="ragged"):
        read_tensor(b"[[1,2],[3]]", "FP64", [3])
    with pytest.raises(ShapeError, match="3 elements, its shape asks for 4"):
        read_tensor(b"[1,2,3]", "FP64", [4])


def test_axes_that_no_array_has():
    assert read_tensor(b"[" * 32 + b"1" + b"]" * 32, "FP64", [1] * 32).shape == (1,) * 32
    with pytest.raises(ShapeError, match="more than 32 axes"):
        read_tensor(b"[1]", "FP64", [1] * 33)
    with pytest.raises(ShapeError, match="more than 32 axes"):
        read_json(b'{"x":%s}' % (b"[" * 33 + b"1" + b"]" * 33), {"x": ("FP64", False, False)})
    with pytest.raises(LimitExceeded):
        read_json(b'{"x":%s}' % (b"[" * 133 + b"1" + b"]" * 133), {"x": ("FP64", False, False)})
    with pytest.raises(MalformedJSON):
        read_json(b'{"x":%s}' % (b"[" * 50 + b"1 1" + b"]" * 50), {"x": ("FP64", False, False)})


# Memory that cannot be had.


def test_a_text_that_no_memory_holds():
    run_json_code("""
        for shape in ((2**40, 0), (2**31, 2**28, 0), (2**20, 2**20, 3, 0)):
            value = np.empty(shape, np.int8)
            assert "bytes of memory are needed" in refused(MemoryError, write_json, {"a": value})
            assert write_json(value, typed=True).endswith(b',"data":[]}')
        assert write_json([1]) == b"[1]"
    """)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_too_little_memory_is_an_error():
    run_json_code("""
        text = b"[" + b"1," * 25_000_000 + b"1]"
        rows = b"[" + b",".join([b"[" + b"1.5," * 999 + b"1.5]"] * 25_000) + b"]"
        changing, string, escapes = bytearray(text), b'"%s"' % (b"x" * 50_000_000), b'"%s"' % (br"\\n" * 25_000_000)
        tensor, many = {"x": ("FP64", False, False)}, {"max_elements": 1 << 40}
        for count, read, *arguments in (
            (90, read_tensor, text, "FP64", [25_000_001]),
            (90, read_json, b'{"x":%s}' % text, tensor),
            (90, read_tensor, rows, "FP64", [25_000, 1000]),
            (20, read_tensor, changing, "FP64", [25_000_001]),
        ):
            message = with_megabytes(count, MemoryError, read, *arguments, **many)
            assert "bytes of memory are needed" in message, message
        for string in (string, escapes):
            for text in (string, b'{"x":%s}' % string, b"{%s:1}" % string):
                with_megabytes(15, MemoryError, read_json, text)  # Python's own message where a text has no escape
            with_megabytes(15, MemoryError, json_spans, text)
        numbers, objects = (b"[%s]" % b",".join([item] * 450_000) for item in (b"0.5,12345678901", b'{"a":[]}'))
        for read in (read_json, json_spans):
            for text in (numbers, objects):
                with_megabytes(8, MemoryError, read, text, max_values=10**9)
        assert read_json(b'{"a":[1,2]}') == {"a": [1, 2]}
        assert read_tensor(rows, "FP64", [25_000, 1000], **many).sum() == 1.5 * 25_000_000
    """)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_too_little_memory_to_write_is_an_error():
    run_json_code("""
        numbers = np.random.default_rng(0).random(8_000_000)
        texts = ("\\x01" * 40_000_000, ["x" * 90_000_000] * 2, {"x" * 90_000_000: 1})
        for value in (numbers, [numbers], {"a": numbers.reshape(1000, -1)}, *texts):
            message = with_megabytes(80, MemoryError, write_json, value)
            assert "bytes of memory are needed" in message, message
        with_megabytes(150, MemoryError, write_json, "x" * 90_000_000)  # Python's own words
        assert write_json(numbers[:0]) == b"[]"
    """)
