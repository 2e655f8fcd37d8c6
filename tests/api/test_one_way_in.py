"""Requests of every kind are admitted, bounded in time and drained alike: artifacts, chains, /v2, services, entries."""

import concurrent.futures
import http.client
import json
import signal
import threading
import time
from contextlib import closing

import httpx2
import numpy as np
import pytest

from support.contract import context
from support.samples import SlowMemory
from support.servers import pending_requests, serve_program
from support.waiting import wait_until
from zerocost import (
    Artifact,
    AttentionArtifact,
    ChainArtifact,
    OutOfMemory,
    RemoteArtifact,
    default_registry,
)

pytestmark = pytest.mark.timeout(120)

JSON = {"content-type": "application/json"}


class Held(AttentionArtifact):
    """Computes until it is let go."""

    def __init__(self):
        self.go, self.begun = threading.Event(), threading.Semaphore(0)

    def process_attention(self, attention_matrix):
        self.begun.release()
        self.go.wait(60)
        return attention_matrix


class Hungry(Artifact):
    """Asks for more memory than there is."""

    def get_schema(self):
        return {"type": "object", "properties": {"how": {"enum": ["python", "numpy", "kernel"]}}, "required": ["how"]}

    def execute(self, input_data, context):
        if input_data["how"] == "python":
            raise MemoryError
        if input_data["how"] == "kernel":
            raise OutOfMemory("12 GiB of scratch are needed, which the system does not give")
        return {"array": np.empty(1 << 58, np.uint8)}


def slow_registry(seconds):
    registry = default_registry()
    registry.register_artifact("lru_cache", SlowMemory(seconds), "memory", replace=True)
    return registry


def of_memory(client, kind, **headers):
    """A request that a memory artifact answers."""
    entry = "/services/memory/entries/k"
    if kind == "get":
        return client.get(entry, headers=headers)
    if kind == "put":
        return client.put(entry, content=b"1", headers={**JSON, **headers})
    if kind == "delete":
        return client.delete(entry, headers=headers)
    if kind == "method":
        return client.post("/services/memory/get", json={"key": "k"}, headers=headers)
    return client.post("/artifacts/lru_cache/execute", json={"operation": "get", "key": "k"}, headers=headers)


MEMORY = ["get", "put", "delete", "method", "artifact"]


@pytest.mark.parametrize("kind", MEMORY)
def test_deadlines_hold_whatever_is_asked_for(serve, kind):
    client = serve(slow_registry(4.0))
    began = time.monotonic()
    answer = of_memory(client, kind, **{"request-timeout": "0.5"})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")
    assert time.monotonic() - began < 3


_INFER = {"inputs": [{"name": "attention_matrix", "datatype": "FP64", "shape": [1, 1], "data": [1.0]}]}
_COMPUTED = {
    "artifact": ("/artifacts/sparse_attention/execute", {"attention_matrix": [[1.0]]}),
    "quick memory": ("/artifacts/lru_cache/execute", {"operation": "stats"}),
    "chain": ("/chains/execute", {"pipeline": [{"artifact": "lru_cache"}], "initial_input": {"operation": "stats"}}),
    "v2": ("/v2/models/sparse_attention/infer", _INFER),
    "service": ("/services/tokenizer/count", {"text": "a"}),
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


def test_the_servers_own_limit_for_a_body_stays_a_408(serve):
    client = serve(request_timeout=0.3)
    path = "/artifacts/sparse_attention/execute"
    with closing(_incomplete(client.base_url.port, "POST", path, {**JSON, "request-timeout": "20"})) as connection:
        assert connection.getresponse().status == 408


@pytest.mark.parametrize("pipeline", [["lru_cache"], ["sparse_attention", "remembered"], ["lru_cache", "lru_cache"]])
def test_chains_that_wait_outside_hold_no_slot(serve, pipeline):
    registry = default_registry()
    memory = SlowMemory(2.0)
    memory.waits = True
    registry.register_artifact("lru_cache", memory, "memory", replace=True)
    registry.register_artifact("remembered", ChainArtifact([{"artifact": "lru_cache"}], registry), "chain")
    client = serve(registry, slots=1)
    steps = [{"artifact": name, "params": {"key": "k"}, "inputs": {}} for name in pipeline]
    if pipeline[0] == "sparse_attention":
        steps[0]["params"] = {"attention_matrix": [[1.0]]}
    held = [("/chains/execute", {"pipeline": steps}), ("/artifacts/remembered/execute", {"key": "k"})]
    matrix = np.zeros((64, 64)).tolist()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(client.post, path, json=body) for path, body in held * 2]
        time.sleep(0.5)
        began = time.monotonic()
        answer = client.post("/artifacts/sparse_attention/execute", json={"attention_matrix": matrix})
        assert (answer.status_code, time.monotonic() - began < 1) == (200, True)
        assert not any(answer.done() for answer in answers)
        assert {answer.result().status_code for answer in answers} == {200}


