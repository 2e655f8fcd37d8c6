"""The native routes: answers, statuses, and the problems of wrong requests."""

import asyncio
import http.client
import re

import numpy as np
import pytest

import zerocost
from support.requests import MATRIX, chain, execute, problem
from support.samples import sample_registry


def test_probes(client):
    assert client.get("/livez").json() == {"live": True}
    assert client.get("/readyz").json() == {"ready": True}


def test_the_artifacts_and_their_schemas(client):
    listed = client.get("/artifacts").json()["artifacts"]
    assert [artifact["name"] for artifact in listed] == ["scale", "pieces", "picky", "huge"]
    one = client.get("/artifacts/scale").json()
    assert one["interface"] == "attention"
    assert one["description"] == "Multiplies every score."
    answer = client.get("/artifacts/scale/schema").json()
    assert answer["artifact"] == "scale"
    assert answer["schema"] == one["schema"]
    assert "factor" in answer["schema"]["properties"]
    assert "out" not in answer["schema"]["properties"], "what means nothing over a network is not published"


def test_execute_answers_as_the_specification_says(client):
    answer = execute(client, attention_matrix=MATRIX, factor=2).json()
    assert answer["status"] == "success"
    assert answer["data"] == {
        "processed_attention": (np.array(MATRIX) * 2).tolist(),
        "artifact_used": "scale",
    }


def test_the_coroutines_answer_as_the_specification_says():
    api = zerocost.ArtifactRESTAPI(sample_registry())

    def run(*arguments):
        return asyncio.run(api.execute_artifact(*arguments))

    matrix = np.array(MATRIX)
    answer = run("scale", {"attention_matrix": matrix})
    assert answer["status"] == "success"
    assert isinstance(answer["data"]["processed_attention"], np.ndarray)
    assert run("nothing", {}) == {"error": "Artifact not found"}
    assert "factor" in run("scale", {"attention_matrix": matrix, "factor": -1})["error"]
    assert asyncio.run(api.get_artifact_schema("nothing")) == {"error": "Artifact not found"}
    assert asyncio.run(api.get_artifact_schema("huge"))["artifact"] == "huge"


def test_a_plan_shows_the_wiring_without_running(client):
    pipeline = [{"artifact": "scale", "id": "first"}, {"artifact": "pieces"}]
    wiring = chain(client, pipeline, path="/chains/plan").json()
    assert wiring["inputs"] == ["attention_matrix", "factor"]
    assert wiring["steps"][1]["inputs"]["tensor"] == "first.processed_attention"
    wiring = chain(client, pipeline, path="/chains/plan", initial_input_names=["attention_matrix"]).json()
    assert wiring["inputs"] == ["attention_matrix"]


