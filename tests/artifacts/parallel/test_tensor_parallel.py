"""Shards are views that numpy.array_split would cut; sharded layers give the unsplit product; gather puts back."""

import array
import runpy

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import zerocost
from support.arrays import Borrowed
from support.contract import ArtifactContract, context
from support.equality import same
from support.paths import ROOT
from zerocost import _kernels
from zerocost.artifacts.parallel.gather import gather
from zerocost.artifacts.parallel.tensor_parallel import TensorParallelArtifact
from zerocost.core.copies import counting_copies

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def split(tensor, **parameters):
    result = TensorParallelArtifact().execute({"tensor": tensor, **parameters}, context("tensor_parallel"))
    assert result["artifact_used"] == "tensor_parallel"
    return result["result"]


def assert_views(parts, tensor, expected):
    assert isinstance(parts, list)
    assert len(parts) == len(expected)
    for part, other in zip(parts, expected, strict=True):
        assert part.strides == other.strides
        assert part.dtype is tensor.dtype
        assert part.__array_interface__["data"] == other.__array_interface__["data"]
        np.testing.assert_array_equal(part, other)
        assert part.size == 0 or np.shares_memory(part, tensor)


class TestContract(ArtifactContract):
    def make(self):
        return TensorParallelArtifact()


class TestContractWithAWeight(TestContract):
    def example(self, artifact):
        rng = np.random.default_rng(1)
        return {"tensor": rng.standard_normal((3, 4)), "weight": rng.standard_normal((4, 5)), "num_splits": 3}


# Splitting


@st.composite
def any_array(draw):
    """Any dtype, any rank, any basic strides."""
    dtype = draw(hnp.scalar_dtypes() | hnp.array_dtypes() | st.just(np.dtype(object)))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=7))
    values = np.zeros(shape, dtype)
    steps = draw(st.tuples(*[st.sampled_from([slice(None), slice(None, None, -1), slice(1, None, 2)])] * len(shape)))
    axes = draw(st.permutations(range(len(shape))))
    return values[steps].transpose(axes)


@given(tensor=any_array(), num_splits=st.integers(1, 9), data=st.data())
def test_shards_are_those_of_numpy(tensor, num_splits, data):
    axis = data.draw(st.integers(-tensor.ndim, tensor.ndim - 1))
    assert_views(split(tensor, num_splits=num_splits, axis=axis), tensor, np.array_split(tensor, num_splits, axis))


@pytest.mark.parametrize("dtype", [*FLOATS, np.int8, bool, "U3", ">i4", "datetime64[s]", object, complex])
def test_shards_of_any_dtype_are_views(dtype):
    tensor = np.arange(24).reshape(4, 6).astype(dtype)
    parts = split(tensor)
    assert_views(parts, tensor, np.array_split(tensor, 2, -1))
    parts[0][0, 0] = tensor[3, 5]
    assert tensor[0, 0] == tensor[3, 5], "a view writes through"


def test_read_only_arrays_give_read_only_views():
    tensor = np.zeros(4)
    tensor.flags.writeable = False
    assert not any(part.flags.writeable for part in split(tensor))
    assert not any(part.flags.writeable for part in split(np.broadcast_to(1.0, (3, 4))))


def test_a_subclass_slices_itself():
    class Labelled(np.ndarray):
        """An array that is more than an array."""

    labelled = np.arange(3.0).view(Labelled)
    parts = split(labelled)
    assert [type(part) for part in parts] == [Labelled, Labelled]
    assert [part.tolist() for part in parts] == [[0.0, 1.0], [2.0]]


def test_a_masked_array_is_refused():
    with pytest.raises(TypeError, match=r"array.filled\("):
        split(np.ma.array([1.0, 2.0, 3.0], mask=[True, False, True]))


def test_nothing_is_copied():
    with counting_copies() as copied:
        split(np.zeros((64, 64), np.float32), num_splits=3)
    assert copied.bytes == 0


def test_lists_become_one_float64_array_and_are_counted():
    with counting_copies() as copied:
        first, second = split([[1, 2, 3], [4, 5, 6]], num_splits=2)
    assert copied.bytes == 48
    assert first.dtype == np.float64
    assert first.tolist() == [[1.0, 2.0], [4.0, 5.0]]
    assert second.tolist() == [[3.0], [6.0]]
    assert first.base is second.base is not None


