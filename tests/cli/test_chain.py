"""``zerocost chain``."""

import json

import numpy as np
import pytest

from support.command_line import FAILS, MATRIX, PIPELINE, SCALE, SPLIT


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


def test_input_that_no_step_takes_is_refused(refused, tmp_path):
    body = {"pipeline": PIPELINE, "input": {"attention_matrix": [[1], [2]], "facto": 3}}
    (tmp_path / "body.json").write_text(json.dumps(body))
    text = refused("chain", "body.json", *SCALE, *SPLIT, "--json")
    assert "'facto' is not an input of the chain; did you mean 'factor'?" in text


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
        ("[", "chain.json: not JSON"),
        ('{"pipeline": [], "input": {}, "initial_input": {}}', "are the same; give one of them"),
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
        (
            '[{"artifact": "scale", "params": {"factor": -1}}]',
            "factor: -1 is less than the minimum of 0 (in step 0 (scale)",
        ),
        ('{"pipeline": [{"artifact": "scale"}], "input": {"factor": 1}}', "chain: attention_matrix required"),
        (
            '{"pipeline": [{"artifact": "scale"}], "input": {"attention_matrix": [[1], 2]}}',
            "error: chain: attention_matrix: ragged",
        ),
        (
            '{"pipeline": [{"artifact": "scale"}], "input": {"attention_matrix": [[1]], "factor": -2}}',
            "factor: -2 is less than the minimum of 0 (in step 0 (scale) of the chain)",
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
