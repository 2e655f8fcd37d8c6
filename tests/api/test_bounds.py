"""What holds a slot, and for how long; pages of other origins."""

import asyncio
import contextlib
import gc
import threading
import time
import weakref

import httpx2
import numpy as np
import pytest

from support.samples import Picky, sample_registry
from zerocost import ParallelArtifact, default_registry
from zerocost.api.calls import Calls
from zerocost.api.settings import Settings
from zerocost.api.wire.body import ClientGone
from zerocost.api.wire.request import Request
from zerocost.errors import DeadlineExceeded

pytestmark = pytest.mark.timeout(60)


def test_what_runs_keeps_its_slot_after_a_504(serve):
    client = serve(sample_registry(), slots=1, max_waiting=0)
    slow = client.post("/artifacts/picky/execute", json={"how": "sleep"}, headers={"request-timeout": "0.2"})
    assert slow.status_code == 504
    turned_away = client.post("/artifacts/picky/execute", json={"how": "fine"})
    assert turned_away.status_code == 429
    assert int(turned_away.headers["retry-after"]) >= 1
    assert "zerocost_pending_requests 1.0" in client.get("/metrics").text
    time.sleep(1.2)
    assert client.post("/artifacts/picky/execute", json={"how": "fine"}).status_code == 200
    assert "zerocost_pending_requests 0.0" in client.get("/metrics").text


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


@pytest.mark.parametrize("path", ["/artifacts/counting/execute", "/v2/models/counting/infer", "/chains/execute"])
def test_a_client_that_goes_away_cancels_what_waits(serve, registry, monkeypatch, path):
    monkeypatch.setattr(Counting, "calls", 0)
    registry.register_artifact("counting", Counting(), "custom")
    client = serve(registry, slots=1)
    began = threading.Thread(target=lambda: client.post(path, json=asking(path, "sleep")))
    began.start()
    time.sleep(0.3)
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


def test_services_do_not_wait_for_clients_that_went_away():
    async def run():
        ended = asyncio.Event()

        async def work():
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        async def receive():
            await asyncio.sleep(0.05)
            return {"type": "http.disconnect"}

        with pytest.raises(ClientGone):
            await Calls(Settings()).admit(Request({"headers": []}, receive), work(), None)
        await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(run())


def test_services_have_deadlines(serve):
    client = serve(default_registry())
    texts = {"texts": ["a long text of many words " * 20] * 500}
    answer = client.post("/services/model/embed", json=texts, headers={"request-timeout": "0.02"})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")


def test_keys_that_are_no_utf8_are_refused(serve):
    client = serve(default_registry())
    json = {"content-type": "application/json"}
    assert client.put("/services/memory/entries/%ff", content=b"1", headers=json).status_code == 422
    assert client.put("/services/memory/entries/%ef%bf%bd", content=b"1", headers=json).status_code == 204


def test_other_origins_are_answered_only_if_they_are_named(serve):
    ours, theirs = "https://pages.example", "https://evil.example"
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    path, body = "/artifacts/scale/execute", {"attention_matrix": [[1.0]]}

    closed = serve(sample_registry())
    assert closed.options(path, headers={"origin": ours, **preflight}).status_code in (403, 405)
    assert closed.post(path, json=body, headers={"origin": ours}).status_code == 403

    client = serve(sample_registry(), allowed_origins=(ours,))
    allowed = client.options(path, headers={"origin": ours, **preflight})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == ours
    answer = client.post(path, json=body, headers={"origin": ours})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ours
    refused = client.options(path, headers={"origin": theirs, **preflight})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    answer = client.post(path, json=body, headers={"origin": theirs})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_stages_are_named_over_rest_and_bounded_in_number(serve):
    registry = default_registry()
    registry.register_artifact("halve", Halve(), "parallel")
    client = serve(registry, max_fan_out=3)

    def post(stages, **more):
        body = {"tensor": [[8.0], [16.0], [24.0]], "num_stages": len(stages), "stages": stages, **more}
        return client.post("/artifacts/pipeline_parallel/execute", json=body)

    answer = post(["halve", {"artifact": "halve", "params": {"by": 4}}], num_microbatches=3, schedule="1f1b")
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"]["result"] == [[1.0], [2.0], [3.0]]
    assert post(["halve"] * 3).status_code == 200
    too_many = post(["halve"] * 4)
    assert (too_many.status_code, too_many.json()["code"]) == (413, "limit")
    assert "stages: 4 elements were given" in too_many.json()["detail"]
    assert post(["halve", "nothing"]).status_code == 404
    assert post(["halve", {"artifact": "halve", "params": {"by": "x"}}]).status_code == 422
    assert post([1]).status_code == 422


class Halve(ParallelArtifact):
    """Divides."""

    def process_parallel(self, tensor, by: float = 2.0):
        return np.asarray(tensor) / by


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
        await asyncio.sleep(0.05)
        for _ in range(3):
            await late()
        await asyncio.sleep(0.05)  # cancelling takes a turn of the loop
        gc.collect()
        kept = sum(body() is not None for body in bodies)
        busy.set()
        await running
        return kept

    try:
        assert asyncio.run(all_of_them()) == 0
    finally:
        busy.set()
        calls.close()