@pytest.mark.parametrize("wrap", [Borrowed, memoryview, lambda values: array.array("f", values)])
def test_other_arrays_are_borrowed(wrap):
    values = np.arange(6.0, dtype=np.float32)
    wrapped = wrap(values)
    memory = values if not isinstance(wrapped, array.array) else np.frombuffer(wrapped, np.float32)
    first, second = split(wrapped)
    assert np.shares_memory(first, memory)
    assert second.tolist() == [3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"num_splits": 0}, zerocost.RangeError, "num_splits: 0 is less than the minimum of 1"),
        ({"num_splits": -3}, zerocost.RangeError, "num_splits: -3 is less than the minimum of 1"),
        ({"num_splits": 10**30}, zerocost.RangeError, "num_splits: 1000000000000000000000000000000 was given"),
        ({"num_splits": True}, zerocost.DatatypeError, "num_splits: true is not of type"),
        ({"num_splits": 2.0}, zerocost.DatatypeError, "num_splits: 2.0 was given, a whole number is needed"),
        ({"num_splits": "2"}, zerocost.DatatypeError, r"num_splits: .2. is not of type"),
        ({"num_splits": None}, zerocost.DatatypeError, "num_splits: null is not of type"),
        ({"num_splits": np.True_}, zerocost.DatatypeError, "num_splits: true is not of type"),
        ({"axis": 2}, zerocost.RangeError, "axis: 2 was given, an axis that the tensor has"),
        ({"axis": -3}, zerocost.RangeError, "axis: -3 was given"),
        ({"axis": 0.0}, zerocost.DatatypeError, "axis: 0.0 was given, a whole number is needed"),
        ({"bias": np.zeros(3)}, zerocost.RangeError, "bias: a bias was given without a weight"),
    ],
)
def test_invalid_splits_are_refused(parameters, error, message):
    with pytest.raises(error, match=message) as caught:
        split(np.zeros((2, 3)), **parameters)
    assert caught.value.argument in parameters


@pytest.mark.parametrize(
    ("tensor", "error", "message"),
    [
        (np.array(1.0), zerocost.ShapeError, "tensor: rank 0 was given, at least 1 is needed"),
        ([[1.0], [1.0, 2.0]], zerocost.ShapeError, "tensor: ragged lists"),
        (3.0, zerocost.DatatypeError, "tensor: float was given"),
        ("abc", zerocost.DatatypeError, "tensor: str was given"),
    ],
)
def test_values_that_are_not_tensors_are_refused(tensor, error, message):
    with pytest.raises(error, match=message):
        split(tensor)


def test_numpy_integers_count():
    assert len(split(np.zeros(6), num_splits=np.int64(3), axis=np.int8(0))) == 3


def test_a_number_that_json_schema_refuses():
    artifact = TensorParallelArtifact()
    assert artifact.validate_input({"tensor": [[1.0]], "num_splits": 3})
    assert [pointer for pointer, _ in artifact.input_errors({"tensor": [1.0], "num_splits": 0})] == ["/num_splits"]
    assert [pointer for pointer, _ in artifact.input_errors({"tensor": [1.0], "mode": "both"})] == ["/mode"]


def test_onnx_node_cases(monkeypatch):
    """The Split cases of the ONNX standard whose lengths are those of numpy.array_split."""
    cases = pytest.importorskip("onnx.backend.test.case.node.split")
    seen = []

    def expect(node, inputs, outputs, name, **_):
        lengths = inputs[1].tolist() if len(inputs) > 1 else None
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        axis = attributes.get("axis", 0)
        plain = [part.shape[axis] for part in np.array_split(inputs[0], len(outputs), axis)]
        if lengths is not None and lengths != plain:
            return
        seen.append(name)
        parts = split(inputs[0], num_splits=len(outputs), axis=axis)
        for part, output in zip(parts, outputs, strict=True):
            np.testing.assert_array_equal(part, output)
            assert part.dtype == output.dtype

    monkeypatch.setattr(cases, "expect", expect)
    for name in dir(cases.Split):
        if name.startswith("export"):
            getattr(cases.Split, name)()
    assert len(seen) >= 8, seen


# Sharded linear layers


def operands(dtype, shape, d_out, *, bias=True, seed=0):
    rng = np.random.default_rng(seed)
    make = lambda *size: rng.standard_normal(size).astype(dtype)  # noqa: E731 (three lines of the same)
    return {"tensor": make(*shape), "weight": make(shape[-1], d_out), **({"bias": make(d_out)} if bias else {})}


def assert_product(result, data):
    """Equal to the unsplit product up to rounding, relative to |x|·|w|."""
    wide = {name: value.astype(np.float64) for name, value in data.items()}
    bias = wide.get("bias", np.zeros(1))
    expected = wide["tensor"] @ wide["weight"] + bias
    scale = np.abs(wide["tensor"]) @ np.abs(wide["weight"]) + np.abs(bias)
    dtype = data["tensor"].dtype
    rounding = {8: 1e-14, 4: 1e-6, 2: 1e-6}[dtype.itemsize]
    if dtype.itemsize == 2:
        # Computed in float32, then rounded once.
        scale = scale * rounding + np.abs(expected) * float(ml_dtypes.finfo(dtype).eps)
        rounding = 1.0
    assert result.dtype == dtype
    assert result.shape == expected.shape
    assert (np.abs(result.astype(np.float64) - expected) <= rounding * scale).all()


