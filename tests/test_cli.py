import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import zerocost
from zerocost.cli import main
from zerocost.core.arrays import datatype_of

SCALE = ["--artifact", "scale=cli_artifacts:Scale"]
SPLIT = ["--artifact", "split=cli_artifacts:Split"]
FREE = ["--artifact", "free=cli_artifacts:Free"]
FAILS = ["--artifact", "fails=cli_artifacts:Fails"]
PIPELINE = [{"artifact": "scale", "id": "double"}, {"artifact": "split", "params": {"axis": 0}}]
MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Runs the command line in an empty folder; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def succeeds(cli):
    def run(*arguments):
        code, out, err = cli(*arguments)
        assert (code, err) == (0, "")
        return out

    return run


@pytest.fixture
def refused(cli):
    """Runs what must be refused: exit code 2, nothing on stdout, one line on stderr."""

    def run(*arguments, code=2):
        given, out, err = cli(*arguments)
        assert (given, out) == (code, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    return run


@pytest.fixture
def matrix_file(tmp_path):
    np.save(tmp_path / "matrix.npy", MATRIX)
    return "matrix.npy"


def subprocess_of(*arguments, cwd, **options):
    return subprocess.run(
        [sys.executable, "-m", "zerocost", *arguments], cwd=cwd, text=True, capture_output=True, timeout=60, **options
    )


# The command itself


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command(succeeds, arguments):
    text = succeeds(*arguments)
    for command in ("list", "describe", "validate", "run", "chain", "serve", "info", "demo"):
        assert f"│ {command} " in text


@pytest.mark.parametrize("command", ["list", "describe", "validate", "run", "chain", "serve", "info", "demo"])
def test_help_of_every_command_has_an_example(succeeds, command):
    assert f"zerocost {command}" in succeeds(command, "--help").split("Example")[1]


def test_version(succeeds):
    assert succeeds("--version") == f"zerocost {zerocost.__version__}\n"


def test_usage_errors_are_one_line(refused):
    assert "'lst'" in refused("lst")
    assert "'list'" in refused("lst")
    assert "see 'zerocost run --help'" in refused("run", "scale", "--ou", "x.npy")
    assert "'NAME'" in refused("run")
    assert "--input" in refused("run", "scale", "--input")


def test_is_a_module_and_a_console_script(tmp_path):
    for command in ([sys.executable, "-m", "zerocost"], [Path(sys.executable).with_name("zerocost")]):
        done = subprocess.run([*command, "--version"], cwd=tmp_path, text=True, capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, f"zerocost {zerocost.__version__}\n")


def test_listing_does_not_import_what_serving_and_drawing_need(tmp_path):
    code = (
        "import sys; from zerocost.cli import main; main(['list']); "
        "print([name for name in ('starlette', 'uvicorn', 'PIL', 'safetensors', 'http.client') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_interrupt_exits_with_130_and_says_nothing(cli, matrix_file):
    assert cli("run", "fails", *FAILS, "-i", matrix_file, "-p", "kind=KeyboardInterrupt") == (130, "", "")


def test_interrupted_process_leaves_no_traceback(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import time\nfrom zerocost import AttentionArtifact\n"
        "class Slow(AttentionArtifact):\n"
        "    'Sleeps.'\n"
        "    def process_attention(self, attention_matrix):\n"
        "        print('started', flush=True)\n"
        "        time.sleep(50)\n"
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "zerocost",
            "run",
            "slow",
            "--artifact",
            "slow=slow:Slow",
            "-p",
            "attention_matrix=[[1]]",
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")


@pytest.mark.parametrize("arguments", [["list"], ["info", "--json"], ["--help"]])
def test_reader_that_has_gone_away_is_not_complained_about(tmp_path, arguments):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "zerocost", *arguments]
    try:
        done = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_bug_of_a_stranger_is_one_line_and_exit_code_1(refused, cli, matrix_file):
    text = refused("run", "fails", *FAILS, "-i", matrix_file, code=1)
    assert text.startswith("error: KeyError: 'as told'")
    assert "--debug" in text
    with pytest.raises(KeyError):
        cli("--debug", "run", "fails", *FAILS, "-i", matrix_file)


def test_value_error_of_a_stranger_is_the_input_s_fault(refused, matrix_file):
    assert "ValueError: as told" in refused("run", "fails", *FAILS, "-i", matrix_file, "-p", "kind=ValueError")


# list, describe, validate, info


def test_list_shows_names_interfaces_and_the_first_paragraph(succeeds):
    rows = [line.split(maxsplit=2) for line in succeeds("list", *SCALE, *SPLIT).splitlines()]
    assert rows[0] == ["name", "interface", "description"]
    assert ["scale", "attention", "Multiplies every entry."] in rows
    assert ["split", "parallel", "Cuts a tensor into views."] in rows


def test_list_of_one_interface_as_json(succeeds):
    listed = json.loads(succeeds("list", *FREE, *SCALE, "--interface", "free", "--json"))
    assert listed == [{"name": "free", "interface": "free", "description": "Takes anything and returns it."}]


def test_list_of_an_unknown_interface_names_the_close_one(refused):
    assert "did you mean 'free'?" in refused("list", *FREE, "--interface", "fre")


def test_describe_shows_inputs_outputs_and_the_way_through_a_chain(succeeds):
    text = succeeds("describe", "scale", *SCALE)
    assert "Its factor is a number." in text
    rows = [line.split(maxsplit=4) for line in text.splitlines()]
    assert ["attention_matrix", "tensor", "required"] in rows
    assert ["factor", "number", "≥", "0", "2.0       What to multiply with."] in rows
    assert "attention_matrix → processed_attention" in text
    assert "zerocost run scale --input FILE --param factor=2.0" in text


def test_describe_as_json_holds_the_schema(succeeds):
    described = json.loads(succeeds("describe", "scale", *SCALE, "--json"))
    assert described["schema"]["properties"]["factor"]["minimum"] == 0
    assert described["metadata"] == {"loaded_from": "cli_artifacts:Scale"}


def test_describe_of_an_open_artifact(succeeds):
    assert "handed over as they are" in succeeds("describe", "free", *FREE)


def test_unknown_artifact_names_the_close_one(refused):
    assert refused("describe", "scael", *SCALE).startswith("error: Artifact scael not found; did you mean 'scale'?")
    assert "did you mean 'scale'?" in refused("run", "scael", *SCALE)


def test_validate(cli):
    assert cli("validate", "cli_artifacts:Scale") == (0, "cli_artifacts:Scale: Valid artifact\n", "")
    code, out, err = cli("validate", "cli_artifacts:ChangesItsInput")
    assert (code, err) == (1, "")
    assert "execute changes its input: attention_matrix" in out


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("cli_artifacts", "MODULE:CLASS is needed"),
        ("no_such_module:X", "No module named 'no_such_module'"),
        ("cli_artifacts:Nope", "has no attribute 'Nope'"),
        ("json:JSONDecoder", "a subclass of Artifact is needed"),
    ],
)
def test_what_cannot_be_loaded_is_refused(refused, path, reason):
    assert reason in refused("validate", path)
    assert reason in refused("list", "--artifact", f"x={path}")