@pytest.mark.parametrize("kind", MEMORY)
def test_one_bound_holds_for_all_that_wait(serve, kind):
    client = serve(slow_registry(3.0), slots=1, max_waiting=2)
    with concurrent.futures.ThreadPoolExecutor(14) as pool:
        answers = [pool.submit(of_memory, client, kind) for _ in range(14)]
        time.sleep(1.0)
        # What nobody waits behind is answered meanwhile.
        began = time.monotonic()
        assert client.get("/livez").status_code == 200
        page = client.get("/metrics").text
        assert time.monotonic() - began < 1.5
        assert "zerocost_pending_requests 3.0" in page
        statuses = [answer.result() for answer in answers]
    shed = [answer for answer in statuses if answer.status_code == 429]
    assert len(shed) == 11
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in shed)


def test_what_waits_is_one_number_whatever_it_waits_for(serve):
    held = Held()
    registry = slow_registry(2.0)
    registry.register_artifact("held", held, "attention")
    client = serve(registry, slots=1, max_waiting=2)
    chosen = {"attention": {"artifact": "held"}}
    requests = [
        ("/artifacts/held/execute", {"attention_matrix": [[1.0]]}),
        ("/services/model/forward", {"input_ids": [1, 2], "artifacts": chosen}),
        ("/services/memory/get", {"key": "k"}),
    ]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(client.post, path, json=body) for path, body in requests]
        assert held.begun.acquire(timeout=20)
        time.sleep(0.5)
        for path, body in [
            *requests,
            ("/chains/execute", {"pipeline": [{"artifact": "held"}], "initial_input": {"attention_matrix": [[1.0]]}}),
            ("/services/tokenizer/count", {"text": "a"}),
        ]:
            assert client.post(path, json=body).status_code == 429, path
        held.go.set()
        assert [answer.result().status_code for answer in answers] == [200, 200, 200]


def test_requests_that_are_computed_together_hold_one_slot(serve):
    held = Held()
    registry = default_registry()
    registry.register_artifact("held", held, "attention")
    client = serve(registry, slots=2)
    body = {"input_ids": [1, 2], "artifacts": {"attention": {"artifact": "held"}}}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(client.post, "/services/model/forward", json=body) for _ in range(8)]
        assert held.begun.acquire(timeout=20)
        time.sleep(0.5)
        # Seven wait for the next batch; the second slot is free for whoever computes.
        matrix = np.zeros((64, 64)).tolist()
        answer = client.post("/artifacts/sparse_attention/execute", json={"attention_matrix": matrix}, timeout=10)
        assert answer.status_code == 200
        assert "zerocost_pending_requests 8.0" in client.get("/metrics").text
        held.go.set()
        assert {answer.result().status_code for answer in answers} == {200}


def test_memory_is_answered_while_every_slot_computes(serve):
    held = Held()
    registry = default_registry()
    registry.register_artifact("held", held, "attention")
    client = serve(registry, slots=1)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        busy = pool.submit(client.post, "/artifacts/held/execute", json={"attention_matrix": [[1.0]]})
        assert held.begun.acquire(timeout=20)
        for kind in MEMORY[1:2] + MEMORY[:1] + MEMORY[4:]:
            assert of_memory(client, kind, **{"request-timeout": "10"}).status_code < 300, kind
        held.go.set()
        assert busy.result().status_code == 200


def test_nothing_runs_on_the_default_threads_of_asyncio(serve):
    before = {thread.name for thread in threading.enumerate()}
    client = serve(default_registry())
    large = np.zeros((200, 200)).tolist()
    chain = {"pipeline": [{"artifact": "sparse_attention"}], "initial_input": {"attention_matrix": large}}
    posts = [
        ("/artifacts/sparse_attention/execute", {"attention_matrix": large}),
        ("/chains/execute", chain),
        ("/chains/plan", {"pipeline": [{"artifact": "sparse_attention"}]}),
        ("/services/model/forward", {"input_ids": [1, 2], "output_attentions": True}),
        ("/services/model/embed", {"texts": ["a text"] * 3000}),
        ("/services/tokenizer/encode", {"text": "a" * 100_000}),
        ("/services/tokenizer/decode", {"ids": [1, 70, 2]}),
        ("/services/memory/put", {"key": "k", "value": "v"}),
        ("/services/memory/get", {"key": "k"}),
        ("/services/memory/stats", {}),
        ("/v2/models/tensor_parallel/infer", _infer(large)),
        ("/v2/repository/index", {}),
    ]
    for path, body in posts:
        assert client.post(path, json=body).status_code == 200, path
    for path in ("/metrics", "/v2/models/stats", "/services/memory/entries/k", "/openapi.json"):
        assert client.get(path).status_code == 200, path
    threads = {thread.name for thread in threading.enumerate()} - before
    assert not [name for name in threads if name.startswith("asyncio_")]
    assert [name for name in threads if name.startswith("zerocost-")]


