"""``zerocost serve`` as it runs in production: several workers, TLS, draining."""

import contextlib
import gzip
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from support.servers import metric, needs_proc, serve_command
from support.waiting import wait_until
from zerocost import ServiceUnavailable
from zerocost.api.server.run import listen
from zerocost.api.server.supervisor import serve_workers
from zerocost.api.settings import Settings

PICKY = ("--artifact", "picky=support.samples:Picky")
JSON = {"content-type": "application/json"}


def get(url, path, **options):
    return httpx2.get(f"{url}{path}", trust_env=False, timeout=30, **options)


def post(url, path, body, **options):
    return httpx2.post(f"{url}{path}", json=body, trust_env=False, timeout=30, **options)


def figure(url, name):
    return metric(get(url, "/metrics").text, name)


def children(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@needs_proc
@pytest.mark.timeout(180)
def test_workers_answer_for_each_other_and_are_replaced():
    with serve_command(*PICKY, "--workers", "2") as (process, url, log):
        wait_until(lambda: figure(url, "zerocost_workers") == 2)
        for _ in range(40):
            assert post(url, "/artifacts/picky/execute", {"how": "fine"}).status_code == 200
        for _ in range(4):
            put = httpx2.put(f"{url}/services/memory/entries/a", content=b"1", headers=JSON, trust_env=False)
            assert put.status_code == 204
        name = 'zerocost_stage_seconds_count{artifact="picky",stage="total"}'
        wait_until(lambda: figure(url, name) == 40)
        wait_until(lambda: figure(url, 'zerocost_memory_entries{artifact="lru_cache"}') >= 1)

        def counted():
            return get(url, "/v2/models/picky/stats").json()["model_stats"][0]["inference_count"]

        wait_until(lambda: counted() == 40)
        # What one worker would change, the others would not know.
        change = {"artifact_name": "sparse_attention"}
        answer = post(url, "/services/model/use_artifact", change)
        assert answer.status_code in (403, 409)
        time.sleep(1.5)  # every worker has written down what it counted
        victim = children(process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(set(children(process.pid)) - {victim}) == 2)
        wait_until(lambda: figure(url, "zerocost_workers") == 2)
        assert figure(url, name) == 40, "what a worker counted outlives it"
        assert any("is replaced" in line for line in log)
        # Under load, nothing that was accepted is lost.
        answers = []
        threads = [
            threading.Thread(
                target=lambda: answers.append(post(url, "/artifacts/picky/execute", {"how": "sleep"}).status_code)
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1.5)  # on a busy machine they take a while to be there
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert answers == [200] * 4
        assert process.wait(30) == 0


def test_an_administrator_cannot_change_one_of_several(serve):
    client = serve(admin_token="a", processes=2, model_control=True)
    client.headers["authorization"] = "Bearer a"
    for path, body in (
        ("/services/model/use_artifact", {"artifact_name": "sparse_attention"}),
        ("/services/model/stop_artifact", {"interface": "attention"}),
    ):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "several_workers")
    assert client.post("/v2/repository/models/lru_cache/unload", json={}).status_code == 409


@needs_proc
@pytest.mark.timeout(120)
def test_workers_end_with_a_supervisor_that_is_killed():
    with serve_command("--workers", "2") as (process, url, _):
        wait_until(lambda: figure(url, "zerocost_workers") == 2)
        workers = children(process.pid)
        process.kill()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() and is_running(pid) for pid in workers))


def is_running(pid):
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def broken_app(settings):
    raise RuntimeError("no app today")


@pytest.mark.timeout(60)
def test_workers_that_do_not_start_end_the_server():
    with pytest.raises(ServiceUnavailable, match="did not start"):
        serve_workers(broken_app, Settings(processes=2), listen("127.0.0.1", 0))


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
def test_what_does_not_end_in_time_is_given_up():
    with serve_command("--artifact", "stuck=support.samples:Stuck", ZEROCOST_DRAIN_TIMEOUT="0.5") as (
        process,
        url,
        log,
    ):
        caller = threading.Thread(target=_try, args=(url,))
        caller.start()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        caller.join()
    assert any("given up" in line for line in log)


