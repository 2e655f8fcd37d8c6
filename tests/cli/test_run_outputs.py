"""``zerocost run``: the summary, and results in files."""

import json
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from support.command_line import FAILS, FREE, MATRIX, SCALE, SPLIT
from zerocost.core.datatypes import datatype_of
from zerocost.core.safetensors import from_bytes


def test_summary_shows_dtype_shape_bytes_range_and_small_arrays_whole(succeeds, matrix_file):
    text = succeeds("run", "scale", *SCALE, "-i", matrix_file)
    row = next(line for line in text.splitlines() if line.startswith("processed_attention "))
    assert row.split() == ["processed_attention", "float32", "[4,", "3]", "48", "B", "0", "11", "22", "8.3", "%"]
    assert "[18. 20. 22.]" in text
    assert "artifact_used  scale" in text


def test_summary_of_what_has_no_range(succeeds, tmp_path):
    save_file(
        {"a": np.zeros((0, 3)), "b": np.full(2, np.nan), "c": np.array([1, np.inf]), "d": MATRIX > 3},
        tmp_path / "odd.safetensors",
    )
    text = succeeds("run", "free", *FREE, "-i", "odd.safetensors")
    rows = {
        line.split()[0]: line.split()[1:]
        for line in text.splitlines()
        if line.startswith("object.") and "=" not in line
    }
    assert rows["object.a"] == ["float64", "[0,", "3]", "0", "B"]
    assert rows["object.b"] == ["float64", "[2]", "16", "B", "2", "NaN", "0.0", "%"]
    assert rows["object.c"] == ["float64", "[2]", "16", "B", "1", "1", "inf", "0.0", "%"]
    assert rows["object.d"] == ["bool", "[4,", "3]", "12", "B", "0", "0.6667", "1", "33.3", "%"]


def test_npy_holds_the_main_output(succeeds, tmp_path, matrix_file):
    assert "written to out.npy" in succeeds("run", "scale", *SCALE, "-i", matrix_file, "--out", "out.npy")
    written = np.load(tmp_path / "out.npy")
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, MATRIX * 2)


def test_lists_are_numbered_in_npz(succeeds, tmp_path, matrix_file):
    succeeds("run", "split", *SPLIT, "-i", matrix_file, "-p", "axis=0", "--out", "parts.npz")
    with np.load(tmp_path / "parts.npz", allow_pickle=False) as written:
        assert written.files == ["result.0", "result.1"]
        np.testing.assert_array_equal(np.concatenate([written["result.0"], written["result.1"]]), MATRIX)


def test_safetensors_holds_everything_and_comes_back(succeeds, doubled, tmp_path):
    half = np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3)
    save_file({"x": half}, tmp_path / "half.safetensors")
    # Along the last axis the parts are views with gaps: their elements must be written, not their memory.
    succeeds("run", "split", *SPLIT, "-i", "half.safetensors", "-p", "num_splits=3", "-o", "parts.safetensors")
    with safe_open(tmp_path / "parts.safetensors", "np") as file:
        parts = [file.get_tensor(f"result.{index}") for index in range(3)]
        assert json.loads(file.metadata()["json"]) == {"artifact_used": "split"}
    assert {part.dtype.name for part in parts} == {"bfloat16"}
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), half)
    assert doubled("-i", "parts.safetensors:result.1").tolist() == [[2], [8]]


def test_a_safetensors_file_is_a_message_of_the_core(succeeds, tmp_path):
    """Values that are no tensors come back: through the core's reader, and as inputs of the next call."""
    given = ["-p", "count=3", "-p", 'words=["a", "b"]', "-p", "nothing=null"]
    np.save(tmp_path / "array.npy", MATRIX)
    succeeds("run", "free", *FREE, "-i", "array=array.npy", *given, "-o", "all.safetensors")
    values = from_bytes((tmp_path / "all.safetensors").read_bytes())
    np.testing.assert_array_equal(values.pop("object.array"), MATRIX)
    assert values == {"object.count": 3, "object.words": ["a", "b"], "object.nothing": None}
    back = json.loads(succeeds("run", "free", *FREE, "-i", "all.safetensors", "--json"))["object"]
    assert back == {**values, "object.array": MATRIX.tolist()}


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_a_written_list_comes_back_as_a_list(succeeds, tmp_path, matrix_file, suffix):
    succeeds("run", "split", *SPLIT, "-i", matrix_file, "-p", "num_splits=3", "-o", f"parts.{suffix}")
    back = json.loads(succeeds("run", "free", *FREE, "-i", f"parts.{suffix}", "--json"))["object"]
    assert back["result"] == [part.tolist() for part in np.split(MATRIX, 3, axis=-1)]
    back = json.loads(succeeds("run", "free", *FREE, "-i", f"x=parts.{suffix}:result", "--json"))["object"]
    assert back["x"] == [part.tolist() for part in np.split(MATRIX, 3, axis=-1)]