def _infer(matrix):
    flat = [number for row in matrix for number in row]
    tensor = {"name": "tensor", "datatype": "FP64", "shape": [len(matrix), len(matrix[0])], "data": flat}
    return {"inputs": [tensor], "parameters": {"num_splits": 1, "timeout": 60_000_000}}


@pytest.mark.parametrize("how", ["python", "numpy", "kernel"])
def test_too_little_memory_is_a_503(serve, how):
    registry = default_registry()
    registry.register_artifact("hungry", Hungry(), "custom")
    client = serve(registry)
    chain = {"pipeline": [{"artifact": "hungry"}], "initial_input": {"how": how}}
    for path, body in (("/artifacts/hungry/execute", {"how": how}), ("/chains/execute", chain)):
        answer = client.post(path, json=body)
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["code"] == "out_of_memory"
    tensor = {"name": "how", "datatype": "BYTES", "shape": [1], "data": [how]}
    answer = client.post("/v2/models/hungry/infer", json={"inputs": [tensor]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json().keys() == {"error"}


def test_too_little_memory_elsewhere_is_what_it_is_here(serve, monkeypatch):
    monkeypatch.setattr("zerocost.client.time.sleep", lambda _: None)
    registry = default_registry()
    registry.register_artifact("hungry", Hungry(), "custom")
    client = serve(registry)
    remote = RemoteArtifact(str(client.base_url), "hungry", timeout=10)
    with closing(remote), pytest.raises(OutOfMemory, match="12 GiB"):
        remote.execute({"how": "kernel"}, context("hungry"))


# The end

PROGRAM = """
import sys, time
from support.samples import SlowMemory, Stuck
from zerocost import AttentionArtifact, create_app, default_registry
from zerocost.api.server.run import serve

class StuckAttention(AttentionArtifact):
    def process_attention(self, attention_matrix):
        time.sleep(600)

registry = default_registry()
registry.register_artifact("lru_cache", SlowMemory(600), "memory", replace=True)
registry.register_artifact("stuck", Stuck(), "custom")
registry.register_artifact("stuck_attention", StuckAttention(), "attention")
serve(create_app(registry), port=int(sys.argv[1]), log_level="error")
"""

FORWARD = {"input_ids": [1, 2], "artifacts": {"attention": {"artifact": "stuck_attention"}}}
RUNNING = {
    "artifact": ("POST", "/artifacts/stuck/execute", {}),
    "chain": ("POST", "/chains/execute", {"pipeline": [{"artifact": "stuck"}]}),
    "v2": (
        "POST",
        "/v2/models/stuck_attention/infer",
        {"inputs": [{"name": "attention_matrix", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]},
    ),
    "model": ("POST", "/services/model/forward", FORWARD),
    "embedding": ("POST", "/services/model/embed", {"texts": ["a"], "artifacts": FORWARD["artifacts"]}),
    "memory": ("POST", "/services/memory/get", {"key": "k"}),
    "entry": ("GET", "/services/memory/entries/k", None),
    "a body that does not come": ("POST", "/artifacts/stuck/execute", ...),
}


def _begin(port, method, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    if body is ...:
        connection.putrequest(method, path)
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", "100")
        connection.endheaders()
    else:
        connection.request(method, path, None if body is None else json.dumps(body), JSON)
    return connection


@pytest.fixture
def ending():
    """A server process that waits half a second for running requests when it stops."""
    settings = {"ZEROCOST_DRAIN_TIMEOUT": "0.5", "ZEROCOST_SLOTS": "8", "ZEROCOST_REQUEST_TIMEOUT": "0"}
    with serve_program(PROGRAM, **settings) as server:
        yield server


@pytest.mark.parametrize("kind", RUNNING)
def test_the_process_ends_whatever_still_runs_and_what_ran_has_its_503(ending, kind):
    connection = _begin(ending.port, *RUNNING[kind])
    if RUNNING[kind][2] is not ...:
        with httpx2.Client(base_url=ending.url, trust_env=False, timeout=30) as client:
            wait_until(lambda: pending_requests(client) == 1)
    else:
        # The server reads its connections one after another: what comes later is answered after it has this head.
        assert ending.is_ready()
    ending.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    answer = connection.getresponse()
    document = json.loads(answer.read())
    connection.close()
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-request-id"]
    assert "shutting down" in document["error"]
    assert ending.process.wait(30) == 0
    assert time.monotonic() - began < 20
