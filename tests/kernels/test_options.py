"""Every option of every public array function, with wrong types and wrong values: an error of zerocost.

A wrong type and a wrong value have a class each, and the message begins with the option's name.
"""

import inspect
from decimal import Decimal
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

import zerocost
from zerocost import DatatypeError, OverlapError, RangeError, ShapeError

MATRIX = np.arange(12.0, dtype=np.float32).reshape(3, 4)
QUERY = MATRIX[:, :2]


class Stranger:
    """An object that is nothing in particular."""

    def __repr__(self):
        return "a stranger"


def wrong(error, *values):
    return [(value, error) for value in values]


def or_none(values):
    """For options that may be None."""
    return [(value, error) for value, error in values if value is not None]


NUMBER = [
    *wrong(DatatypeError, None, "1", b"1", True, np.True_, np.str_("1"), [1.0], np.array([1.0]), {}, Stranger()),
    *wrong(DatatypeError, 1 + 0j, np.complex64(1), np.datetime64("2020-01-01"), np.timedelta64(1)),
    *wrong(RangeError, np.nan, np.inf, -np.inf, 10**400, -(10**400)),
]
WHOLE = [
    *wrong(DatatypeError, "2", b"2", 2.0, True, np.True_, np.float32(2), None, [2], np.array([2]), 2j, Stranger()),
    *wrong(RangeError, 10**30),
]
COUNT = [*WHOLE, *wrong(RangeError, 0, -1, np.int8(-3))]
AXIS = [*WHOLE, *wrong(RangeError, 2, -3)]
FLAG = wrong(DatatypeError, 1, 0, "yes", "", None, 1.0, [True], np.int8(1), Stranger())
RATIO = [*NUMBER, *wrong(RangeError, 1, 1.0, -0.1, np.float32(1.0), 1e300)]
TEMPERATURE = [*NUMBER, *wrong(RangeError, 0, 0.0, -1.0, 9e-31, 1e-40, np.float64(5e-324))]
WINDOW = [
    *wrong(DatatypeError, "12", b"12", 1.5, True, [1], [1, 2, 3], [1.5, 2], ["1", "2"], [True, 1], {1, 2}, Stranger()),
    *wrong(RangeError, 0, -1, -(10**30), (-2, 0), (0, -2), (0, -(10**30))),
]
TENSOR = [
    *wrong(DatatypeError, "text", b"bytes", 3, 3.0, True, [["a"]], [[None]], Stranger()),
    *wrong(DatatypeError, MATRIX > 0, MATRIX.astype(int), MATRIX.astype(complex), MATRIX.astype(object)),
    *wrong(DatatypeError, MATRIX.astype(">f4")),
    *wrong(ShapeError, [[1.0], [1.0, 2.0]], np.array(1, np.float32)),
]
LIKE = [*TENSOR, *wrong(DatatypeError, MATRIX.astype(np.float64))]
MASK = [
    *wrong(DatatypeError, "text", b"bytes", 3, True, [["a"]], Stranger(), np.eye(3, dtype=int), np.eye(3)),
    *wrong(DatatypeError, [[1, 0, 1]] * 3, [[1.0, 0.0, 0.0]] * 3, [[True, 0, 1]] * 3, [[0, True, 1]] * 3),
    *wrong(ShapeError, [[True], [True, False]], np.ones((2, 3), bool), np.ones((2, 4, 3, 3), np.float32)),
]


def word(*others):
    return [
        *wrong(DatatypeError, None, 3, True, b"none", ["none"], Stranger()),
        *wrong(RangeError, "", "NONE", *others),
    ]


def out(shape):
    ready = np.zeros(shape, np.float32)
    read_only = ready.copy()
    read_only.flags.writeable = False
    same_rows = np.lib.stride_tricks.as_strided(ready, ready.shape, (0, 4))
    return [
        *wrong(DatatypeError, 3, "text", [[0.0]], Stranger(), ready.astype(np.float64), ready.astype(">f4"), ready > 0),
        *wrong(ShapeError, ready[:, :1], ready[0], np.zeros((0, 0), np.float32)),
        *wrong(OverlapError, read_only, same_rows),
    ]


