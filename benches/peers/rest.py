"""Requests against other servers of NumPy work, driven in turn by wrk, against MLServer by tritonclient.

The work is top-k on a small and on a large matrix as JSON, and 4 MiB of binary tensor in and out. Each server is one
process (BentoML, LitServe and Ray Serve bring theirs) with what its documentation shows: `servers/`. They run with the
interpreter that ``ZEROCOST_PEERS_PYTHON`` names, by default with this one; what is not installed there is named.

Times are seconds for each request: the wall clock of a run of wrk over its answers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx2
import numpy as np

from benches.peers.measure import Row
from zerocost import ExecutionContext, RemoteArtifact

ROUNDS = 5
SECONDS = 2
CONNECTIONS = 8

SERVERS = Path(__file__).parent / "servers"
PYTHON = os.environ.get("ZEROCOST_PEERS_PYTHON", sys.executable)

OURS = """
import sys
from zerocost import create_app, default_registry
from zerocost.api.server.run import serve
from zerocost.api.settings import Settings
serve(create_app(default_registry(), Settings()), port=int(sys.argv[1]), log_level="warning")
"""


@dataclass(frozen=True)
class Peer:
    """Another server: the name of its file, what to import to see whether it is installed, and what it takes."""

    name: str
    program: str
    module: str
    takes_binary: bool = True
    ready: str | None = None
    """What answers with 200 once it is ready; None: it is once it answers at all."""


PEERS = [
    Peer("starlette + orjson", "starlette_orjson", "starlette"),
    Peer("FastAPI", "fastapi_pydantic", "fastapi"),
    Peer("BentoML", "bentoml_service", "bentoml"),
    Peer("LitServe", "litserve_api", "litserve", takes_binary=False),
    Peer("Ray Serve", "ray_serve", "ray.serve", ready="/readyz"),
]
MLSERVER = Peer("MLServer", "mlserver_runtime", "mlserver", ready="/v2/health/ready")


@dataclass
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def peak_mib(self) -> int:
        """The most memory that its processes have had, in MiB, one beside the other."""
        return sum(_peak(process) for process in _family(self.process.pid)) >> 20


@dataclass
class Load:
    """What wrk sends, and where."""

    name: str
    ours: str
    theirs: str
    ours_request: tuple[bytes, dict[str, str]]
    request: tuple[bytes, dict[str, str]]
    check: Callable[[httpx2.Response, httpx2.Response], None]


@dataclass
class Run:
    """One run of wrk: seconds for each request, and latencies in milliseconds."""

    seconds: float
    p50: float
    p99: float


def rows() -> list[Row]:
    """Every comparison of this part."""
    names = os.environ.get("ZEROCOST_PEERS", "").split(",")
    chosen = [peer for peer in [*PEERS, MLSERVER] if names == [""] or peer.program in names]
    with _serving([sys.executable, "-c", OURS], "/readyz") as ours:
        found = [row for peer in chosen if peer is not MLSERVER for row in _against(ours, peer)]
        if MLSERVER in chosen:
            found += _against_mlserver(ours)
        return [*found, _against_the_socket(ours)]


def _is_installed(peer: Peer) -> bool:
    return subprocess.run([PYTHON, "-c", f"import {peer.module}"], capture_output=True, check=False).returncode == 0


def _against(ours: Server, peer: Peer) -> list[Row]:
    if shutil.which("wrk") is None:
        return [Row("REST (wrk, which would drive it, is not installed)", 0.0, peer.name, None)]
    if not _is_installed(peer):
        return [Row("REST", 0.0, peer.name, None)]
    with _serving([PYTHON, str(SERVERS / f"{peer.program}.py")], peer.ready) as other:
        loads = [_json(3), _json(256), *([_binary()] if peer.takes_binary else [])]
        return [_driven(ours, other, peer, load) for load in loads]


def _json(size: int) -> Load:
    matrix = np.random.default_rng(size).standard_normal((size, size))
    body = json.dumps({"attention_matrix": matrix.tolist(), "sparsity_ratio": 0.8}).encode()
    request = (body, {"content-type": "application/json"})

    def check(ours: httpx2.Response, theirs: httpx2.Response) -> None:
        found = theirs.json()
        found = found["data"]["processed_attention"] if isinstance(found, dict) else found
        kept = np.array(ours.json()["data"]["processed_attention"])
        assert np.array_equal(kept, np.array(found)), "both must keep the same"

    path = "/artifacts/sparse_attention/execute"
    return Load(f"REST top-k {size} x {size} as JSON", path, "/top_k", request, request, check)


def _binary() -> Load:
    matrix = np.random.default_rng(0).standard_normal((1024, 1024), dtype=np.float32)
    sized = {"datatype": "FP32", "shape": [1024, 1024], "parameters": {"binary_data_size": matrix.nbytes}}
    text = {"inputs": [{"name": "tensor", **sized}], "parameters": {"binary_data_output": True, "num_splits": 1}}
    head = json.dumps(text).encode()
    headers = {"inference-header-content-length": str(len(head))}

    def check(ours: httpx2.Response, theirs: httpx2.Response) -> None:
        size = int(ours.headers["inference-header-content-length"])
        assert ours.content[size : size + matrix.nbytes] == theirs.content, "both must send the same back"

    return Load(
        "REST 1024 x 1024 FP32 binary, there and back",
        "/v2/models/tensor_parallel/infer",
        "/binary",
        (head + matrix.tobytes(), headers),
        (matrix.tobytes(), {"content-type": "application/octet-stream"}),
        check,
    )


def _driven(ours: Server, other: Server, peer: Peer, load: Load) -> Row:
    sides = ((f"{ours.url}{load.ours}", *load.ours_request), (f"{other.url}{load.theirs}", *load.request))
    load.check(*(httpx2.post(url, content=body, headers=headers, timeout=60) for url, body, headers in sides))
    runs: tuple[list[Run], list[Run]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        scripts = [_script(Path(folder) / f"{index}", body, headers) for index, (_, body, headers) in enumerate(sides)]
        for _ in range(ROUNDS):
            for (url, *_), script, series in zip(sides, scripts, runs, strict=True):
                series.append(_wrk(url, script))
    (first, p50, p99), (second, p50_other, p99_other) = map(_medians, runs)
    notes = (
        f"p50 {p50:.3g} / {p50_other:.3g} ms, p99 {p99:.3g} / {p99_other:.3g} ms, "
        f"peak {ours.peak_mib} / {other.peak_mib} MiB"
    )
    return Row(f"{load.name}, {CONNECTIONS} connections", first, peer.name, second, notes=notes)


def _medians(runs: list[Run]) -> tuple[float, float, float]:
    return tuple(statistics.median(getattr(run, name) for run in runs) for name in ("seconds", "p50", "p99"))


def _script(path: Path, body: bytes, headers: dict[str, str]) -> Path:
    path.with_suffix(".body").write_bytes(body)
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    read = f'local file = io.open("{path.with_suffix(".body")}", "rb")\nwrk.body = file:read("*a")\nfile:close()'
    script = path.with_suffix(".lua")
    script.write_text("\n".join(['wrk.method = "POST"', *lines, read]) + "\n")
    return script


def _wrk(url: str, script: Path) -> Run:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency", "-s", str(script), url]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in report, report
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", report)
    assert rate is not None, report
    return Run(1 / float(rate[1]), _latency(report, 50), _latency(report, 99))


def _latency(report: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([0-9.]+)(us|ms|s)$", report, re.MULTILINE)
    assert found is not None, report
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]


def _against_mlserver(ours: Server) -> list[Row]:
    """Calls by tritonclient; ours alone where there is no MLServer."""
    if find_spec("tritonclient") is None:
        return [Row("REST (tritonclient, which would drive it, is not installed)", 0.0, MLSERVER.name, None)]
    if not _is_installed(MLSERVER):
        return _tritonclient(ours, None)
    with _serving([PYTHON, str(SERVERS / f"{MLSERVER.program}.py")], MLSERVER.ready) as other:
        return _tritonclient(ours, other)


def _tritonclient(ours: Server, other: Server | None) -> list[Row]:
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    scores = np.random.default_rng(256).standard_normal((256, 256))
    tensor = np.random.default_rng(0).standard_normal((1024, 1024), dtype=np.float32)
    found = []
    for work, model, name, output, array, binary in (
        ("top-k 256 x 256 as JSON", "sparse_attention", "attention_matrix", "processed_attention", scores, False),
        ("1024 x 1024 FP32 binary, there and back", "tensor_parallel", "tensor", "result.0", tensor, True),
    ):
        calls = []
        theirs = "top_k" if model == "sparse_attention" else "binary"
        for server, called, given, wanted in ((ours, model, name, output), (other, theirs, "x", "result")):
            if server is None:
                continue
            client = InferenceServerClient(server.url.removeprefix("http://"))
            tensor_in = InferInput(given, list(array.shape), "FP64" if array.itemsize == 8 else "FP32")
            tensor_in.set_data_from_numpy(array, binary_data=binary)
            asked = [InferRequestedOutput(wanted, binary_data=binary)]
            parameters = {"sparsity_ratio": 0.8} if called == "sparse_attention" else {}
            parameters |= {"num_splits": 1} if called == "tensor_parallel" else {}

            def call(client=client, called=called, sent=tensor_in, asked=asked, more=parameters, wanted=wanted):
                return client.infer(called, [sent], outputs=asked, parameters=more).as_numpy(wanted)

            calls.append(call)
        answers = [np.reshape(call(), array.shape) for call in calls]
        assert np.array_equal(answers[0], answers[-1]), "both must answer the same"
        times = _in_turn(calls)
        found.append(Row(f"tritonclient {work}", times[0], MLSERVER.name, times[1] if other else None))
    return found


def _against_the_socket(ours: Server) -> Row:
    matrix = np.random.default_rng(0).standard_normal((1024, 1024), dtype=np.float32)
    artifact = RemoteArtifact(ours.url, "tensor_parallel")
    context = ExecutionContext("tensor_parallel", "parallel", "restful")

    def call() -> None:
        result = artifact.execute({"tensor": matrix, "num_splits": 1}, context)["result"][0]
        assert result.shape == matrix.shape

    with _echo(matrix.nbytes) as through_the_socket:
        first, limit = _in_turn([call, through_the_socket], rounds=41)
    artifact.close()
    name = "RemoteArtifact 1024 x 1024 FP32, there and back"
    return Row(name, first, "bytes alone", limit, "loopback socket", limit / first)


def _in_turn(calls: list[Callable[[], object]], rounds: int = 15) -> list[float]:
    times: list[list[float]] = [[] for _ in calls]
    for index in range(2 + rounds):
        for call, series in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if index >= 2:
                series.append(time.perf_counter() - start)
    return [statistics.median(series) for series in times]


@contextmanager
def _echo(nbytes: int) -> Iterator[Callable[[], object]]:
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
def _serving(command: list[str], ready: str | None) -> Iterator[Server]:
    """A server on a free port, once it answers ``ready`` with 200, or answers at all where that is None."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, f"{command[-1]} has ended with {process.returncode}"
            try:
                if httpx2.get(f"{url}{ready or '/'}", timeout=5).status_code == 200 or ready is None:
                    break
            except httpx2.TransportError:
                pass
            time.sleep(0.1)
        else:
            raise TimeoutError(f"{command[-1]} does not answer")
        yield Server(url, process)
    finally:
        family = _family(process.pid)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for left in family[1:]:
            if Path(f"/proc/{left}").exists():
                os.kill(left, 9)


def _family(process: int) -> list[int]:
    """The process and all that come from it."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
    family = [process]
    for parent in family:
        family += [child for child, of in parents.items() if of == parent]
    return family


def _peak(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)
