"""Inputs become arrays: without a copy where that is possible, and counted where it is not."""

import array
import ctypes
import json
import math
import unittest.mock

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.arrays import Borrowed
from zerocost import DatatypeError, RangeError, ShapeError
from zerocost._kernels import read_json
from zerocost.core.arrays import as_floating, as_tensor
from zerocost.core.copies import counting_copies
from zerocost.core.datatypes import DATATYPES, datatype_of, dtype_of, list_datatype


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("layout", ["plain", "transposed", "reversed", "broadcast", "empty"])
def test_float_arrays_come_back_as_they_are(dtype, layout):
    plain = np.arange(12.0).reshape(3, 4).astype(dtype)
    value = {
        "plain": plain,
        "transposed": plain.T,
        "reversed": plain[::-1, ::-2],
        "broadcast": np.broadcast_to(plain[0], (5, 4)),
        "empty": plain[:0],
    }[layout]
    with counting_copies() as copied:
        assert as_floating(value, "m") is value
    assert copied.bytes == 0


@pytest.mark.parametrize("wrap", [Borrowed, memoryview])
def test_other_arrays_are_borrowed(wrap):
    values = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    with counting_copies() as copied:
        assert np.shares_memory(as_floating(wrap(values), "m"), values)
    assert copied.bytes == 0


def test_the_buffer_protocol_is_borrowed():
    values = array.array("d", [1.0, 2.0])
    taken = as_floating(values, "m")
    values[0] = 5.0
    assert taken.tolist() == [5.0, 2.0]


def test_arrays_that_kernels_cannot_read_are_copied_and_counted():
    memory = (ctypes.c_char * 25)()
    misaligned = np.frombuffer(memory, np.float32, 6, offset=1)
    records = np.zeros(3, np.dtype([("a", "f4"), ("b", "i2")]))["a"]
    for value in (misaligned, records):
        with counting_copies() as copied:
            taken = as_floating(value, "m")
        assert taken.tolist() == value.tolist()
        assert taken.flags.aligned
        assert copied.bytes == value.nbytes


def test_lists_become_float64_and_are_counted():
    with counting_copies() as outer:
        with counting_copies() as copied:
            taken = as_floating([[1, 2.5], [-0.0, 2**70]], "m")
        assert copied.bytes == 32
    assert outer.bytes == 32
    assert taken.dtype == np.float64
    assert taken.tolist() == [[1.0, 2.5], [-0.0, 2.0**70]]


@pytest.mark.parametrize(
    ("value", "datatypes", "datatype"),
    [
        ([True, False], ("BOOL", "FP32", "FP64"), "BOOL"),
        ([1, 2], ("INT64", "INT32"), "INT64"),
        ([1.0, 2.0], ("INT32",), "INT32"),
        ([1, 2], ("FP32",), "FP32"),
        ([1, 2], None, "FP64"),
        (["a", "bc"], ("BYTES",), "BYTES"),
    ],
)
def test_a_list_takes_the_declared_datatype(value, datatypes, datatype):
    assert datatype_of(as_tensor(value, "t", datatypes).dtype) == datatype


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.ones(2, np.int32), TypeError, r"m: dtype int32 was given, .*array.astype\(numpy.float32\)"),
        (np.ones(2, bool), TypeError, "dtype bool was given"),
        (np.ones(2, complex), TypeError, "take array.real"),
        (np.ones(2, ">f4"), TypeError, "newbyteorder"),
        (np.array([object()]), TypeError, "dtype object was given"),
        ([[1.0], [1.0, 2.0]], ValueError, "m: ragged lists"),
        ([1.0, "a"], TypeError, "lists of text"),
        ([None], TypeError, "lists of NoneType"),
        (1.0, TypeError, "m: float was given"),
        ({"a": 1}, TypeError, r"m: builtins\.dict was given"),
        (object(), TypeError, r"m: builtins\.object was given"),
        ([10**400], ValueError, "outside the range of FP64"),
        ([[1 + 2j]], TypeError, "lists of complex"),
        ([np.datetime64("2020-01-01")], TypeError, "lists of datetime64"),
        ([[True]], TypeError, "lists of booleans"),
        ([[1.0, True]], TypeError, "lists of booleans were given, numbers are needed"),
        ([[1.0], [np.ma.masked]], TypeError, "lists of MaskedConstant"),
        ([np.ones(2, np.float32)], TypeError, "a list of arrays was given.*'each'"),
    ],
)
def test_unreadable_values_are_refused(value, error, message):
    with pytest.raises(error, match=message):
        as_floating(value, "m")


