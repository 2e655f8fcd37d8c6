"""Serving and stopping: nothing that was accepted is lost."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import pytest

import zerocost
from support.samples import sample_registry
from support.servers import pending_requests, serve_program, serving
from support.waiting import wait_until
from zerocost.api.server.run import background_server
from zerocost.api.settings import Settings

PROGRAM = """
import sys
from support.samples import sample_registry
from zerocost import create_app
from zerocost.api.server.run import serve
from zerocost.api.settings import Settings
serve(create_app(sample_registry(), Settings()), port=int(sys.argv[1]))
"""


def test_sigterm_under_load_loses_nothing_and_exits_with_0():
    with serve_program(PROGRAM) as server, httpx2.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(client.post, "/artifacts/picky/execute", json={"how": "sleep"}) for _ in range(4)]
            wait_until(lambda: pending_requests(client) == 4)
            server.process.send_signal(signal.SIGTERM)
            assert [answer.result().status_code for answer in answers] == [200] * 4
        assert server.process.wait(30) == 0


def test_a_server_that_stops_is_not_ready():
    app = zerocost.create_app(sample_registry(), Settings())
    with background_server(app) as url:
        assert httpx2.get(f"{url}/readyz", trust_env=False).status_code == 200
        app.state.stop_accepting()
        for path in ("/readyz", "/v2/health/ready"):
            answer = httpx2.get(f"{url}{path}", trust_env=False)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
        assert httpx2.get(f"{url}/livez", trust_env=False).status_code == 200


def test_a_server_that_cannot_start_says_so():
    async def broken(scope, receive, send):
        raise RuntimeError("no lifespan here")

    with pytest.raises(zerocost.ServiceUnavailable), background_server(broken, log_level="critical"):
        pass


def test_outputs_that_would_not_fit_are_refused_before_they_are_computed():
    empty = {"dtype": "FP32", "data": []}
    inputs = {
        "query": {**empty, "shape": [10**6, 0]},
        "key": {**empty, "shape": [0, 0]},
        "value": {**empty, "shape": [0, 10**6]},
    }
    with serving() as client:
        answer = client.post("/artifacts/scaled_dot_product_attention/execute", json=inputs)
        assert answer.status_code == 413, answer.text
        many = {"tensor": [1.0], "num_splits": 10**9}
        answer = client.post("/artifacts/tensor_parallel/execute", json=many)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == "/num_splits"
        chain = {"pipeline": [{"artifact": "tensor_parallel"}], "initial_input": many}
        assert client.post("/chains/execute", json=chain).status_code == 422
        answer = client.post("/artifacts/tensor_parallel/execute", json={**many, "num_splits": 1000})
        assert len(answer.json()["data"]["result"]) == 1000


def test_slow_senders_are_ended():
    with serving(sample_registry(), request_timeout=0.3) as client:

        def slowly():
            yield b"{"
            time.sleep(2)
            yield b"}"

        headers = {"content-type": "application/json"}
        try:
            answer = client.post("/artifacts/scale/execute", content=slowly(), headers=headers)
            assert answer.status_code == 408
        except httpx2.TransportError:
            pass  # the server closed the connection while the client was still sending
        assert client.post("/artifacts/scale/execute", json={"attention_matrix": np.eye(2).tolist()}).status_code == 200