def test_addition_without_a_name_is_refused(refused):
    assert "NAME=MODULE:CLASS is needed" in refused("list", "--artifact", "cli_artifacts:Scale")


def test_artifacts_of_the_working_folder_can_be_added_and_validated(tmp_path):
    (tmp_path / "my_module.py").write_text(
        "from zerocost import AttentionArtifact\n"
        "class Mine(AttentionArtifact):\n"
        "    'Negates.'\n"
        "    def process_attention(self, attention_matrix):\n"
        "        return -attention_matrix\n"
    )
    assert "Negates." in subprocess_of("list", "--artifact", "mine=my_module:Mine", cwd=tmp_path).stdout
    assert subprocess_of("validate", "my_module:Mine", cwd=tmp_path).returncode == 0


@pytest.fixture
def broken_plugin(tmp_path, monkeypatch):
    """An installed distribution with one plug-in that works and one that cannot be imported."""
    site = tmp_path / "site"
    info = site / "strangers-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[zerocost.artifacts]\nworks = cli_artifacts:Scale\nbroken = no_such_module:Artifact\n"
    )
    monkeypatch.syspath_prepend(site)


@pytest.mark.usefixtures("broken_plugin")
def test_plugin_that_fails_is_reported_by_name_and_the_rest_works(cli, matrix_file):
    for arguments in (["list"], ["describe", "works"], ["run", "works", "-i", matrix_file]):
        code, out, err = cli(*arguments)
        assert (code, err.count("\n")) == (0, 1)
        assert err.startswith("warning: plug-in 'broken' (no_such_module:Artifact) was not loaded")
        assert out
    assert "works" in cli("list")[1]


