"""The safetensors format: what the module writes its reader and the format's own library read, and the reverse."""

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import zerocost
from support.contract import same
from support.safetensors import message
from zerocost.core import safetensors

TENSORS = {
    "flag": np.array([True, False, True]),
    "half": np.ones((2, 3), ml_dtypes.bfloat16),
    "strided": np.arange(12.0).reshape(3, 4).T,
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 3), np.int64),
    "complex": np.array([1 + 2j], np.complex64),
}


def test_files_are_the_library_s(tmp_path):
    safetensors.write(tmp_path / "ours", TENSORS, {"json": "{}"})
    assert same(load_file(tmp_path / "ours"), TENSORS)
    save_file({name: np.ascontiguousarray(array) for name, array in TENSORS.items()}, tmp_path / "theirs", {"a": "b"})
    with (tmp_path / "theirs").open("rb") as file:
        read = safetensors.Message.of_file(file)
    assert read.metadata == {"a": "b"}
    for name, array in TENSORS.items():
        found = read.array(name)
        assert not found.flags.writeable
        assert same(found.reshape(array.shape), np.ascontiguousarray(array).reshape(array.shape))


def test_every_tensor_of_a_file_is_aligned(tmp_path):
    safetensors.write(tmp_path / "ours", TENSORS, {})
    read = safetensors.Message((tmp_path / "ours").read_bytes())
    start = len(read.data) - sum(slot.nbytes for slot in read.slots.values())
    assert all((start + slot.begin) % slot.dtype.itemsize == 0 for slot in read.slots.values())


def test_what_the_format_cannot_hold_is_named_and_nothing_is_written(tmp_path):
    for array in (np.array(["text"]), np.zeros(2, ">f4"), np.zeros(2, complex)):
        with pytest.raises(zerocost.DatatypeError, match=f"wrong: dtype {array.dtype}"):
            safetensors.write(tmp_path / "file", {"good": np.zeros(1), "wrong": array}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_dtype_that_no_array_has_is_refused_when_it_is_read():
    read = safetensors.Message(message({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, b"12"))
    assert read.raw("a").tobytes() == b"12"
    with pytest.raises(zerocost.DatatypeError, match="a: dtype 'F8_E4M3' is not one of F64"):
        read.array("a")


def test_a_list_of_several_dtypes_comes_back_in_order(tmp_path):
    """A file has the widest numbers first."""
    values = {"list": [np.zeros(2, np.float32), np.ones(1), np.ones(3, np.float16)]}
    safetensors.write(tmp_path / "file", safetensors.split_values(values)[0], {})
    assert same(safetensors.from_bytes((tmp_path / "file").read_bytes()), values)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a.0"], "a: given as a tensor and as a list"),
        (["a.0", "a"], "a: given as a tensor and as a list"),
        (["a.0", "a.2"], r"a\.2: the elements of a list must be numbered from 0 without a gap"),
        (["a.1"], r"a\.1: the elements of a list must be numbered"),
        (["a." + "9" * 5000], r"a\.9+: the elements of a list must be numbered"),
    ],
)
def test_elements_without_their_list_are_refused(names, message):
    with pytest.raises(zerocost.ShapeError, match=message):
        safetensors.grouped(dict.fromkeys(names, np.zeros(1)))


def test_values_come_back():
    values = {"array": np.arange(3), "list": [np.zeros(2), np.ones(1)], "text": "x", "number": 1.5}
    tensors, others = safetensors.split_values(values)
    assert others == {"text": "x", "number": 1.5}
    data = b"".join(safetensors.to_pieces(tensors, '{"text": "x", "number": 1.5}'))
    assert same(safetensors.from_bytes(data), values | {})
    for length in (0, 7, 20, len(data) - 1):
        with pytest.raises((zerocost.ShapeError, zerocost.MalformedJSON)):
            safetensors.from_bytes(data[:length])