def _try(url):
    with contextlib.suppress(httpx2.TransportError):
        post(url, "/artifacts/stuck/execute", {})


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for localhost and 127.0.0.1, and its key with and without a password."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "certificate.pem",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-passout", "pass:word", "-in", "key.pem", "-out", "locked.pem"],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    return folder


@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_tls(certificate, workers):
    files = ("--ssl-certfile", certificate / "certificate.pem", "--ssl-keyfile", certificate / "locked.pem")
    options = (*map(str, files), "--ssl-keyfile-password", "word", "--workers", workers)
    trusting = ssl.create_default_context(cafile=certificate / "certificate.pem")
    with serve_command(*options, ZEROCOST_TOKEN="t") as (process, url, _):
        assert url.startswith("https://127.0.0.1:")
        assert get(url, "/livez", verify=trusting).status_code == 200
        assert get(url, "/artifacts", verify=trusting).status_code == 401
        token = {"authorization": "Bearer t"}
        assert get(url, "/artifacts", verify=trusting, headers=token).status_code == 200
        with pytest.raises(httpx2.TransportError):
            get(url, "/livez", verify=ssl.create_default_context())
        with pytest.raises(httpx2.TransportError):
            get(url.replace("https", "http"), "/livez")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.timeout(60)
def test_clients_may_need_a_certificate(certificate):
    own, key = str(certificate / "certificate.pem"), str(certificate / "key.pem")
    with serve_command("--ssl-certfile", own, "--ssl-keyfile", key, "--ssl-ca-certs", own) as (_, url, _):
        context = ssl.create_default_context(cafile=own)
        with pytest.raises(httpx2.TransportError):
            get(url, "/livez", verify=context)
        context.load_cert_chain(own, key)
        assert get(url, "/livez", verify=context).status_code == 200
        # The rules for callers without a token hold as they do without TLS.
        headers = {"origin": url}
        assert get(url, "/artifacts", verify=context, headers=headers).status_code == 200
        assert get(url, "/artifacts", verify=context, headers={"origin": "https://evil.example"}).status_code == 403
        assert get(url, "/artifacts", verify=context, headers={"host": "evil.example"}).status_code == 403


def test_tls_that_cannot_work_is_refused_at_once(certificate):
    def refused(*options):
        done = subprocess.run(
            [sys.executable, "-m", "zerocost", "serve", *options],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        return done.stderr

    own, key = str(certificate / "certificate.pem"), str(certificate / "locked.pem")
    assert "certificate is needed" in refused("--ssl-keyfile", key)
    assert "No such file" in refused("--ssl-certfile", "nowhere.pem")
    refused("--ssl-certfile", own, "--ssl-keyfile", key)
    refused("--ssl-certfile", own, "--ssl-keyfile", own)
    assert "needs a token" in refused(
        "--ssl-certfile", own, "--ssl-keyfile", str(certificate / "key.pem"), "--host", "::"
    )


def test_the_log_is_json_from_the_first_line_to_the_last():
    import json

    with serve_command("--log-format", "json", "--workers", "2", *PICKY) as (process, url, log):
        post(url, "/artifacts/picky/execute", {"how": "key"}, headers={"x-request-id": "bad"})
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    lines = [json.loads(line) for line in log]
    assert any(line.get("status") == 500 and line["request_id"] == "bad" for line in lines)
    assert any("KeyError" in line.get("exception", "") for line in lines)


@pytest.mark.timeout(60)
def test_spans_reach_a_collector():
    received = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        with serve_command(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_SERVICE_NAME="tested") as (process, url, _):
            assert post(url, "/artifacts/tensor_parallel/execute", {"tensor": [1.0, 2.0]}).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        collector.shutdown()
    assert {path for path, _ in received} == {"/v1/traces"}
    content = b"".join(body for _, body in received)
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    for text in (b"tested", b"POST /artifacts/{name}/execute", b"execute tensor_parallel"):
        assert text in content