@pytest.mark.usefixtures("broken_plugin")
def test_info_shows_plugins(succeeds):
    assert "No module named 'no_such_module'" in succeeds("info")
    facts = json.loads(succeeds("info", "--json"))
    assert facts["plugins"] == ["works"]
    assert list(facts["failed_plugins"]) == ["broken"]


def test_info(succeeds):
    facts = json.loads(succeeds("info", "--json"))
    assert facts["version"] == zerocost.__version__
    assert facts["cpu_level"] in facts["cpu_levels"]
    assert facts["threads"] == zerocost.num_threads()
    assert facts["numpy"] == np.__version__
    text = succeeds("info")
    assert facts["cpu_level"] in text
    assert facts["numpy"] in text


# run: inputs


def doubled(succeeds, *arguments):
    return np.array(json.loads(succeeds("run", "scale", *SCALE, *arguments, "--json"))["processed_attention"])


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors", "json"])
def test_single_array_of_any_form_is_the_main_input(succeeds, tmp_path, suffix):
    path = tmp_path / f"matrix.{suffix}"
    if suffix == "npy":
        np.save(path, MATRIX)
    elif suffix == "npz":
        np.savez(path, MATRIX)
    elif suffix == "safetensors":
        save_file({"whatever": MATRIX}, path)
    else:
        path.write_text(json.dumps(MATRIX.tolist()))
    np.testing.assert_array_equal(doubled(succeeds, "--input", path), MATRIX * 2)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_named_arrays_are_bound_by_name(succeeds, tmp_path, suffix):
    path = tmp_path / f"both.{suffix}"
    arrays = {"mask": MATRIX > 4, "attention_matrix": MATRIX}
    np.savez(path, **arrays) if suffix == "npz" else save_file(arrays, path)
    np.testing.assert_array_equal(doubled(succeeds, "-i", path), np.where(MATRIX > 4, MATRIX * 2, 0))


def test_several_inputs_names_and_picked_arrays(succeeds, tmp_path, matrix_file):
    save_file({"one": MATRIX > 4, "two": MATRIX > 8}, tmp_path / "masks.safetensors")
    result = doubled(succeeds, "-i", matrix_file, "-i", "mask=masks.safetensors:two", "-p", "factor=3")
    np.testing.assert_array_equal(result, np.where(MATRIX > 8, MATRIX * 3, 0))


def test_file_whose_name_looks_like_a_binding(succeeds, tmp_path):
    np.save(tmp_path / "mask=x.npy", MATRIX)
    np.testing.assert_array_equal(doubled(succeeds, "-i", "mask=x.npy"), MATRIX * 2)


def test_json_object_gives_inputs_by_name(succeeds, tmp_path):
    (tmp_path / "input.json").write_text('{"attention_matrix": [[1, 2]], "factor": 5}')
    assert doubled(succeeds, "-i", "input.json").tolist() == [[5, 10]]


@pytest.mark.parametrize(
    "text", ['{"dtype": "float16", "shape": [1, 3], "data": [1, "NaN", "-Infinity"]}', '[[1, "NaN", "-Infinity"]]']
)
def test_json_tensors_hold_what_json_has_no_number_for(succeeds, tmp_path, text):
    (tmp_path / "typed.json").write_text(text)
    out = json.loads(succeeds("run", "scale", *SCALE, "-i", "typed.json", "--json"))
    assert out["processed_attention"] == [[2.0, "NaN", "-Infinity"]]


