"""Admission over HTTP: which requests hold a slot, which wait, and which are shed."""

import asyncio
import concurrent.futures
import contextlib
import gc
import threading
import time
import weakref

import httpx2
import numpy as np
import pytest

from support.requests import MEMORY_REQUESTS, execute, memory_request, problem
from support.samples import Picky, SlowMemory, sample_registry, slow_registry
from support.servers import pending_requests
from support.waiting import wait_until, wait_until_async
from zerocost import (
    AttentionArtifact,
    ChainArtifact,
    default_registry,
)
from zerocost.api.calls import Calls
from zerocost.api.settings import Settings
from zerocost.api.wire.body import ClientGone
from zerocost.api.wire.request import Request
from zerocost.errors import DeadlineExceeded


def test_requests_beyond_the_queue_are_shed(serve):
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


def test_a_running_request_keeps_its_slot_after_a_504(serve):
    client = serve(sample_registry(), slots=1, max_waiting=0)
    slow = client.post("/artifacts/picky/execute", json={"how": "sleep"}, headers={"request-timeout": "0.2"})
    assert slow.status_code == 504
    turned_away = client.post("/artifacts/picky/execute", json={"how": "fine"})
    assert turned_away.status_code == 429
    assert int(turned_away.headers["retry-after"]) >= 1
    assert "zerocost_pending_requests 1.0" in client.get("/metrics").text
    wait_until(lambda: pending_requests(client) == 0)
    assert client.post("/artifacts/picky/execute", json={"how": "fine"}).status_code == 200


class Counting(Picky):
    """Counts its calls."""

    calls = 0

    def execute(self, input_data, context):
        Counting.calls += 1
        return super().execute(input_data, context)


def asking(path, how):
    if "/v2/" in path:
        return {"inputs": [{"name": "how", "datatype": "BYTES", "shape": [1], "data": [how]}]}
    return {"how": how} if "artifacts" in path else {"pipeline": [{"artifact": "counting", "params": {"how": how}}]}


@pytest.mark.alone
@pytest.mark.parametrize("path", ["/artifacts/counting/execute", "/v2/models/counting/infer", "/chains/execute"])
def test_a_client_that_disconnects_cancels_its_waiting_request(serve, registry, monkeypatch, path):
    monkeypatch.setattr(Counting, "calls", 0)
    registry.register_artifact("counting", Counting(), "custom")
    client = serve(registry, slots=1)
    began = threading.Thread(target=lambda: client.post(path, json=asking(path, "sleep")))
    began.start()
    wait_until(lambda: Counting.calls == 1)
    for _ in range(3):
        with pytest.raises(httpx2.TimeoutException):
            client.post(path, json=asking(path, "sleep"), timeout=0.1)
    began.join()
    assert client.post(path, json=asking(path, "fine")).status_code == 200
    assert Counting.calls == 2, "the three that went away were computed"
    metrics = client.get("/metrics").text
    assert 'zerocost_answers_total{status="499"} 3.0' in metrics
    name = "(chains)" if "chains" in path else "counting"
    assert f'zerocost_failures_total{{artifact="{name}"}} 3.0' in metrics


def test_services_stop_when_the_client_disconnects():
    async def run():
        begun, ended = asyncio.Event(), asyncio.Event()

        async def work():
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        async def receive():
            await begun.wait()
            return {"type": "http.disconnect"}

        with pytest.raises(ClientGone):
            await Calls(Settings()).admit(Request({"headers": []}, receive), work(), None)
        await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(run())


