"""Stopping a server: no accepted request is lost, and no request is waited for without end."""

import contextlib
import http.client
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

import zerocost
from support.raw_http import FINE, status
from support.requests import JSON, get, post
from support.samples import sample_registry
from support.servers import metric, pending_requests, serve_command, serve_program, serve_samples
from support.waiting import wait_until
from zerocost.api.server.run import background_server
from zerocost.api.settings import Settings

STUCK_PROGRAM = """
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
    with serve_program(STUCK_PROGRAM, **settings) as server:
        yield server


@pytest.mark.parametrize("kind", RUNNING)
def test_the_process_ends_and_running_requests_get_a_503(ending, kind):
    connection = _begin(ending.port, *RUNNING[kind])
    if RUNNING[kind][2] is not ...:
        with httpx2.Client(base_url=ending.url, trust_env=False, timeout=30) as client:
            wait_until(lambda: pending_requests(client) == 1)
    else:
        # The server reads its connections in order: once it answers a later one, it has this head.
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


def test_a_stopping_server_is_not_ready():
    app = zerocost.create_app(sample_registry(), Settings())
    with background_server(app) as url:
        assert httpx2.get(f"{url}/readyz", trust_env=False).status_code == 200
        app.state.stop_accepting()
        for path in ("/readyz", "/v2/health/ready"):
            answer = httpx2.get(f"{url}{path}", trust_env=False)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
        assert httpx2.get(f"{url}/livez", trust_env=False).status_code == 200


@pytest.mark.timeout(60)
def test_the_server_is_not_ready_before_it_stops_listening():
    with serve_command(ZEROCOST_DRAIN_DELAY="2") as (process, url, _):
        assert get(url, "/readyz").status_code == 200
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: get(url, "/readyz").status_code == 503, 1.5)
        process.send_signal(signal.SIGTERM)  # a second one does not shorten the delay
        assert post(url, "/artifacts/tensor_parallel/execute", {"tensor": [1.0, 2.0]}).status_code == 200
        assert process.wait(30) == 0
    with serve_command(ZEROCOST_DRAIN_DELAY="60") as (process, url, _):
        process.send_signal(signal.SIGINT)
        wait_until(lambda: get(url, "/readyz").status_code == 503)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.mark.timeout(60)
def test_requests_that_do_not_end_in_time_are_abandoned():
    with serve_command("--artifact", "stuck=support.samples:Stuck", ZEROCOST_DRAIN_TIMEOUT="0.5") as (
        process,
        url,
        log,
    ):
        caller = threading.Thread(target=_try, args=(url,))
        caller.start()
        wait_until(lambda: metric(get(url, "/metrics").text, "zerocost_pending_requests") == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        caller.join()
    assert any("given up" in line for line in log)


def _try(url):
    with contextlib.suppress(httpx2.TransportError):
        post(url, "/artifacts/stuck/execute", {})


def test_sigterm_under_load_loses_nothing():
    with serve_samples() as server:
        stopped = threading.Event()
        complete, broken = [], []

        def load():
            while not broken:
                after = stopped.is_set()
                try:
                    connection = server.connect()
                except OSError:
                    return  # the server no longer listens
                with connection:
                    try:
                        while True:
                            after = stopped.is_set()
                            connection.sendall(FINE)
                            answer = b""
                            while answer.count(b"}") < 2:
                                piece = connection.recv(1 << 16)
                                if not piece:
                                    raise ConnectionResetError
                                answer += piece
                            complete.append(status(answer))
                            if b"connection: close" in answer:
                                break
                    except OSError:
                        # A connection that was idle at that moment may go, but no answer is cut, and none is lost
                        # that was asked for before.
                        if answer or not (after or stopped.is_set()):
                            broken.append(answer)
                        return

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(complete) > 50 or broken)
        stopped.set()
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert broken == []
        assert set(complete) == {200}
        assert len(complete) > 50
        assert server.process.wait(30) == 0
