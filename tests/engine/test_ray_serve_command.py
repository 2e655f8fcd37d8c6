"""Starting and stopping Ray Serve with ``zerocost serve --engine ray``, and its errors."""

import contextlib
import json
import signal
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

import zerocost
from support.paths import TESTS
from support.ports import free_port
from support.ray import MARKS, descendants, wait_for_the_end
from support.requests import post
from support.servers import serve_command
from support.waiting import wait_until
from zerocost.engine.ray_serve import deployed

pytestmark = MARKS

SAMPLES = TESTS / "support" / "samples.py"


@pytest.fixture
def ray_folder():
    """Where a cluster keeps its logs; the path of a socket in it must be short."""
    with tempfile.TemporaryDirectory(prefix="z", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_loses_nothing_and_leaves_nothing(ray_folder, tmp_path, number):
    (tmp_path / "mine.py").write_text(SAMPLES.read_text())
    before = descendants()
    command = serve_command(
        *("--engine", "ray", "--port", free_port(), "--num-replicas", "2", "--artifact", "picky=mine:Picky"),
        *("--log-format", "json"),
        cwd=tmp_path,
        without="RAY_",
        RAY_TMPDIR=str(ray_folder),
        OTEL_TRACES_EXPORTER="console",
        OTEL_BSP_SCHEDULE_DELAY="50",
    )
    with command as (process, url, log), ThreadPoolExecutor(4) as pool:
        assert "with 2 replicas on Ray" in log[-1]
        answers = [pool.submit(post, url, "/artifacts/picky/execute", {"how": "sleep"}) for _ in range(4)]
        time.sleep(0.5)  # until all four have arrived: no replica counts what waits in Ray's proxy or in the other
        process.send_signal(number)
        assert [answer.result().status_code for answer in answers] == [200] * 4
        assert process.wait(60) == 0
    wait_for_the_end(before)
    lines = [line for file in ray_folder.rglob("worker-*.err") for line in file.read_text().splitlines()]
    requests = [json.loads(line) for line in lines if line.startswith('{"') and '"duration_ms"' in line]
    assert [request["status"] for request in requests if request["artifact"] == "picky"] == [200] * 4
    assert '"http.route": "/artifacts/{name}/execute"' in "".join(lines), "a span, on stderr too"
    assert not [line for line in lines if line.startswith("INFO ")], "Ray's own log of requests is not among them"


WHERE = """
import os
import ray
from zerocost import Artifact


class Where(Artifact):
    def get_schema(self):
        return {"type": "object", "properties": {}}

    def execute(self, input_data, context):
        return {"process": os.getpid(), "cluster": ray.get_runtime_context().gcs_address}
"""


@pytest.mark.timeout(240)
def test_workers_share_one_cluster(ray_folder, tmp_path):
    (tmp_path / "mine.py").write_text(WHERE)
    before = descendants()
    options = ("--executor", "ray", "--workers", "2", "--artifact", "where=mine:Where")
    with serve_command(*options, cwd=tmp_path, without="RAY_", RAY_TMPDIR=str(ray_folder)) as (process, url, _):
        clusters = {}

        def both_have_answered():
            with contextlib.suppress(httpx2.TransportError):
                facts = post(url, "/artifacts/where/execute", {}).json()["data"]
                clusters[facts["process"]] = facts["cluster"]
            return len(clusters) == 2

        wait_until(both_have_answered, 120, every=0.1)
        assert len(set(clusters.values())) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    wait_for_the_end(before)


# What cannot be served


def broken():
    raise LookupError("no such model")


@pytest.mark.parametrize(
    ("replicas", "error"), [(0, zerocost.RangeError), (True, zerocost.DatatypeError), (1.5, zerocost.DatatypeError)]
)
def test_replicas_that_cannot_be_are_refused(replicas, error):
    with pytest.raises(error, match=f"num_replicas: .*{replicas} was given"), deployed(broken, num_replicas=replicas):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "mpi"], "--engine: 'mpi' was given, 'uvicorn' or 'ray' is allowed"),
        (["--num-replicas", "2"], "--num-replicas: only --engine ray has replicas"),
        (["--engine", "ray", "--host", "0.0.0.0"], "--host: 0.0.0.0 can be reached from elsewhere"),
        (["--engine", "ray", "--artifact", "x=nothing:Nothing"], "nothing"),
        (["--engine", "ray", "--log-format", "xml"], "log format: 'xml' was given"),
        (["--engine", "ray", "--log-level", "loud"], "log level: 'loud' was given"),
    ],
)
def test_conflicting_options_are_refused(capsys, options, message):
    from zerocost.cli.app import main

    assert main(["serve", *options]) == 2
    assert message in capsys.readouterr().err


def test_an_app_that_cannot_be_made_is_an_error_that_says_why(cluster):
    with pytest.raises(zerocost.ServiceUnavailable, match="no such model"), deployed(broken, port=0):
        pass


def test_a_taken_port_is_reported(cluster):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match="in use"), deployed(broken, port=port):
            pass