def test_request_ids(client):
    assert client.get("/livez", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = client.get("/livez", headers={"x-request-id": "no spaces allowed"}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", made)
    seen = execute(client, "picky", how="metadata")
    assert seen.json()["data"]["request_id"] == seen.headers["x-request-id"]


def test_head_and_trailing_slashes(client):
    head = client.head("/artifacts")
    assert (head.status_code, head.content) == (200, b"")
    problem(client.get("/artifacts/", follow_redirects=False), 404)


def test_unknown_names(client):
    assert "did you mean 'scale'?" in problem(client.get("/artifacts/scal"), 404, "unknown_artifact")["detail"]
    problem(execute(client, "scal", attention_matrix=MATRIX), 404, "unknown_artifact")
    problem(client.get("/nothing/here"), 404)


@pytest.mark.parametrize("name", ["..", "%2e%2e", "%2E%2E%2F..", "%00", "a%00b", "x" * 10_000, "%ff", "a%2Fb", "%252e"])
def test_names_with_a_meaning_in_paths_or_headers(client, name):
    raw = http.client.HTTPConnection(client.base_url.host, client.base_url.port)
    for method, path in (("GET", ""), ("GET", "/schema"), ("POST", "/execute")):
        raw.request(method, f"/artifacts/{name}{path}", headers={"Host": "localhost"})
        answer = raw.getresponse()
        assert (answer.status, answer.read()[:1]) == (404, b"{"), path
    raw.close()


def test_wrong_methods_list_the_allowed_ones(client):
    response = client.get("/artifacts/scale/execute")
    problem(response, 405)
    assert response.headers["allow"] == "POST"
    response = client.delete("/artifacts")
    problem(response, 405)
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_native_posts_need_a_json_content_type(client, kind):
    headers = {} if kind is None else {"content-type": kind}
    for path in ("/artifacts/scale/execute", "/chains/execute", "/chains/plan"):
        problem(client.post(path, content=b"{}", headers=headers), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b'{"a": NaN}',
        b"{'a': 1}",
        b'{"a": 1,}',
        b"\xff\xfe",
        b'{"a": "\\ud800"}',
        b'{"a":1,"a":2}',
        b"\xef\xbb\xbf{}",
    ],
)
def test_bodies_that_are_not_json(client, body):
    headers = {"content-type": "application/json"}
    for path in ("/artifacts/scale/execute", "/chains/execute", "/chains/plan"):
        problem(client.post(path, content=body, headers=headers), 400, "malformed_json")


@pytest.mark.parametrize("body", ["[]", "1", "null", '"text"', "true"])
def test_bodies_that_are_not_objects(client, body):
    headers = {"content-type": "application/json"}
    for path in ("/artifacts/scale/execute", "/chains/execute", "/chains/plan"):
        problem(client.post(path, content=body, headers=headers), 422, "datatype")


INVALID = {
    "undeclared": ({"attention_matrix": MATRIX, "speed": 1}, "/speed", "'speed' is not an input"),
    "misspelt": ({"attention_matrix": MATRIX, "facter": 1}, "/facter", "did you mean 'factor'?"),
    "missing": ({}, "/attention_matrix", "attention_matrix required"),
    "null": ({"attention_matrix": None}, "/attention_matrix", "attention_matrix required"),
    "ragged": ({"attention_matrix": [[1, 2], [3]]}, "/attention_matrix", "ragged"),
    "rank": ({"attention_matrix": [1.0]}, "/attention_matrix", "shape [1] was given, [..., n, m] is needed"),
    "number": ({"attention_matrix": 3}, "/attention_matrix", "an array or nested lists are needed"),
    "text": ({"attention_matrix": "abc"}, "/attention_matrix", "an array or nested lists are needed"),
    "texts": ({"attention_matrix": [["a"]]}, "/attention_matrix", "text was given among the elements"),
    "nulls": ({"attention_matrix": [[None]]}, "/attention_matrix", "null was given among the elements"),
    "booleans": ({"attention_matrix": [[True]]}, "/attention_matrix", "a boolean was given among the elements"),
    "huge": ({"attention_matrix": [[10**400]]}, "/attention_matrix", "outside the range"),
    "range": ({"attention_matrix": MATRIX, "factor": -1}, "/factor", "minimum"),
    "type": ({"attention_matrix": MATRIX, "factor": "two"}, "/factor", "factor"),
    "in process": ({"attention_matrix": MATRIX, "out": MATRIX}, "/out", "in the same process only"),
    "dtype": (
        {"attention_matrix": {"dtype": "INT8", "shape": [1, 1], "data": [1]}},
        "/attention_matrix",
        "dtype int8 was given",
    ),
    "unknown dtype": ({"attention_matrix": {"dtype": "FP8", "shape": [1, 1], "data": [1]}}, "", "FP8"),
    "data": (
        {"attention_matrix": {"dtype": "FP32", "shape": [2, 2], "data": [1]}},
        "/attention_matrix",
        "shape asks for 4",
    ),
    "nesting": (
        {"attention_matrix": {"dtype": "FP32", "shape": [1, 2], "data": [[1], [2]]}},
        "/attention_matrix",
        "nested as [2, 1], its shape asks for [1, 2]",
    ),
    "shape": ({"attention_matrix": {"dtype": "FP32", "shape": [-1, 1], "data": [1]}}, "", "whole numbers"),
    "members": ({"attention_matrix": {"dtype": "FP32", "shape": [1]}}, "", "needs 'dtype', 'shape' and 'data'"),
    "more members": (
        {"attention_matrix": {"dtype": "FP32", "shape": [1], "data": [1], "b": 1}},
        "",
        "'dtype', 'shape'",
    ),
    "overflow": ({"attention_matrix": {"dtype": "FP32", "shape": [1, 1], "data": [1e39]}}, "/attention_matrix", "FP32"),
    "fraction": (
        {"attention_matrix": {"dtype": "INT8", "shape": [1, 1], "data": [0.5]}},
        "/attention_matrix",
        "whole number",
    ),
}


@pytest.mark.parametrize("case", INVALID)
def test_inputs_that_break_the_schema(client, case):
    inputs, pointer, text = INVALID[case]
    document = problem(execute(client, **inputs), 422)
    errors = document["errors"]
    assert any(pointer in error["pointer"] and text in error["message"] for error in errors), errors
    # The same in the process, from the same method.
    answer = asyncio.run(zerocost.ArtifactRESTAPI(sample_registry()).execute_artifact("scale", inputs))
    assert set(answer) == {"error"}


def test_zero_length_axes_and_non_finite_numbers_are_valid(client):
    assert execute(client, attention_matrix=[[], []]).json()["data"]["processed_attention"] == [[], []]
    answer = execute(client, attention_matrix=[["NaN", "Infinity", "-Infinity"]]).json()
    assert answer["data"]["processed_attention"] == [["NaN", "Infinity", "-Infinity"]]


def test_results_of_every_json_kind(client):
    answer = execute(client, "picky", how="numbers").json()["data"]["values"]
    assert answer == ["NaN", "Infinity", "-Infinity", 1e300, 2**70, 0.1, True, None, 'ü\n"\x01']


CHAINS = {
    "no pipeline": ({}, 422, "missing_input", "pipeline required"),
    "unknown member": ({"pipeline": [], "inital_input": {}}, 422, "undeclared_input", "did you mean 'initial_input'"),
    "no step": ({"pipeline": []}, 422, "plan", "no step"),
    "no list": ({"pipeline": {}}, 422, "datatype", "a list is needed"),
    "no object": ({"pipeline": [1]}, 422, "datatype", "an object is needed"),
    "no artifact": ({"pipeline": [{}]}, 422, "plan", "'artifact' must be"),
    "unknown artifact": ({"pipeline": [{"artifact": "scal"}]}, 404, "unknown_artifact", "did you mean 'scale'?"),
    "missing port": (
        {"pipeline": [{"artifact": "scale"}], "initial_input": {"matrix": MATRIX}},
        422,
        "undeclared_input",
        "'matrix' is not an input of the chain; there are 'attention_matrix'",
    ),
    "cycle": (
        {
            "pipeline": [
                {"artifact": "scale", "id": "a", "inputs": {"attention_matrix": "b.result"}},
                {"artifact": "pieces", "id": "b"},
            ]
        },
        422,
        "plan",
        "does not come before",
    ),
    "unknown step": (
        {"pipeline": [{"artifact": "scale", "inputs": {"attention_matrix": "z.result"}}]},
        422,
        "plan",
        "no step 'z'",
    ),
    "bad parameter": (
        {"pipeline": [{"artifact": "scale", "params": {"factor": -1}}], "initial_input": {"attention_matrix": MATRIX}},
        422,
        "range",
        "factor",
    ),
    "ragged parameter": (
        {"pipeline": [{"artifact": "scale", "params": {"attention_matrix": [[1], []]}}]},
        422,
        "shape",
        "ragged",
    ),
    "bad initial input": (
        {"pipeline": [{"artifact": "scale"}], "initial_input": {"attention_matrix": [1.0]}},
        422,
        "shape",
        "shape [1]",
    ),
    "in process": (
        {"pipeline": [{"artifact": "scale", "params": {"out": 1}}], "initial_input": {"attention_matrix": MATRIX}},
        422,
        "undeclared_input",
        "in the same process only",
    ),
    "trace": (
        {"pipeline": [{"artifact": "scale"}], "initial_input": {"attention_matrix": MATRIX}, "trace": 1},
        422,
        "datatype",
        "true or false",
    ),
    "failing step": (
        {"pipeline": [{"artifact": "picky", "params": {"how": "value"}}]},
        422,
        "invalid_input",
        "in step 0 (picky)",
    ),
    "missing without plan": ({"pipeline": [{"artifact": "scale"}]}, 422, "missing_input", "attention_matrix required"),
}


@pytest.mark.parametrize("case", CHAINS)
def test_chains_that_cannot_work(client, case):
    body, status, code, text = CHAINS[case]
    document = problem(client.post("/chains/execute", json=body), status, code)
    assert text in document["detail"]