def test_a_cancelled_request_leaves_nothing_in_the_queue():
    calls, busy = Calls(Settings(slots=1, max_waiting=4)), threading.Event()
    bodies = []

    async def receive():
        await asyncio.Event().wait()

    def answer(job, deadline):
        return calls.admit(Request({"headers": []}, receive), calls.compute_pool.run(job), deadline)

    async def late():
        body = np.zeros(9)
        bodies.append(weakref.ref(body))
        with contextlib.suppress(DeadlineExceeded):
            await answer(lambda body=body: body.sum(), time.monotonic() + 0.01)

    async def all_of_them():
        running = asyncio.ensure_future(answer(lambda: busy.wait(30), None))
        await wait_until_async(lambda: calls.pending == 1)
        for _ in range(3):
            await late()
        assert len(bodies) == 3
        await wait_until_async(lambda: not kept())  # cancelling takes a turn of the loop
        busy.set()
        await running

    def kept():
        gc.collect()
        return [body for body in bodies if body() is not None]

    try:
        asyncio.run(all_of_them())
    finally:
        busy.set()
        calls.close()


class Held(AttentionArtifact):
    """Computes until it is let go."""

    def __init__(self):
        self.go, self.begun = threading.Event(), threading.Semaphore(0)

    def process_attention(self, attention_matrix):
        self.begun.release()
        self.go.wait(60)
        return attention_matrix


@pytest.mark.alone
@pytest.mark.parametrize("pipeline", [["lru_cache"], ["sparse_attention", "remembered"], ["lru_cache", "lru_cache"]])
def test_chains_that_wait_for_io_hold_no_slot(serve, pipeline):
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
        wait_until(lambda: pending_requests(client) == 4)
        began = time.monotonic()
        answer = client.post("/artifacts/sparse_attention/execute", json={"attention_matrix": matrix})
        assert (answer.status_code, time.monotonic() - began < 1) == (200, True)
        assert not any(answer.done() for answer in answers)
        assert {answer.result().status_code for answer in answers} == {200}


@pytest.mark.alone
@pytest.mark.parametrize("kind", MEMORY_REQUESTS)
def test_one_bound_holds_for_all_waiting_requests(serve, kind):
    client = serve(slow_registry(3.0), slots=1, max_waiting=2)
    with concurrent.futures.ThreadPoolExecutor(14) as pool:
        answers = [pool.submit(memory_request, client, kind) for _ in range(14)]
        wait_until(lambda: sum(answer.done() for answer in answers) == 11)
        # Requests that need no slot are answered meanwhile.
        began = time.monotonic()
        assert client.get("/livez").status_code == 200
        page = client.get("/metrics").text
        assert time.monotonic() - began < 1.5
        assert "zerocost_pending_requests 3.0" in page
        statuses = [answer.result() for answer in answers]
    shed = [answer for answer in statuses if answer.status_code == 429]
    assert len(shed) == 11
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in shed)


def test_waiting_requests_of_all_kinds_are_one_number(serve):
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
        wait_until(lambda: pending_requests(client) == 3)
        for path, body in [
            *requests,
            ("/chains/execute", {"pipeline": [{"artifact": "held"}], "initial_input": {"attention_matrix": [[1.0]]}}),
            ("/services/tokenizer/count", {"texts": "a"}),
        ]:
            assert client.post(path, json=body).status_code == 429, path
        held.go.set()
        assert [answer.result().status_code for answer in answers] == [200, 200, 200]


def test_batched_requests_hold_one_slot(serve):
    held = Held()
    registry = default_registry()
    registry.register_artifact("held", held, "attention")
    client = serve(registry, slots=2)
    body = {"input_ids": [1, 2], "artifacts": {"attention": {"artifact": "held"}}}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(client.post, "/services/model/forward", json=body) for _ in range(8)]
        assert held.begun.acquire(timeout=20)
        wait_until(lambda: pending_requests(client) == 8)
        # Seven wait for the next batch; the second slot is free.
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
        for kind in MEMORY_REQUESTS[1:2] + MEMORY_REQUESTS[:1] + MEMORY_REQUESTS[4:]:
            assert memory_request(client, kind, **{"request-timeout": "10"}).status_code < 300, kind
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
        ("/services/tokenizer/encode", {"texts": "a" * 100_000}),
        ("/services/tokenizer/decode", {"input_ids": [1, 70, 2]}),
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