def test_standard_input_is_json(succeeds, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"[[1, 2]]")))
    assert doubled(succeeds, "-i", "-").tolist() == [[2, 4]]


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
        (["-i", "broken.json"], "broken.json: no JSON: no JSON value at byte 0"),
        (["-i", "latin.json"], "latin.json: no JSON: text that is not UTF-8 at byte 1"),
        (
            ["-i", "objects.npy"],
            "objects.npy: holds Python objects, which would have to be unpickled",
        ),
        (["-i", "objects.npz"], "objects.npz: holds Python objects, which would have to be unpickled"),
        (["-i", "bfloat16.npy"], "NumPy's files cannot hold bfloat16, .safetensors can"),
        (["-i", "two.npz:c"], "there is no array 'c' in it; there are 'a', 'b'"),
        (["-i", "mask=two.npz"], "holds 2 arrays; say which with mask=two.npz:ARRAY"),
        (["-i", "two.npz"], "two.npz: 'a', 'b' in it are no inputs (there are attention_matrix, factor, mask)"),
        (["-i", "two.npz", "-i", "typo.json"], "two.npz:ARRAY"),
        (["-i", "typo.json"], "'facto' is not an input; did you mean 'factor'?"),
        (["-i", "ragged.json"], "attention_matrix: ragged lists were given"),
        (["-i", "matrix.npy", "-i", "matrix.npy"], "attention_matrix is given twice"),
        (["-i", "matrix.npy", "-p", "factor=1", "-p", "factor=2"], "factor is given twice"),
        (["-i", "matrix.npy", "-p", "factor"], "NAME=VALUE is needed"),
        (["-i", "matrix.npy", "-p", "facto=2"], "'facto' is not an input; did you mean 'factor'?"),
        (["-i", "matrix.npy", "-p", "factor=-1"], "factor: -1 is less than the minimum of 0"),
        (["-i", "matrix.npy", "-p", "factor=two"], 'factor: "two" is not of type "number"'),
        (["-p", "factor=1"], "attention_matrix required; inputs come from --input FILE and --param NAME=VALUE"),
        (["-p", "attention_matrix=[[true, null]]"], "attention_matrix: null was given among the elements"),
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


def test_all_that_is_wrong_with_the_input_is_said_at_once(refused):
    text = refused("run", "scale", *SCALE, "-p", "facto=2", "-p", "factor=-1")
    assert "'facto' is not an input" in text
    assert "attention_matrix required" in text
    assert "factor: -1" in text


# run: outputs


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


def test_safetensors_holds_everything_and_comes_back(succeeds, tmp_path):
    half = np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3)
    save_file({"x": half}, tmp_path / "half.safetensors")
    # Along the last axis the parts are views with gaps: what is written must be their elements, not their memory.
    succeeds("run", "split", *SPLIT, "-i", "half.safetensors", "-p", "num_splits=3", "-o", "parts.safetensors")
    with safe_open(tmp_path / "parts.safetensors", "np") as file:
        parts = [file.get_tensor(f"result.{index}") for index in range(3)]
        assert json.loads(file.metadata()["zerocost"]) == {"artifact_used": "split"}
    assert {part.dtype.name for part in parts} == {"bfloat16"}
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), half)
    assert doubled(succeeds, "-i", "parts.safetensors:result.1").tolist() == [[2], [8]]


def test_written_result_is_the_next_one_s_main_input(succeeds, matrix_file):
    succeeds("run", "scale", *SCALE, "-i", matrix_file, "-o", "once.safetensors")
    np.testing.assert_array_equal(doubled(succeeds, "-i", "once.safetensors"), MATRIX * 4)


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
        ("split", "out.npy", ".npy holds one array and 'result' is none; use .npz or .safetensors"),
        ("text", "out.npz", ".npz holds arrays and the result has none"),
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


def test_destination_is_checked_before_the_work(refused, matrix_file):
    assert "suffix" in refused("run", "fails", *FAILS, "-i", matrix_file, "--out", "x.txt")


def test_archive_members_may_have_any_name(succeeds, tmp_path):
    np.savez(tmp_path / "in.npz", x=MATRIX)
    succeeds("run", "free", *FREE, "-i", "file=in.npz", "-o", "out.npz")
    assert zipfile.ZipFile(tmp_path / "out.npz").namelist() == ["object.file.npy"]


# serve


@pytest.fixture
def server(tmp_path):
    """``server(*options)`` starts ``zerocost serve`` on a free port: the process and the URL that it says."""
    processes = []

    def start(*options, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "zerocost", "serve", "--port", "0", *options],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), **environment},
        )
        processes.append(process)
        for line in process.stderr:
            if "Serving at" in line:
                return process, line.split("Serving at ")[1].split()[0]
        raise AssertionError("it ended before it served")

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def ask(url, body=None, **headers):
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
        return json.load(response)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_serves_built_in_and_own_artifacts_until_it_is_stopped(server, kind):
    process, url = server(*SCALE)
    names = [artifact["name"] for artifact in ask(f"{url}/artifacts")["artifacts"]]
    assert {"scale", "tensor_parallel"} <= set(names)
    answer = ask(f"{url}/artifacts/scale/execute", b'{"attention_matrix": [[1, 2]], "factor": 3}')
    assert answer["data"]["processed_attention"] == [[3, 6]]
    process.send_signal(kind)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_server_reads_its_token_from_the_environment(server):
    _, url = server(ZEROCOST_TOKEN="secret")
    assert ask(f"{url}/artifacts", Authorization="Bearer secret")["artifacts"]
    with pytest.raises(urllib.error.HTTPError, match="401") as refusal:
        ask(f"{url}/artifacts")
    refusal.value.close()


