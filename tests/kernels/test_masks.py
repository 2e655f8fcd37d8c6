"""A list of 0 and 1 as a mask may select keys or be added to scores: it is refused on every call path."""

import json

import numpy as np
import pytest

import zerocost
from zerocost import DatatypeError, default_registry
from zerocost._kernels import read_json

QUERY = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
REGISTRY = default_registry()
SPEC = REGISTRY["scaled_dot_product_attention"]
EITHER = [
    [[1, 1, 0]] * 3,
    [[1.0, 1.0, 0.0]] * 3,
    [[1, 1, 1]],
    [[0, 0, 1.0]],
    [[True, 1, 0]] * 3,
    [[0, True, 1]] * 3,
    [[False, 0, True]] * 3,
    [1, 0, 1],
]
CLEAR = {
    "booleans": [[True, True, False]] * 3,
    "zeros": [[0, 0, 0]] * 3,
    "floats": [[0.0, -1.5, 1.0]] * 3,
    "whole numbers": [[0, 1, 2]] * 3,
    "nothing": [[0.0, -1e30, 1]],
}


def attended(mask):
    attention = SPEC.implementation.process_attention
    return attention(QUERY, QUERY, QUERY, attn_mask=mask).tolist()


@pytest.mark.parametrize("mask", EITHER)
def test_lists_of_zero_and_one_are_refused_on_every_call_path(mask, serve):
    inputs = {"query": QUERY, "key": QUERY, "value": QUERY, "attn_mask": mask}
    context = zerocost.ExecutionContext("any", "attention", "zero_cost", {})
    for call in (
        lambda: attended(mask),
        lambda: SPEC.implementation.execute(inputs, context),
        lambda: read_json(json.dumps(inputs).encode(), SPEC.ports.lists),
    ):
        with pytest.raises(DatatypeError, match=r"^attn_mask: ") as raised:
            call()
        assert [where for where, _ in raised.value.errors] == ["/attn_mask"]
    [(where, _)] = SPEC.ports.errors(inputs)
    assert where == "/attn_mask"
    answer = serve().post("/artifacts/scaled_dot_product_attention/execute", json=inputs)
    assert (answer.status_code, answer.json()["code"]) == (422, "datatype")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/attn_mask"]


def test_the_error_advises_to_be_explicit():
    for call in (
        lambda: attended([[1, 1, 0]]),
        lambda: read_json(b'{"attn_mask": [[1, 1, 0]]}', SPEC.ports.lists),
    ):
        with pytest.raises(DatatypeError, match=r"0 and 1 was given.* say True and False \(in JSON true and false\)"):
            call()
    for dtype in (np.int64, np.uint8, np.int8):
        with pytest.raises(DatatypeError, match=r"array\.astype\(bool\)") as raised:
            attended(np.array([[1, 1, 0]] * 3, dtype))
        assert "float32" not in str(raised.value).partition("allowed")[2]


@pytest.mark.parametrize("name", CLEAR)
def test_unambiguous_masks_are_taken(name):
    mask = CLEAR[name]
    array = np.array(mask) if name == "booleans" else np.array(mask, np.float64)
    expected = attended(array)
    assert attended(mask) == expected
    read = read_json(json.dumps({"attn_mask": mask}).encode(), SPEC.ports.lists)["attn_mask"]
    assert (read.dtype, read.tolist()) == (array.dtype, array.tolist())


def test_arrays_of_floats_and_typed_tensors_are_added():
    ones = np.array([[1.0, 1.0, 0.0]] * 3)
    assert attended(ones) != attended(ones.astype(bool))
    typed = {"dtype": "FP64", "shape": [3, 3], "data": [1, 1, 0] * 3}
    read = read_json(json.dumps({"attn_mask": typed}).encode(), SPEC.ports.lists)["attn_mask"]
    assert attended(read) == attended(ones)


def test_other_tensors_are_not_masks():
    table = REGISTRY["tensor_parallel"].ports.lists | REGISTRY["sparse_attention"].ports.lists
    read = read_json(b'{"tensor": [1, 0, 1], "attention_matrix": [[1, 0]]}', table)
    assert (read["tensor"].tolist(), read["attention_matrix"].tolist()) == ([1, 0, 1], [[1, 0]])
    call = REGISTRY["sparse_attention"].implementation.process_attention
    assert call([[1, 0], [0, 1]], 0.0).tolist() == [[1, 0], [0, 1]]