@pytest.mark.parametrize("mode", ["column", "row"])
@pytest.mark.parametrize("dtype", FLOATS)
@given(
    shape=hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9),
    d_out=st.integers(0, 9),
    num_splits=st.integers(1, 5),
    bias=st.booleans(),
)
def test_the_result_is_the_unsplit_product(mode, dtype, shape, d_out, num_splits, bias):
    data = operands(dtype, shape, d_out, bias=bias)
    result = split(**data, num_splits=num_splits, mode=mode)
    assert_product(result, data)


@pytest.mark.parametrize("mode", ["column", "row"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_large_products_of_any_layout(mode, dtype):
    data = operands(dtype, (3, 200, 700), 600)
    expected = split(**data, num_splits=3, mode=mode)
    assert_product(expected, data)
    other = {
        "tensor": np.asfortranarray(data["tensor"][::-1])[::-1],
        "weight": np.ascontiguousarray(data["weight"].T[::-1]).T[:, ::-1],
        "bias": np.repeat(data["bias"], 2)[::2],
    }
    assert all(np.array_equal(other[name], data[name]) for name in data)
    assert_product(split(**other, num_splits=3, mode=mode), data)


def test_the_bits_do_not_depend_on_the_number_of_threads():
    data = operands(np.float32, (600, 300), 700)
    before = _kernels.num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            _kernels.set_num_threads(threads)
            results.append([split(**data, num_splits=3, mode=mode) for mode in ("column", "row")])
    finally:
        _kernels.set_num_threads(before)
    assert same(results[0], results[1])
    assert same(results[0], results[2])


def test_column_shards_left_apart_are_views_of_one_array():
    data = operands(np.float32, (5, 8), 7)
    parts = split(**data, num_splits=3, gather=False)
    assert [part.shape for part in parts] == [(5, 3), (5, 2), (5, 2)]
    joined = gather(parts)
    assert np.shares_memory(joined, parts[0])
    assert same(joined, split(**data, num_splits=3))


def test_inputs_are_not_changed():
    data = operands(np.float16, (4, 6), 3)
    before = {name: value.copy() for name, value in data.items()}
    split(**data, mode="row")
    assert same(data, before)


def test_lists_are_multiplied_too():
    assert split([[1, 2]], weight=[[1, 0, 1], [0, 1, 1]], bias=[10, 20, 30]).tolist() == [[11.0, 22.0, 33.0]]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "both"}, zerocost.RangeError, r"mode: .both. was given"),
        ({"mode": 3}, zerocost.DatatypeError, "mode: 3 was given"),
        ({"mode": np.zeros(2)}, zerocost.DatatypeError, r"mode: .* was given"),
        ({"gather": "no"}, zerocost.DatatypeError, r"gather: .no. is not of type .boolean."),
        ({"num_splits": 10**13}, zerocost.RangeError, "num_splits: 10000000000000 was given, at most 16777216"),
    ],
)
def test_unused_options_are_checked_too(options, error, message):
    with pytest.raises(error, match=message):
        split(np.zeros(4), **options)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weight": np.zeros((3, 3))}, zerocost.ShapeError, r"weight: shape \[3, 3\] was given, \[6, d_out\]"),
        ({"weight": np.zeros(6)}, zerocost.ShapeError, r"weight: shape \[6\] was given, \[d_in, d_out\]"),
        (
            {"bias": np.zeros(5)},
            zerocost.ShapeError,
            r"bias: shape \[5\] was given.* d_out = 3",
        ),
        ({"tensor": np.zeros(())}, zerocost.ShapeError, "tensor: rank 0 was given"),
        ({"weight": np.zeros((6, 3), np.float32)}, zerocost.DatatypeError, "weight: dtype float32 was given"),
        ({"bias": np.zeros(3, np.float16)}, zerocost.DatatypeError, "bias: dtype float16 was given"),
        ({"tensor": np.zeros((4, 6), int)}, zerocost.DatatypeError, "tensor: dtype int64 was given"),
        ({"mode": "both"}, zerocost.RangeError, r"mode: .both. was given, .column., .row. is allowed"),
        ({"mode": 3}, zerocost.DatatypeError, r"mode: 3 was given, .column., .row. is allowed"),
        ({"gather": "no"}, zerocost.DatatypeError, r"gather: .no. is not of type .boolean."),
        ({"num_splits": 10**13}, zerocost.RangeError, "num_splits: 10000000000000 was given, at most 16777216"),
        ({"mode": "row", "gather": False}, zerocost.RangeError, "gather: False was given"),
        ({"axis": 0}, zerocost.RangeError, "axis: 0 was given, with a weight -1"),
        ({"num_splits": 0}, zerocost.RangeError, "num_splits: 0 is less than the minimum of 1"),
    ],
)
def test_a_layer_that_does_not_fit_is_refused(change, error, message):
    with pytest.raises(error, match=message) as caught:
        split(**{**operands(np.float64, (4, 6), 3), **change})
    assert caught.value.argument in change