def test_server_without_authentication(server):
    _, url = server("--host", "0.0.0.0", "--no-auth")
    assert ask(f"http://127.0.0.1:{url.rpartition(':')[2]}/artifacts", Host="anywhere.example")["artifacts"]


def test_address_that_cannot_be_served_is_refused(refused, monkeypatch):
    assert "0.0.0.0 can be reached from elsewhere, which needs a token" in refused("serve", "--host", "0.0.0.0")
    assert "Cannot assign requested address" in refused("serve", "--host", "192.0.2.1", "--no-auth")
    assert "65535" in refused("serve", "--port", "65536")
    assert "no_such_module" in refused("serve", "--artifact", "x=no_such_module:X")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "Address already in use" in refused("serve", "--port", taken.getsockname()[1])
    monkeypatch.setenv("ZEROCOST_MAX_BODY", "much")
    assert "ZEROCOST_MAX_BODY: 'much' cannot be read" in refused("serve")


# chain


@pytest.fixture
def chain_file(tmp_path):
    (tmp_path / "pipeline.json").write_text(json.dumps(PIPELINE))
    return "pipeline.json"


def test_chain_of_a_bare_list(succeeds, chain_file, matrix_file):
    out = json.loads(succeeds("chain", chain_file, *SCALE, *SPLIT, "-i", matrix_file, "--json"))
    assert out == {"result": [(MATRIX[:2] * 2).tolist(), (MATRIX[2:] * 2).tolist()], "artifact_used": "split"}


def test_chain_with_its_input_and_trace(succeeds, tmp_path):
    body = {"pipeline": PIPELINE, "input": {"attention_matrix": MATRIX.tolist(), "factor": 3}, "trace": True}
    (tmp_path / "body.json").write_text(json.dumps(body))
    out = json.loads(succeeds("chain", "body.json", *SCALE, *SPLIT, "--json"))
    assert out["data"]["result"][0] == (MATRIX[:2] * 3).tolist()
    assert [step["id"] for step in out["trace"]] == ["double", "1"]
    assert [step["bytes_copied"] for step in out["trace"]] == [0, 0]


def test_input_option_takes_the_place_of_the_file_s(succeeds, tmp_path, matrix_file):
    (tmp_path / "body.json").write_text(
        json.dumps({"pipeline": PIPELINE, "input": {"attention_matrix": [[1]], "factor": 3}})
    )
    out = json.loads(succeeds("chain", "body.json", *SCALE, *SPLIT, "-i", matrix_file, "--json"))
    assert out["result"][0] == (MATRIX[:2] * 3).tolist()


def test_chain_summary_and_trace_table(succeeds, tmp_path, chain_file, matrix_file):
    text = succeeds("chain", chain_file, *SCALE, *SPLIT, "-i", matrix_file, "--trace", "--out", "parts.npz")
    rows = [line.split() for line in text.splitlines() if line]
    assert rows[0] == ["step", "artifact", "start", "took", "in", "out", "copied", "thread"]
    assert rows[1][:2] == ["double", "scale"]
    assert rows[1][-7:] == ["48", "B", "48", "B", "0", "B", "MainThread"]
    assert (tmp_path / "parts.npz").exists()


def test_plan_shows_the_wiring_and_runs_nothing(succeeds, tmp_path, chain_file):
    text = succeeds("chain", chain_file, *SCALE, *SPLIT, "--plan")
    rows = [line.split() for line in text.splitlines() if line]
    assert rows[0][:4] == ["initial", "input:", "attention_matrix", "(required),"]
    assert ["1", "split", "double", "axis", "params"] in rows
    assert ["tensor", "double.processed_attention"] in rows
    plan = json.loads(succeeds("chain", chain_file, *SCALE, *SPLIT, "--plan", "--json"))
    assert plan["required"] == ["attention_matrix"]
    (tmp_path / "fails.json").write_text('[{"artifact": "fails"}]')
    assert "fails" in succeeds("chain", "fails.json", *FAILS, "--plan")


