"""``zerocost run``: inputs from files, standard input and parameters."""

import io
import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from support.command_line import FREE, MATRIX, SCALE


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors", "json"])
def test_single_array_of_any_form_is_the_main_input(doubled, tmp_path, suffix):
    path = tmp_path / f"matrix.{suffix}"
    if suffix == "npy":
        np.save(path, MATRIX)
    elif suffix == "npz":
        np.savez(path, MATRIX)
    elif suffix == "safetensors":
        save_file({"whatever": MATRIX}, path)
    else:
        path.write_text(json.dumps(MATRIX.tolist()))
    np.testing.assert_array_equal(doubled("--input", path), MATRIX * 2)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_named_arrays_are_bound_by_name(doubled, tmp_path, suffix):
    path = tmp_path / f"both.{suffix}"
    arrays = {"mask": MATRIX > 4, "attention_matrix": MATRIX}
    np.savez(path, **arrays) if suffix == "npz" else save_file(arrays, path)
    np.testing.assert_array_equal(doubled("-i", path), np.where(MATRIX > 4, MATRIX * 2, 0))


def test_several_inputs_names_and_picked_arrays(doubled, tmp_path, matrix_file):
    save_file({"one": MATRIX > 4, "two": MATRIX > 8}, tmp_path / "masks.safetensors")
    result = doubled("-i", matrix_file, "-i", "mask=masks.safetensors:two", "-p", "factor=3")
    np.testing.assert_array_equal(result, np.where(MATRIX > 8, MATRIX * 3, 0))


def test_file_whose_name_looks_like_a_binding(doubled, tmp_path):
    np.save(tmp_path / "mask=x.npy", MATRIX)
    np.testing.assert_array_equal(doubled("-i", "mask=x.npy"), MATRIX * 2)


def test_json_object_gives_inputs_by_name(doubled, tmp_path):
    (tmp_path / "input.json").write_text('{"attention_matrix": [[1, 2]], "factor": 5}')
    assert doubled("-i", "input.json").tolist() == [[5, 10]]


@pytest.mark.parametrize(
    "text", ['{"dtype": "float16", "shape": [1, 3], "data": [1, "NaN", "-Infinity"]}', '[[1, "NaN", "-Infinity"]]']
)
def test_json_tensors_hold_what_json_has_no_number_for(succeeds, tmp_path, text):
    (tmp_path / "typed.json").write_text(text)
    out = json.loads(succeeds("run", "scale", *SCALE, "-i", "typed.json", "--json"))
    assert out["processed_attention"] == [[2.0, "NaN", "-Infinity"]]


def test_standard_input_is_json(doubled, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"[[1, 2]]")))
    assert doubled("-i", "-").tolist() == [[2, 4]]


def test_parameters_are_json_and_otherwise_text(succeeds):
    given = ["-p", "a=1.5", "-p", "b=[1, 2]", "-p", "c=true", "-p", "d=text = more", "-p", 'e="1"', "-p", "f="]
    out = json.loads(succeeds("run", "free", *FREE, *given, "--json"))
    assert out == {"object": {"a": 1.5, "b": [1, 2], "c": True, "d": "text = more", "e": "1", "f": ""}}


def test_npy_files_are_mapped_and_not_changed(succeeds, tmp_path, matrix_file):
    before = (tmp_path / matrix_file).read_bytes()
    succeeds("run", "scale", *SCALE, "-i", matrix_file)
    assert (tmp_path / matrix_file).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-i", "missing.npy"], "missing.npy: no such file"),
        (["-i", "folder.npy"], "folder.npy: is a folder"),
        (["-i", "matrix.txt"], "suffix '.txt' was given, .npy, .npz, .safetensors, .json are allowed"),
        (["-i", "broken.npy"], "broken.npy: not a readable .npy file"),
        (["-i", "broken.npz"], "broken.npz: not a readable .npz file"),
        (["-i", "broken.safetensors"], "broken.safetensors: not a readable .safetensors file"),
        (["-i", "broken.json"], "broken.json: not JSON: no JSON value at byte 0"),
        (["-i", "latin.json"], "latin.json: not JSON: text that is not UTF-8 at byte 1"),
        (
            ["-i", "objects.npy"],
            "objects.npy: holds Python objects, which would have to be unpickled",
        ),
        (["-i", "objects.npz"], "objects.npz: holds Python objects, which would have to be unpickled"),
        (["-i", "bfloat16.npy"], "NumPy's files cannot hold bfloat16, .safetensors can"),
        (["-i", "two.npz:c"], "it holds no array 'c'; there are 'a', 'b'"),
        (["-i", "mask=two.npz"], "holds 2 arrays; choose one with mask=two.npz:ARRAY"),
        (["-i", "two.npz"], "two.npz: 'a', 'b' in it are not inputs (the inputs are attention_matrix, factor, mask)"),
        (["-i", "two.npz", "-i", "typo.json"], "two.npz:ARRAY"),
        (["-i", "typo.json"], "'facto' is not an input; did you mean 'factor'?"),
        (["-i", "ragged.json"], "error: scale: attention_matrix: ragged lists were given"),
        (["-i", "matrix.npy", "-i", "matrix.npy"], "attention_matrix is given twice"),
        (["-i", "matrix.npy", "-p", "factor=1", "-p", "factor=2"], "factor is given twice"),
        (["-i", "matrix.npy", "-p", "factor"], "NAME=VALUE is needed"),
        (["-i", "matrix.npy", "-p", "facto=2"], "'facto' is not an input; did you mean 'factor'?"),
        (["-i", "matrix.npy", "-p", "factor=-1"], "error: scale: factor: -1 is less than the minimum of 0"),
        (["-i", "matrix.npy", "-p", "factor=two"], 'factor: "two" is not of type "number"'),
        (["-p", "factor=1"], "attention_matrix required; inputs come from --input FILE and --param NAME=VALUE"),
        (
            ["-p", "attention_matrix=[[true, null]]"],
            "error: scale: attention_matrix: null was given among the elements",
        ),
        (["-p", 'attention_matrix={"dtype": "float31", "shape": [1], "data": [1]}'], "float31"),
        (["-p", 'attention_matrix={"dtype": "float32", "shape": [3], "data": [1]}'], "shape"),
        (["-p", 'attention_matrix={"dtype": "float32"}'], "attention_matrix"),
    ],
)
def test_wrong_inputs_are_refused(refused, tmp_path, matrix_file, arguments, reason):
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "matrix.txt").write_text("1")
    for suffix in ("npy", "npz", "safetensors", "json"):
        (tmp_path / f"broken.{suffix}").write_text("this is none")
    (tmp_path / "latin.json").write_bytes('"\xe9"'.encode("latin-1"))
    (tmp_path / "typo.json").write_text('{"attention_matrix": [[1]], "facto": 1}')
    (tmp_path / "ragged.json").write_text("[[1, 2], [3]]")
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", x=np.array([None]))
    np.save(tmp_path / "bfloat16.npy", np.zeros(2, ml_dtypes.bfloat16))
    np.savez(tmp_path / "two.npz", a=MATRIX, b=MATRIX)
    assert reason in refused("run", "scale", *SCALE, *arguments)


def test_all_input_errors_are_reported_together(refused):
    text = refused("run", "scale", *SCALE, "-p", "facto=2", "-p", "factor=-1")
    assert "'facto' is not an input" in text
    assert "attention_matrix required" in text
    assert "factor: -1" in text