# Gathering


@given(tensor=any_array(), num_splits=st.integers(1, 9), data=st.data())
def test_gather_is_the_inverse_of_split(tensor, num_splits, data):
    axis = data.draw(st.integers(-tensor.ndim, tensor.ndim - 1))
    joined = gather(split(tensor, num_splits=num_splits, axis=axis), axis)
    assert joined.shape == tensor.shape
    assert joined.dtype == tensor.dtype
    np.testing.assert_array_equal(joined, tensor)
    if tensor.size:
        assert np.shares_memory(joined, tensor)
        assert joined.__array_interface__["data"] == tensor.__array_interface__["data"]


def test_a_gathered_view_keeps_its_memory_and_writes_through():
    root = np.zeros((3, 4))
    joined = gather(np.array_split(root, 2, 1))
    assert joined.base is root
    joined[0, 3] = 70.0
    assert root[0, 3] == 70.0
    joined = gather(np.array_split(np.arange(1000.0), 3))
    assert joined.sum() == 499500.0


def test_parts_of_a_slice_are_joined_to_that_slice():
    root = np.arange(40).reshape(4, 10)
    joined = gather([root[1:3, 2:4], root[1:3, 4:4], root[1:3, 4:9]])
    assert np.shares_memory(joined, root)
    assert joined.tolist() == root[1:3, 2:9].tolist()


def test_a_read_only_part_makes_the_view_read_only():
    parts = np.array_split(np.zeros(4), 2)
    parts[1].flags.writeable = False
    assert not gather(parts).flags.writeable


@pytest.mark.parametrize(
    "parts",
    [
        lambda root: [root[2:], root[:2]],
        lambda root: [root[:2], root[3:]],
        lambda root: [root[:2], root[2:].copy()],
        lambda root: [root[:2], root[:2]],
        lambda root: [root[::2], root[1::2]],
        lambda root: [root[:2].tolist(), root[2:].tolist()],
    ],
)
def test_anything_else_is_a_counted_copy(parts):
    root = np.arange(6.0)
    arrays = parts(root)
    with counting_copies() as copied:
        joined = gather(arrays)
    assert copied.bytes >= joined.nbytes
    assert not np.shares_memory(joined, root)
    assert joined.tolist() == np.concatenate([np.asarray(part) for part in arrays]).tolist()


def test_neighbours_of_different_roots_are_copied():
    # One buffer, but NumPy does not know that both arrays are views of it.
    memory = bytearray(16)
    parts = [np.frombuffer(memory, np.uint8, 8), np.frombuffer(memory, np.uint8, 8, offset=8)]
    assert not np.shares_memory(gather(parts), parts[0])


@pytest.mark.parametrize(
    ("tensors", "axis", "error", "message"),
    [
        ([], -1, zerocost.RangeError, "tensors: none was given, at least one array is allowed"),
        (np.zeros((2, 2)), -1, zerocost.DatatypeError, "tensors: ndarray was given"),
        (None, -1, zerocost.DatatypeError, "tensors: NoneType was given"),
        ([np.zeros(2), np.zeros(2, np.float32)], -1, zerocost.DatatypeError, "dtypes float64 and float32"),
        ([np.zeros((2, 2)), np.zeros((3, 2))], 1, zerocost.ShapeError, r"tensors: shape \[3, 2\] was given"),
        ([np.zeros(2), np.zeros((2, 2))], 0, zerocost.ShapeError, r"tensors: shape \[2, 2\] was given"),
        ([np.zeros(2)], 1, zerocost.RangeError, "axis: 1 was given"),
        ([np.zeros(2)], 0.5, zerocost.DatatypeError, "axis: float 0.5 was given"),
        ([np.zeros(())], 0, zerocost.ShapeError, "rank 0 was given"),
        ([1.0], 0, zerocost.DatatypeError, r"tensors\[0\]: float was given"),
    ],
)
def test_parts_that_cannot_be_gathered_are_refused(tensors, axis, error, message):
    with pytest.raises(error, match=message):
        gather(tensors, axis)


def test_the_example_of_a_chain_over_shards(capsys):
    example = ROOT / "examples" / "sharded_chain.py"
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == [
        "softcap: 4,194,304 bytes copied, to join the shards' results",
        "latest: 0 bytes copied, the result is a view of the tensor",
    ]
