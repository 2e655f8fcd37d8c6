"""The JSON reader and writer against Python's json module: the same texts, the same values, the same doubles."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerocost import DatatypeError, LimitExceeded, MalformedJSON, RangeError, ShapeError
from zerocost._kernels import json_spans, read_json, write_json

ASCII = st.characters(codec="ascii")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def reference(text):
    """Python's json as strict as RFC 8259 lets a reader be: no bare NaN, no name twice."""

    def unique(pairs):
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError("a name twice")
        return dict(pairs)

    def refuse(name):
        raise ValueError(name)

    return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)


def is_encodable(value):
    """Whether no text has a lone surrogate."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def identical(a, b):
    """Equal, with equal types and equal signs of zero."""
    if isinstance(a, float):
        return isinstance(b, float) and math.copysign(1, a) == math.copysign(1, b) and a == b
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(identical, a, b))
    return type(a) is type(b) and a == b


@given(VALUES.filter(is_encodable), st.booleans(), st.sampled_from([None, 1]))
def test_texts_of_the_json_module_are_read(value, ensure_ascii, indent):
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
    assert identical(reference(text), read_json(text.encode()))


@given(VALUES.filter(is_encodable))
def test_written_values_are_json(value):
    assert identical(value, json.loads(write_json(value)))


@given(st.text(alphabet='[]{}:,"\\0123456789.eE+-truefalsn u\ud800\t\x00', max_size=30))
def test_the_same_texts_are_refused(text):
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return
    try:
        expected = reference(text)
    except (ValueError, RecursionError):
        with pytest.raises((MalformedJSON, RangeError)):
            read_json(encoded)
        return
    try:
        value = read_json(encoded)
    except RangeError:
        assert "inf" in repr(expected), "only numbers beyond float64 are refused beside"
    except MalformedJSON:
        assert not is_encodable(expected), "only lone surrogates are refused beside"
    else:
        assert identical(expected, value)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_arrays_are_the_same_doubles(numbers):
    text = json.dumps({"a": numbers}).encode()
    array = read_json(text, {"a": ("FP64", False, False)})["a"]
    assert array.tobytes() == np.array(numbers, dtype=np.float64).tobytes()
    assert write_json(array) == write_json(numbers)


NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True, alphabet=ASCII)
SEPARATORS = st.sampled_from([",", ", ", " ,\n\t", ",  "])


def in_the_middle(numbers):
    """A text with so much in front of the numbers and behind them that they are read the fast way."""
    return '{"' + "x" * 40 + '": "", "a": [' + numbers + '], "' + "y" * 40 + '": ""}'


@settings(max_examples=500)
@given(st.lists(NUMBERS, min_size=1), SEPARATORS)
def test_numbers_of_any_spelling_are_the_same_doubles(numbers, separator):
    text = in_the_middle(separator.join(numbers)).encode()
    expected = np.array([float(number) for number in numbers])
    if np.isinf(expected).any():
        with pytest.raises(RangeError):
            read_json(text, {"a": ("FP64", False, False)})
        return
    assert read_json(text, {"a": ("FP64", False, False)})["a"].tobytes() == expected.tobytes()


@settings(max_examples=500)
@given(st.text(alphabet="0123456789.eE+-, ][", max_size=40))
def test_the_same_lists_of_numbers_are_refused(numbers):
    text = in_the_middle(numbers)
    try:
        expected = np.array(reference(text)["a"], dtype=np.float64)
    except (ValueError, OverflowError, RecursionError):
        with pytest.raises((MalformedJSON, ShapeError, RangeError, DatatypeError)):
            read_json(text.encode(), {"a": ("FP64", False, False)})
        return
    try:
        array = read_json(text.encode(), {"a": ("FP64", False, False)})["a"]
    except RangeError:
        assert np.isinf(expected).any(), "only numbers beyond float64 are refused beside"
    else:
        assert array.shape == expected.shape
        assert np.array_equal(array, expected)


@pytest.mark.parametrize("datatype", ["UINT8", "INT8", "INT32", "UINT64", "INT64"])
@given(st.data())
def test_whole_numbers_of_any_length(datatype, data):
    limits = np.iinfo(datatype.lower())
    numbers = data.draw(st.lists(st.integers(int(limits.min), int(limits.max)), min_size=1))
    array = read_json(in_the_middle(", ".join(map(str, numbers))).encode(), {"a": (datatype, False, False)})["a"]
    assert array.tolist() == numbers
    beyond = data.draw(st.sampled_from([int(limits.min) - 1, int(limits.max) + 1]))
    with pytest.raises(RangeError):
        read_json(in_the_middle(f"1, {beyond}, 2").encode(), {"a": (datatype, False, False)})


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int16, np.uint8, np.bool_])
def test_runs_of_zeros_are_written_in_full(dtype):
    chosen = np.random.default_rng(0)
    for length in (0, 1, 2, 63, 64, 65, 127, 128, 129, 1000):
        for share in (0.0, 0.5, 0.98, 1.0):
            values = np.where(chosen.random((3, length)) < share, 0, chosen.integers(1, 100, (3, length))).astype(dtype)
            assert json.loads(write_json(values)) == values.tolist()
    assert write_json(np.array([0.0, -0.0, 0.0])) == b"[0.0,-0.0,0.0]"


@pytest.mark.parametrize("text", [b"\xff", b'"\xc3"', b'"\xed\xa0\x80"', b"\xff\xfe[\x00]\x00"])
def test_text_that_is_not_utf_8(text):
    with pytest.raises(MalformedJSON):
        read_json(text)


def test_limits_and_long_numbers():
    with pytest.raises(LimitExceeded):
        read_json(b"[" * 101 + b"]" * 101)
    with pytest.raises(LimitExceeded):
        read_json(b"[1,2,3]", max_values=3)
    with pytest.raises(LimitExceeded):
        read_json(b'{"a":[1,2,3]}', {"a": ("FP64", False, False)}, max_elements=2)
    assert read_json(b"1" * 4000) == int("1" * 4000)
    with pytest.raises(RangeError):
        read_json(b"1" * 5000)
    with pytest.raises(RangeError):
        read_json(b"1e400")


TENSORS = {"attention_matrix": ("FP64", False, False), "scores": ("FP32", False, False)}


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("attention_matrix", "{}", DatatypeError),
        ("attention_matrix", '{"dtype":"FP32","shape":[1],"data":[1],"more":1}', DatatypeError),
        ("attention_matrix", '{"dtype":"FP32","shape":[1],"data":1}', DatatypeError),
        ("attention_matrix", '{"dtype":"complex64","shape":[1],"data":[1]}', DatatypeError),
        ("attention_matrix", '{"dtype":"FP32","shape":[-1,2],"data":[1,2]}', ShapeError),
        ("attention_matrix", '{"dtype":"FP32","shape":[[1]],"data":[1]}', ShapeError),
        ("attention_matrix", '{"dtype":"FP32","shape":[3],"data":[1,2]}', ShapeError),
        ("attention_matrix", '{"dtype":"INT8","shape":[1],"data":[300]}', RangeError),
        ("attention_matrix", "[" * 33 + "]" * 33, ShapeError),
        ("attention_matrix", "[[1],[1,2]]", ShapeError),
        ("attention_matrix", "[1e400]", RangeError),
        ("attention_matrix", "1e400", RangeError),
        ("scores", "[1e39]", RangeError),
        ("temperature", "1e400", RangeError),
        ("a~b/c", '{"deep":[1,{"deeper":-1e400}]}', RangeError),
        ("temperature", "9" * 5000, RangeError),
    ],
)
def test_an_error_names_the_input(name, text, error):
    with pytest.raises(error) as raised:
        read_json(f'{{"{name}":{text}}}'.encode(), TENSORS)
    assert raised.value.message.startswith(f"{name}: ")
    assert raised.value.argument == name
    escaped = name.replace("~", "~0").replace("/", "~1")
    assert [pointer for pointer, _ in raised.value.errors] == [f"/{escaped}"]


@pytest.mark.parametrize("bare", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("text", ['{"attention_matrix":[1,%s]}', '{"temperature":%s}', "%s"])
def test_a_bare_nan_says_how_to_write_it(text, bare):
    for read in (lambda body: read_json(body, TENSORS), json_spans):
        with pytest.raises(MalformedJSON, match='write "NaN", "Infinity" or "-Infinity" as text; at byte'):
            read((text % bare).encode())


@pytest.mark.parametrize("text", ['{"key":1,"key":2}', '{"x":{"key":[],"key":0}}', '{"x":[{"key":null,"key":1}]}'])
def test_a_name_that_comes_twice_is_named(text):
    with pytest.raises(MalformedJSON, match='"key" is a name that the object has already, at byte'):
        read_json(text.encode(), TENSORS)


def test_a_name_that_comes_twice_is_named_where_only_spans_are_asked_for():
    with pytest.raises(MalformedJSON, match='"key" is a name that the object has already, at byte'):
        json_spans(b'{"key":1,"key":2}')
    with pytest.raises(MalformedJSON, match='"dtype" is a name that the object has already'):
        read_json(b'{"scores":{"dtype":"FP32","dtype":"FP64","shape":[0],"data":[]}}', TENSORS)
