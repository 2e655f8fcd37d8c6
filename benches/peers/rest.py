"""Requests against a bare Starlette app with orjson and NumPy, both as servers of one process, driven in turn by wrk.

The work is top-k on a small and on a large matrix as JSON, and 4 MiB of binary tensor in and out against the bytes
alone through a loopback socket. Times are seconds for each request: the wall clock of wrk's run over its answers.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx2
import numpy as np

from benches.peers.measure import Row
from zerocost import ExecutionContext, RemoteArtifact

ROUNDS = 7
SECONDS = 2

_OURS = """
from zerocost import create_app, default_registry
from zerocost.api.server import serve
from zerocost.api.settings import Settings
serve(create_app(default_registry(), Settings()), port={port}, log_level="warning")
"""

_BARE = """
import numpy as np, orjson, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def execute(request):
    data = orjson.loads(await request.body())
    matrix = np.asarray(data["attention_matrix"])
    kept = matrix.shape[-1] - int(matrix.shape[-1] * data["sparsity_ratio"])
    least = np.partition(matrix, -kept, axis=-1)[..., -kept, None]
    result = np.where(matrix >= least, matrix, 0)
    answer = {{"status": "success", "data": {{"processed_attention": result}}}}
    return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")

app = Starlette(routes=[Route("/artifacts/sparse_attention/execute", execute, methods=["POST"])])
uvicorn.run(app, port={port}, access_log=False, log_level="warning")
"""


def rows() -> list[Row]:
    """Every comparison of this part."""
    with ExitStack() as stack:
        ours, bare = (stack.enter_context(_serving(program)) for program in (_OURS, _BARE))
        found = [_json(ours, bare, size) for size in (3, 256)] if shutil.which("wrk") else []
        return [*found, _binary(ours)]


def _json(ours: str, bare: str, size: int) -> Row:
    matrix = np.random.default_rng(size).standard_normal((size, size))
    body = json.dumps({"attention_matrix": matrix.tolist(), "sparsity_ratio": 0.8})
    path = "/artifacts/sparse_attention/execute"
    headers = {"content-type": "application/json"}
    answers = [httpx2.post(f"{url}{path}", content=body, headers=headers).json() for url in (ours, bare)]
    kept = [np.array(answer["data"]["processed_attention"]) for answer in answers]
    assert np.array_equal(*kept), "both must keep the same"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method="POST"\nwrk.headers["Content-Type"]="application/json"\nwrk.body=[==[{body}]==]\n')
        script.flush()
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for url, series in zip((ours, bare), times, strict=True):
                series.append(_wrk(f"{url}{path}", script.name))
    medians = [statistics.median(series) for series in times]
    return Row(f"REST top-k {size} x {size} as JSON, 8 connections", medians[0], "starlette + orjson", medians[1])


def _wrk(url: str, script: str) -> float:
    command = ["wrk", "-t1", "-c8", f"-d{SECONDS}s", "-s", script, url]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in report, report
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", report)
    assert rate is not None, report
    return 1 / float(rate[1])


def _binary(url: str) -> Row:
    matrix = np.random.default_rng(0).standard_normal((1024, 1024), dtype=np.float32)
    artifact = RemoteArtifact(url, "tensor_parallel")
    context = ExecutionContext("tensor_parallel", "parallel", "restful")

    def call() -> None:
        result = artifact.execute({"tensor": matrix, "num_splits": 1}, context)["result"][0]
        assert result.shape == matrix.shape

    with _echo(matrix.nbytes) as through_the_socket:
        times: list[list[float]] = [[], []]
        for index in range(2 + ROUNDS):
            for run, series in zip((call, through_the_socket), times, strict=True):
                start = time.perf_counter()
                run()
                if index >= 2:
                    series.append(time.perf_counter() - start)
    artifact.close()
    ours, limit = (statistics.median(series) for series in times)
    return Row(
        "REST 1024 x 1024 FP32 binary, there and back", ours, "bytes alone", limit, "loopback socket", limit / ours
    )


@contextmanager
def _echo(nbytes: int) -> Iterator[object]:
    """A call that sends ``nbytes`` through a loopback socket and reads as many back."""
    data = bytes(nbytes)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                received = bytearray(nbytes)
                while _fill(peer, received):
                    peer.sendall(received)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with socket.create_connection(listener.getsockname()) as client:
            back = bytearray(nbytes)

            def call() -> None:
                client.sendall(data)
                assert _fill(client, back)

            yield call
        thread.join()


def _fill(source: socket.socket, target: bytearray) -> bool:
    view = memoryview(target)
    while view:
        count = source.recv_into(view)
        if count == 0:
            return False
        view = view[count:]
    return True


@contextmanager
def _serving(program: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", program.format(port=port)])
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