def test_plan_shows_each(succeeds, tmp_path):
    (tmp_path / "each.json").write_text(json.dumps([{"artifact": "split"}, {"artifact": "scale", "each": True}]))
    assert "attention_matrix (each element)" in succeeds("chain", "each.json", *SCALE, *SPLIT, "--plan")


def test_input_that_no_step_takes_is_pointed_out(cli, tmp_path):
    body = {"pipeline": PIPELINE, "input": {"attention_matrix": [[1], [2]], "facto": 3}}
    (tmp_path / "body.json").write_text(json.dumps(body))
    code, out, err = cli("chain", "body.json", *SCALE, *SPLIT, "--json")
    assert code == 0
    assert json.loads(out)["result"] == [[[2]], [[4]]]
    assert err == "warning: input 'facto' is not used by the chain; did you mean 'factor'?\n"


def test_chain_file_is_the_body_that_the_server_takes(succeeds, tmp_path):
    mask = {"dtype": "BOOL", "shape": [2, 1], "data": [True, False]}
    pipeline = [{"artifact": "scale", "params": {"mask": mask}}]
    (tmp_path / "body.json").write_text(
        json.dumps({"pipeline": pipeline, "initial_input": {"attention_matrix": [[1], ["NaN"]]}})
    )
    out = json.loads(succeeds("chain", "body.json", *SCALE, "--json"))
    assert out["processed_attention"] == [[2], [0]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "chain.json: no JSON"),
        ('{"pipeline": [], "input": {}, "initial_input": {}}', "two names of one thing"),
        ('{"pipeline": [], "trace": 1}', "trace: true or false is needed"),
        ("[3]", "step 0: int was given, an object is needed"),
        ('[{"artifact": "scale", "params": 3}]', "params: int was given, an object is needed"),
        ('[{"artifact": "scale", "params": {"mask": [[1], 2]}}]', "mask"),
        ("3", 'chain.json: {"pipeline": [steps], "input": {…}} or a list of steps is needed'),
        ('{"input": {}}', '{"pipeline": [steps], "input": {…}} or a list of steps is needed'),
        ('{"pipeline": [], "inputs": {}}', "unknown key 'inputs'; did you mean 'input'?"),
        ('{"pipeline": [], "input": []}', "chain.json: input: an object is needed"),
        ("[]", "pipeline: it has no step"),
        ('{"pipeline": {}}', "pipeline: dict was given, a list of steps is needed"),
        ('[{"artifact": "scael"}]', "Artifact scael not found; did you mean 'scale'? (in step 0 of the chain)"),
        ('[{"artifact": "scale"}]', "chain: attention_matrix required"),
        ('[{"artifact": "scale", "params": {"facto": 1}}]', "step 0 (scale): params: 'facto' is not an input"),
        ('[{"artifact": "scale", "params": {"factor": -1}}]', "step 0 (scale): params: factor: -1 is less than"),
        ('{"pipeline": [{"artifact": "scale"}], "input": {"factor": 1}}', "nothing gives its input 'attention_matrix'"),
        ('{"pipeline": [{"artifact": "scale"}], "input": {"attention_matrix": [[1], 2]}}', "ragged"),
        (
            '{"pipeline": [{"artifact": "scale"}], "input": {"attention_matrix": [[1]], "factor": -2}}',
            "chain: factor: -2 is less than the minimum of 0",
        ),
        (
            '[{"artifact": "scale", "inputs": {"mask": "later.result"}}, {"artifact": "split", "id": "later"}]',
            "'later'",
        ),
    ],
)
def test_chain_that_cannot_work_is_refused(refused, tmp_path, text, reason):
    (tmp_path / "chain.json").write_text(text)
    assert reason in refused("chain", "chain.json", *SCALE, *SPLIT)


def test_chain_file_that_is_missing(refused):
    assert "missing.json: No such file or directory" in refused("chain", "missing.json")


def test_error_within_a_step_names_it(refused, tmp_path):
    (tmp_path / "chain.json").write_text(
        '[{"artifact": "scale"}, {"artifact": "fails", "params": {"kind": "ValueError"}}]'
    )
    text = refused("chain", "chain.json", *SCALE, *FAILS, "-i", _matrix(tmp_path))
    assert "ValueError: as told (in step 1 (fails) of the chain)" in text


def _matrix(folder):
    np.save(folder / "m.npy", MATRIX)
    return folder / "m.npy"