@pytest.mark.parametrize(
    ("value", "datatype", "kind", "message"),
    [
        ([1.5], "UINT8", DatatypeError, "fractions were given"),
        ([math.nan], "UINT8", DatatypeError, "fractions were given"),
        ([math.inf], "UINT8", DatatypeError, "fractions were given"),
        ([300], "UINT8", RangeError, "outside the range of UINT8"),
        ([-(2**70)], "INT64", RangeError, "outside the range of INT64"),
        ([math.inf, 1e39], "FP32", RangeError, "outside the range of FP32"),
        ([1e5], "FP16", RangeError, "outside the range of FP16"),
        ([1.0], "BOOL", DatatypeError, "booleans are needed"),
        ([1.0], "BYTES", DatatypeError, "texts are needed"),
        ([["a"], ["b", "c"]], "BYTES", ShapeError, "ragged"),
    ],
)
def test_numbers_that_do_not_fit_the_datatype_are_refused(value, datatype, kind, message):
    with pytest.raises(kind, match=message) as caught:
        as_tensor(value, "t", (datatype,))
    assert type(caught.value) is kind


NUMBERS = st.one_of(
    st.integers(-300, 300),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(alphabet="abc", max_size=2),
)
LISTS = st.recursive(st.lists(NUMBERS, max_size=3), lambda inner: st.lists(inner, max_size=3), max_leaves=8)


@settings(max_examples=300)
@given(LISTS, st.sampled_from([None, ("BOOL", "FP64"), ("BYTES",), *((name,) for name in DATATYPES)]))
def test_lists_become_the_same_arrays_from_python_as_from_json(value, datatypes):
    def read(from_where):
        try:
            array = from_where()
        except (DatatypeError, ShapeError, RangeError):
            # A list with several faults: one reader sees the shape first, the other the element.
            return "refused"
        return array.dtype, array.shape, array.tolist()

    table = {"t": list_datatype(datatypes)}
    from_json = read(lambda: as_tensor(read_json(json.dumps({"t": value}).encode(), table)["t"], "t", datatypes))
    assert read(lambda: as_tensor(value, "t", datatypes)) == from_json


class Frame:
    """An array of another library: nothing but ``__array__``, as pandas, polars and xarray have it."""

    def __init__(self, give):
        self.give = give

    def __array__(self, dtype=None, copy=None):
        return self.give()


def test_array_methods_are_called_and_new_arrays_are_counted():
    values = np.arange(3.0)
    with counting_copies() as copied:
        assert np.shares_memory(as_floating(Frame(lambda: values[:]), "m"), values)
    assert copied.bytes == 0
    with counting_copies() as copied:
        assert as_floating(Frame(lambda: np.ones(3)), "m").tolist() == [1, 1, 1]
    assert copied.bytes == 24


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda: 1 / 0, "gives no array .ZeroDivisionError"),
        (lambda: "text", "gives no array"),
        (lambda: np.array([None, 1.0]), "an array of objects"),
        (lambda: np.arange(3), "dtype int64 was given"),
    ],
)
def test_failing_array_methods_are_named(give, message):
    with pytest.raises(DatatypeError, match=message):
        as_floating(Frame(give), "m")


def test_an_object_with_every_attribute_is_not_an_array():
    with pytest.raises(DatatypeError, match="was given"):
        as_floating(unittest.mock.Mock(), "m")


@pytest.mark.parametrize("mask", [np.ma.nomask, [True, False]])
@pytest.mark.parametrize("datatypes", [None, ("FP64",)])
def test_masked_arrays_are_refused(mask, datatypes):
    with pytest.raises(DatatypeError, match=r"give array.filled\("):
        as_tensor(np.ma.array([1.0, 2.0], mask=mask), "m", datatypes)


def test_every_datatype_has_a_dtype_and_back():
    assert all(datatype_of(dtype_of(datatype)) == datatype for datatype in DATATYPES)
    with pytest.raises(TypeError, match="'FP8' is not one of"):
        dtype_of("FP8")
    assert datatype_of(np.dtype(complex)) is None
