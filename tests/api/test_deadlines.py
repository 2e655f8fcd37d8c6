"""Deadlines of requests of every kind."""

import http.client
import json
import time
from contextlib import closing

import pytest

from support.requests import JSON, MEMORY_REQUESTS, execute, memory_request, problem
from support.samples import sample_registry, slow_registry
from zerocost import default_registry


def test_deadlines(serve):
    client = serve(sample_registry(), request_timeout=0.2)
    problem(execute(client, "picky", how="sleep"), 504, "deadline")
    client = serve(sample_registry())
    answer = client.post("/artifacts/picky/execute", json={"how": "sleep"}, headers={"request-timeout": "0.1"})
    problem(answer, 504, "deadline")
    for wrong in ("soon", "-1", "nan", "1_0", ""):
        answer = client.post("/artifacts/picky/execute", json={"how": "fine"}, headers={"request-timeout": wrong})
        problem(answer, 400)


def test_services_have_deadlines(serve):
    client = serve(default_registry())
    texts = {"texts": ["a long text of many words " * 20] * 500}
    answer = client.post("/services/model/embed", json=texts, headers={"request-timeout": "0.02"})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")


@pytest.mark.alone
@pytest.mark.parametrize("kind", MEMORY_REQUESTS)
def test_deadlines_hold_for_every_memory_request(serve, kind):
    client = serve(slow_registry(4.0))
    began = time.monotonic()
    answer = memory_request(client, kind, **{"request-timeout": "0.5"})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")
    assert time.monotonic() - began < 3


_INFER = {"inputs": [{"name": "attention_matrix", "datatype": "FP64", "shape": [1, 1], "data": [1.0]}]}


_COMPUTED = {
    "artifact": ("/artifacts/sparse_attention/execute", {"attention_matrix": [[1.0]]}),
    "quick memory": ("/artifacts/lru_cache/execute", {"operation": "stats"}),
    "chain": ("/chains/execute", {"pipeline": [{"artifact": "lru_cache"}], "initial_input": {"operation": "stats"}}),
    "v2": ("/v2/models/sparse_attention/infer", _INFER),
    "service": ("/services/tokenizer/count", {"texts": "a"}),
}


@pytest.mark.parametrize("kind", _COMPUTED)
def test_a_deadline_holds_for_what_is_answered_at_once(serve, kind):
    path, body = _COMPUTED[kind]
    answer = serve().post(path, json=body, headers={"request-timeout": "1e-6"})
    assert answer.status_code == 504


def _incomplete(port, method, path, headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    connection.putrequest(method, path)
    for name, value in {"content-length": "1000", "request-timeout": "0.3", **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection


@pytest.mark.alone
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        *(("POST", path, JSON) for path, _ in _COMPUTED.values()),
        ("PUT", "/services/memory/entries/k", JSON),
        ("POST", "/artifacts/sparse_attention/execute", {"content-type": "application/vnd.safetensors"}),
        ("POST", "/chains/execute", {"content-type": "application/vnd.safetensors"}),
        ("POST", "/v2/models/sparse_attention/infer", {"inference-header-content-length": "500"}),
    ],
)
def test_a_deadline_holds_while_the_body_arrives(serve, method, path, headers, begun):
    with closing(_incomplete(serve().base_url.port, method, path, headers)) as connection:
        if begun:  # eight bytes of safetensors are the length of its head
            is_binary = headers.get("content-type", "").endswith("safetensors")
            connection.send((99).to_bytes(8, "little") if is_binary else b'{"attention_matrix": [[')
        began = time.monotonic()
        answer = connection.getresponse()
        assert time.monotonic() - began < 1
        document = json.loads(answer.read())
    assert (answer.status, answer.headers["connection"]) == (504, "close")
    assert "before the body had arrived" in document["error"]


def test_the_body_deadline_of_the_server_is_a_408(serve):
    client = serve(request_timeout=0.3)
    path = "/artifacts/sparse_attention/execute"
    with closing(_incomplete(client.base_url.port, "POST", path, {**JSON, "request-timeout": "20"})) as connection:
        assert connection.getresponse().status == 408