DURATION = [
    *[(value, error) for value, error in NUMBER if not isinstance(value, list | np.ndarray)],
    *wrong(
        DatatypeError,
        {1.0, 2.0},
        {1.0: 1, 2.0: 2},
        ["1", "2"],
        [True, 1],
        [1.0, None],
        np.array([True, False]),
        np.ones((2, 1)),
        "12",
    ),
    *wrong(ShapeError, [1.0], [1.0, 2.0, 3.0], np.array([1.0]), [], np.zeros(0)),
    *wrong(RangeError, -1, [-1, 1], [np.nan, 1], np.array([1.0, np.inf]), 1e308),
]

SPARSE, SLIDING, FUSED, TENSOR_PARALLEL, PIPELINE = (
    zerocost.default_registry()[name].implementation
    for name in (
        "sparse_attention",
        "sliding_window_attention",
        "scaled_dot_product_attention",
        "tensor_parallel",
        "pipeline_parallel",
    )
)
MATRICES = {
    "attention_matrix": TENSOR,
    "normalization": word("l2"),
    "temperature": TEMPERATURE,
    "is_causal": FLAG,
    "align": word("left"),
    "out": out((3, 4)),
}
QUERIES = {
    "query": TENSOR,
    "key": LIKE,
    "value": LIKE,
    "is_causal": FLAG,
    "align": word("left"),
    "out": out((3, 4)),
}
ATTENDING = {**QUERIES, "normalization": word("none", "sum"), "temperature": TEMPERATURE}
ATTENDED = {"query": QUERY, "key": QUERY, "value": MATRIX}

CALLS = {
    "sparse": (SPARSE.process_attention, {"attention_matrix": MATRIX}, {**MATRICES, "sparsity_ratio": RATIO}),
    "sliding": (SLIDING.process_attention, {"attention_matrix": MATRIX}, {**MATRICES, "window_size": WINDOW}),
    "sparse, attend": (SPARSE.attend, ATTENDED, {**ATTENDING, "sparsity_ratio": RATIO}),
    "sliding, attend": (SLIDING.attend, ATTENDED, {**ATTENDING, "window_size": WINDOW}),
    "fused": (
        FUSED.process_attention,
        ATTENDED,
        {
            **QUERIES,
            "attn_mask": MASK,
            "scale": or_none(NUMBER),
            "window_size": WINDOW,
            "sparsity_ratio": or_none(RATIO),
            "softcap": [*NUMBER, *wrong(RangeError, -1e-300, -1)],
            "sinks": [*LIKE, *wrong(ShapeError, MATRIX[0])],
        },
    ),
    "split": (TENSOR_PARALLEL.process_parallel, {"tensor": MATRIX}, {"num_splits": COUNT, "axis": AXIS}),
    "linear": (
        TENSOR_PARALLEL.process_parallel,
        {"tensor": QUERY, "weight": MATRIX[:2], "bias": MATRIX[0]},
        {
            "tensor": TENSOR,
            "num_splits": COUNT,
            "axis": [*AXIS, (0, RangeError)],
            "weight": [*LIKE, *wrong(ShapeError, MATRIX, MATRIX[0])],
            "bias": [*LIKE, *wrong(ShapeError, MATRIX[:, 0], MATRIX)],
            "mode": word("rows"),
            "gather": FLAG,
        },
    ),
    "cuts": (
        PIPELINE.process_parallel,
        {"tensor": MATRIX, "num_stages": 2},
        {
            "num_stages": COUNT,
            "axis": AXIS,
            "costs": [
                *wrong(
                    DatatypeError, "text", 3, True, ["a", "b", "c"], Stranger(), MATRIX[:, 0] > 0, MATRIX[:, 0] * 1j
                ),
                *wrong(ShapeError, [1.0], [[1.0, 2.0, 3.0]], MATRIX, [[1.0], [1.0, 2.0]]),
                *wrong(RangeError, [1, -1, 1], [1, np.nan, 1], [1, np.inf, 1]),
            ],
            "num_microbatches": wrong(RangeError, 2),
        },
    ),
    "stages": (
        PIPELINE.process_parallel,
        {"tensor": MATRIX, "num_stages": 2, "stages": [np.abs, np.negative]},
        {
            "num_stages": COUNT,
            "axis": AXIS,
            "costs": wrong(RangeError, [1.0, 2.0, 3.0]),
            "stages": [
                *wrong(
                    DatatypeError, "text", 3, True, np.abs, {}, [1, 2], [None, None], [np.abs, np.ndarray], [{}, {}]
                ),
                *wrong(RangeError, [], [np.abs], [np.abs] * 3),
            ],
            "num_microbatches": or_none(COUNT),
            "schedule": word("zigzag"),
        },
    ),
    "gather": (
        zerocost.gather,
        {"tensors": [MATRIX, MATRIX]},
        {
            "tensors": [
                *wrong(DatatypeError, MATRIX, 3, None, {}, "text", [1, 2], [None], [MATRIX, MATRIX > 0], Stranger()),
                *wrong(RangeError, []),
                *wrong(ShapeError, [MATRIX, MATRIX[0]], [MATRIX, MATRIX[:2]]),
            ],
            "axis": AXIS,
        },
    ),
    "schedule": (
        zerocost.pipeline_schedule,
        {"num_stages": 2, "num_microbatches": 3},
        {
            "num_stages": COUNT,
            "num_microbatches": COUNT,
            "kind": word("zigzag"),
            "forward": DURATION,
            "backward": DURATION,
        },
    ),
    "threads": (zerocost.set_num_threads, {}, {"num_threads": [*COUNT, (1025, RangeError)]}),
}