def test_a_file_of_another_writer_keeps_its_names(succeeds, tmp_path):
    save_file({"layer.1": MATRIX, "layer.7": MATRIX}, tmp_path / "layers.safetensors")
    back = json.loads(succeeds("run", "free", *FREE, "-i", "layers.safetensors", "--json"))["object"]
    assert back == {"layer.1": MATRIX.tolist(), "layer.7": MATRIX.tolist()}


def test_written_result_is_a_main_input_of_the_next_run(succeeds, doubled, matrix_file):
    succeeds("run", "scale", *SCALE, "-i", matrix_file, "-o", "once.safetensors")
    np.testing.assert_array_equal(doubled("-i", "once.safetensors"), MATRIX * 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.bool_])
def test_json_files_lose_nothing(succeeds, tmp_path, dtype):
    array = (np.random.default_rng(1).standard_normal((3, 4)) * 100).astype(dtype)
    save_file({"x": array}, tmp_path / "x.safetensors")
    succeeds("run", "split", *SPLIT, "-i", "x.safetensors", "-p", "num_splits=1", "-o", "x.json")
    typed = json.loads((tmp_path / "x.json").read_text())["result"][0]
    assert typed["dtype"] == datatype_of(array.dtype)
    (tmp_path / "typed.json").write_text(json.dumps(typed))
    succeeds("run", "split", *SPLIT, "-i", "typed.json", "-p", "num_splits=1", "-o", "back.safetensors")
    with safe_open(tmp_path / "back.safetensors", "np") as file:
        back = file.get_tensor("result.0")
    assert (back.dtype, back.tobytes()) == (array.dtype, array.tobytes())


@pytest.mark.parametrize(
    ("artifact", "out", "reason"),
    [
        ("scale", "out.txt", "suffix '.txt' was given"),
        ("scale", "folder.npy", "folder.npy is a folder"),
        ("scale", "nowhere/out.npy", "there is no folder nowhere"),
        ("split", "out.npy", ".npy holds one array, and 'result' is not an array; use .npz or .safetensors"),
        ("text", "out.npz", ".npz holds arrays, and the result has none"),
        ("half", "out.npz", ".npz cannot hold 'processed_attention' of dtype bfloat16; use .safetensors"),
        ("half", "out.npy", ".npy cannot hold 'processed_attention' of dtype bfloat16; use .safetensors"),
        ("complex", "out.safetensors", "complex128"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(refused, tmp_path, matrix_file, artifact, out, reason):
    (tmp_path / "folder.npy").mkdir()
    save_file({"x": np.zeros(2, ml_dtypes.bfloat16)}, tmp_path / "half.safetensors")
    np.save(tmp_path / "complex.npy", np.zeros(2, complex))
    arguments = {
        "scale": ["scale", *SCALE, "-i", matrix_file],
        "split": ["split", *SPLIT, "-i", matrix_file],
        "text": ["free", *FREE, "-p", "a=1"],
        "half": ["scale", *SCALE, "-i", "half.safetensors"],
        "complex": ["split", *SPLIT, "-i", "complex.npy"],
    }[artifact]
    before = sorted(tmp_path.iterdir())
    assert reason in refused("run", *arguments, "--out", out)
    assert sorted(tmp_path.iterdir()) == before


def test_destination_is_checked_before_the_computation(refused, matrix_file):
    assert "suffix" in refused("run", "fails", *FAILS, "-i", matrix_file, "--out", "x.txt")


def test_archive_members_may_have_any_name(succeeds, tmp_path):
    np.savez(tmp_path / "in.npz", x=MATRIX)
    succeeds("run", "free", *FREE, "-i", "file=in.npz", "-o", "out.npz")
    assert zipfile.ZipFile(tmp_path / "out.npz").namelist() == ["object.file.npy"]
