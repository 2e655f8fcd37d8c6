"""The native routes: what is answered, every status, and what a wrong request is told."""

import asyncio
import gzip
import http.client
import json
import re
import threading
import zlib

import numpy as np
import pytest

import zerocost
from support.samples import sample_registry
from zerocost.api.settings import Settings

MATRIX = [[1.0, 0.5, 0.25], [0.5, 1.0, 0.125], [0.25, 0.125, 1.0]]


@pytest.fixture(scope="module")
def client():
    from support.servers import serving

    with serving(sample_registry()) as client:
        yield client


def problem(response, status, code=None):
    """The problem document of an answer, which must be one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["error"] == document["detail"]
    assert document["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    if code is not None:
        assert document["code"] == code, document
    return document


def execute(client, name="scale", **inputs):
    return client.post(f"/artifacts/{name}/execute", json=inputs)


def chain(client, pipeline, initial_input=None, path="/chains/execute", **more):
    body = {"pipeline": pipeline, **({} if initial_input is None else {"initial_input": initial_input}), **more}
    return client.post(path, json=body)


# What is answered


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


def test_a_plan_says_the_wiring_without_running(client):
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


# What is wrong with a request


def test_unknown_names(client):
    assert "did you mean 'scale'?" in problem(client.get("/artifacts/scal"), 404, "unknown_artifact")["detail"]
    problem(execute(client, "scal", attention_matrix=MATRIX), 404, "unknown_artifact")
    problem(client.get("/nothing/here"), 404)


@pytest.mark.parametrize("name", ["..", "%2e%2e", "%2E%2E%2F..", "%00", "a%00b", "x" * 10_000, "%ff", "a%2Fb", "%252e"])
def test_names_that_mean_something_elsewhere(client, name):
    raw = http.client.HTTPConnection(client.base_url.host, client.base_url.port)
    for method, path in (("GET", ""), ("GET", "/schema"), ("POST", "/execute")):
        raw.request(method, f"/artifacts/{name}{path}", headers={"Host": "localhost"})
        answer = raw.getresponse()
        assert (answer.status, answer.read()[:1]) == (404, b"{"), path
    raw.close()


def test_wrong_methods_say_which_are_right(client):
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
def test_bodies_that_are_no_json(client, body):
    headers = {"content-type": "application/json"}
    for path in ("/artifacts/scale/execute", "/chains/execute", "/chains/plan"):
        problem(client.post(path, content=body, headers=headers), 400, "malformed_json")


@pytest.mark.parametrize("body", ["[]", "1", "null", '"text"', "true"])
def test_bodies_that_are_no_object(client, body):
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


def test_a_third_party_value_error_is_the_clients(client):
    document = problem(execute(client, "picky", how="value"), 422, "invalid_input")
    assert document["detail"].startswith("bad value near")
    assert "0x" not in document["detail"]
    assert "secret" not in document["detail"]
    problem(execute(client, "picky", how="type"), 422, "invalid_input")


@pytest.mark.parametrize("how", ["key", "no dict", "object", "longdouble", "endless"])
def test_any_other_exception_is_told_in_the_log_only(client, caplog, how):
    document = problem(execute(client, "picky", how=how), 500, "internal")
    assert "passwd" not in str(document)
    assert any(document["request_id"] in record.getMessage() and record.exc_info for record in caplog.records)
    assert execute(client, attention_matrix=MATRIX).status_code == 200


# Limits


def test_a_body_beyond_the_limit_is_refused(serve):
    client = serve(sample_registry(), max_body=10_000)
    big = b'{"attention_matrix": [' + b" " * 20_000 + b"]}"
    headers = {"content-type": "application/json"}
    path = "/artifacts/scale/execute"
    problem(client.post(path, content=big, headers=headers), 413, "limit")
    problem(
        client.post(path, content=iter([big[:5000], big[5000:12_000], big[12_000:]]), headers=headers), 413, "limit"
    )
    for encoding, compressed in (("gzip", gzip.compress(big)), ("deflate", zlib.compress(big))):
        assert len(compressed) < 10_000
        problem(client.post(path, content=compressed, headers={**headers, "content-encoding": encoding}), 413, "limit")
    assert execute(client, attention_matrix=MATRIX).status_code == 200


def test_128_mib_against_a_smaller_limit_get_the_413_and_no_broken_pipe(serve):
    client = serve(sample_registry(), max_body=1 << 20)
    piece = b" " * (1 << 20)
    headers = {"content-type": "application/json"}
    path = "/artifacts/scale/execute"
    problem(client.post(path, content=(piece for _ in range(128)), headers=headers), 413, "limit")
    headers["content-length"] = str(128 << 20)
    problem(client.post(path, content=(piece for _ in range(128)), headers=headers), 413, "limit")
    assert client.get("/livez").status_code == 200


def test_compressed_bodies(client):
    body = json.dumps({"attention_matrix": MATRIX}).encode()
    headers = {"content-type": "application/json"}
    path = "/artifacts/scale/execute"
    for encoding, compressed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), ("identity", body)):
        assert (
            client.post(path, content=compressed, headers={**headers, "content-encoding": encoding}).status_code == 200
        )
        if encoding != "identity":
            for damaged in (compressed[:-4], b"garbage", compressed + b"x"):
                answer = client.post(path, content=damaged, headers={**headers, "content-encoding": encoding})
                problem(answer, 400)
    response = client.post(path, content=body, headers={**headers, "content-encoding": "br"})
    problem(response, 415, "unsupported_encoding")
    assert response.headers["accept-encoding"] == "gzip, deflate"


def test_deep_and_many_values(serve):
    client = serve(sample_registry(), max_values=100)
    deep = '{"attention_matrix":' + "[" * 100 + "]" * 100 + "}"
    headers = {"content-type": "application/json"}
    problem(client.post("/artifacts/scale/execute", content=deep, headers=headers), 413, "limit")
    problem(client.post("/chains/execute", content="[" * 100_000, headers=headers), 413, "limit")
    problem(execute(client, "picky", how=list(range(200))), 413, "limit")


def test_elements_of_inputs_and_outputs(serve):
    client = serve(sample_registry(), max_elements=1000)
    problem(execute(client, attention_matrix=[[0] * 40] * 40), 413, "limit")
    problem(execute(client, attention_matrix={"dtype": "FP32", "shape": [10**12, 0], "data": []}), 413, "limit")
    problem(execute(client, "pieces", tensor=[1, 2], num_splits=10**9), 413, "limit")
    problem(execute(client, "huge", shape=[10**6, 10**6]), 413, "limit")
    problem(execute(client, "huge", shape=[50, 50], tells=False), 413, "limit")
    assert execute(client, "huge", shape=[10, 10]).status_code == 200
    step = {"artifact": "huge", "params": {"shape": [10**6, 10**6]}}
    problem(chain(client, [step]), 413, "limit")


def test_work_that_grows_faster_than_the_arrays(serve):
    client = serve()

    def attend(queries, keys, d, d_v):
        shapes = {"query": (queries, d), "key": (keys, d), "value": (keys, d_v)}
        inputs = {
            name: {"dtype": "FP32", "shape": shape, "data": [0.0] * (shape[0] * shape[1])}
            for name, shape in shapes.items()
        }
        return execute(client, "scaled_dot_product_attention", **inputs)

    # A small body that asks for 2^48 scores.
    problem(attend(1 << 24, 1 << 24, 0, 0), 413, "limit")
    problem(attend(1 << 24, 1 << 13, 0, 1), 413, "limit")
    assert attend(64, 64, 4, 4).status_code == 200
    small = serve(max_operations=1000)
    client = small
    problem(attend(10, 10, 4, 4), 413, "limit")
    assert attend(2, 2, 4, 4).status_code == 200


def test_steps_and_fan_out(serve):
    client = serve(sample_registry(), max_steps=3, max_fan_out=4)
    step = {"artifact": "picky", "params": {"how": "fine"}}
    assert chain(client, [step] * 3).status_code == 200
    problem(chain(client, [step] * 4), 413, "limit")
    each = {"artifact": "picky", "each": "how"}
    assert chain(client, [each], {"how": ["fine"] * 4}).status_code == 200
    problem(chain(client, [each], {"how": ["fine"] * 5}), 413, "limit")


def test_deadlines(serve):
    client = serve(sample_registry(), request_timeout=0.2)
    problem(execute(client, "picky", how="sleep"), 504, "deadline")
    client = serve(sample_registry())
    answer = client.post("/artifacts/picky/execute", json={"how": "sleep"}, headers={"request-timeout": "0.1"})
    problem(answer, 504, "deadline")
    for wrong in ("soon", "-1", "nan", "1_0", ""):
        answer = client.post("/artifacts/picky/execute", json={"how": "fine"}, headers={"request-timeout": wrong})
        problem(answer, 400)


def test_more_than_can_wait_is_sent_away(serve):
    client = serve(sample_registry(), slots=1, max_waiting=1)
    statuses = []

    def call():
        statuses.append(execute(client, "picky", how="sleep"))

    threads = [threading.Thread(target=call) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert client.get("/livez").status_code == 200
    for thread in threads:
        thread.join()
    shed = [answer for answer in statuses if answer.status_code != 200]
    assert len(shed) == 3
    for answer in shed:
        problem(answer, 429, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1


# Who may call


def test_names_of_other_places_are_refused_without_a_token(client):
    for host in ("example.com", "localhost.example.com", "10.0.0.1", "127.0.0.1.nip.io", ""):
        problem(client.get("/artifacts", headers={"host": host}), 403, "forbidden")
        assert client.get("/livez", headers={"host": host}).status_code == 200
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:1234", "[::1]:8000", "a.localhost", "127.8.8.8"):
        assert client.get("/artifacts", headers={"host": host}).status_code == 200


def test_pages_of_other_origins_are_refused_without_a_token(serve, client):
    own = f"http://{client.base_url.host}:{client.base_url.port}"
    assert client.get("/artifacts", headers={"origin": own}).status_code == 200
    for origin in ("http://example.com", "null", "http://localhost:1", own.replace("http", "https")):
        problem(client.get("/artifacts", headers={"origin": origin}), 403, "forbidden")
    allowing = serve(sample_registry(), allowed_origins=("http://example.com",))
    assert allowing.get("/artifacts", headers={"origin": "http://example.com"}).status_code == 200


def test_other_addresses_are_refused_without_a_token():
    from support.servers import serving
    from zerocost.api.edge.authentication import check_caller
    from zerocost.api.wire.problems import HTTPError
    from zerocost.api.wire.request import Request

    def request(server):
        scope = {"server": server, "headers": [(b"host", b"localhost")], "scheme": "http", "path": "/artifacts"}
        return Request(scope, None)

    for server in (("192.168.1.2", 80), ("0.0.0.0", 80), None, ("::", 80)):
        with pytest.raises(HTTPError, match="loopback"):
            check_caller(request(server), Settings())
        check_caller(request(server), Settings(auth=False))
    for server in (("127.0.0.1", 80), ("::1", 80), ("::ffff:127.0.0.1", 80), ("/run/zerocost.sock", None)):
        check_caller(request(server), Settings())
    with serving(sample_registry(), auth=False) as client:
        assert client.get("/artifacts", headers={"host": "example.com"}).status_code == 200


def test_tokens(serve):
    client = serve(sample_registry(), token="use-it", admin_token="rule-it")
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200
    answer = client.get("/artifacts")
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    problem(client.get("/artifacts", headers={"authorization": "Basic dXNlLWl0"}), 401)
    for wrong in ("use-i", "use-itt", "USE-IT", "ü"):
        problem(client.get("/artifacts", headers={"authorization": f"Bearer {wrong}".encode()}), 403, "forbidden")
    for right in ("use-it", "rule-it"):
        # With a token the address does not matter.
        headers = {"authorization": f"Bearer {right}", "host": "example.com"}
        assert client.get("/artifacts", headers=headers).status_code == 200


def test_settings_from_the_environment():
    settings = Settings.from_environment(
        {"ZEROCOST_TOKEN": "abc", "ZEROCOST_MAX_BODY": "1000", "ZEROCOST_AUTH": "no", "ZEROCOST_REQUEST_TIMEOUT": "1.5"}
    )
    assert (settings.token, settings.max_body, settings.auth, settings.request_timeout) == ("abc", 1000, False, 1.5)
    for name, text in (
        ("ZEROCOST_MAX_BODY", "ten"),
        ("ZEROCOST_MAX_BODY", "-1"),
        ("ZEROCOST_AUTH", "maybe"),
        ("ZEROCOST_TOKEN", " "),
    ):
        with pytest.raises(zerocost.RangeError):
            Settings.from_environment({name: text})


def test_the_app_is_made_when_it_is_asked_for():
    from starlette.applications import Starlette

    import zerocost.api

    assert isinstance(zerocost.api.app, Starlette)
    assert zerocost.api.app is zerocost.api.app