def described(value):
    text = repr(value) if not isinstance(value, np.ndarray) else f"{value.dtype}{list(value.shape)}"
    return text if len(text) < 40 else f"{text[:37]}..."


CASES = [
    pytest.param(name, option, value, error, id=f"{name}-{option}-{described(value)}")
    for name, (_, _, options) in CALLS.items()
    for option, values in options.items()
    for value, error in values
]


@pytest.mark.parametrize(("name", "option", "value", "error"), CASES)
def test_wrong_values_are_named(name, option, value, error):
    call, given, _ = CALLS[name]
    options = {**given, option: value}
    if option == "temperature":
        options["normalization"] = "softmax"
    with pytest.raises(zerocost.ZerocostError) as raised:
        call(**options)
    assert type(raised.value) is error, raised.value
    assert raised.value.argument.partition("[")[0] == option, raised.value
    assert str(raised.value).startswith(option), raised.value


@pytest.mark.parametrize("name", CALLS)
def test_every_option_is_tested(name):
    call, _, _ = CALLS[name]
    checked = {option for other, _, options in CALLS.values() if other == call for option in options}
    # Any array may be cut.
    anything = {"tensor"} if name in ("cuts", "stages") else set()
    assert checked | anything == set(inspect.signature(call).parameters)


@pytest.mark.parametrize("ratio", [np.float32(0.7), np.float16(0.7), np.array(np.float32(0.7)), Decimal("0.7"), 0.7])
def test_a_ratio_means_the_number_that_it_prints_as(ratio):
    row = np.arange(1, 11, dtype=np.float64)[None]
    assert np.count_nonzero(SPARSE.process_attention(row, ratio)) == 3
    attended = FUSED.process_attention(np.ones((1, 1)), row.T, np.eye(10), sparsity_ratio=ratio)
    assert np.count_nonzero(attended) == 3


NUMBERS = [
    (np.float32(0.1), 0.1),
    (np.float16(0.1), 0.1),
    (np.float64(0.1), 0.1),
    (np.longdouble("0.1"), 0.1),
    (ml_dtypes.bfloat16(0.5), 0.5),
    (np.int8(3), 3.0),
    (np.uint64(2**63), 2.0**63),
    (np.array(np.float32(1e-3)), 1e-3),
    (np.array(7), 7.0),
    (3, 3.0),
    (Fraction(1, 4), 0.25),
]


@pytest.mark.parametrize(("given", "number"), NUMBERS)
def test_numbers_of_all_kinds_are_numbers(given, number):
    schedule = zerocost.pipeline_schedule(1, 1, forward=given, backward=0)
    assert schedule.items[0].duration == number
    query = np.array([[1.0, 0.5], [0.25, 2.0]])
    for option in ("scale", "softcap"):
        expected = FUSED.process_attention(query, query, query, **{option: number})
        assert FUSED.process_attention(query, query, query, **{option: given}).tobytes() == expected.tobytes()


def test_durations_may_be_an_array():
    expected = zerocost.pipeline_schedule(2, 4, forward=[0.1, 2.0], backward=[1.0, 3.0])
    forward, backward = np.array([0.1, 2.0], np.float32), np.array([1, 3])
    assert zerocost.pipeline_schedule(2, 4, forward=forward, backward=backward) == expected
    assert zerocost.pipeline_schedule(2, 4, forward=(0.1, 2.0), backward=backward) == expected
