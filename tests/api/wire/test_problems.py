"""Exceptions and the statuses and problem documents that they become; the server survives all of them."""

import asyncio
import concurrent.futures
from contextlib import closing

import numpy as np
import pytest

from support.contract import context
from support.raw_http import raw_post, status
from support.requests import MATRIX, execute, problem
from support.samples import Panics
from zerocost import (
    Artifact,
    KernelPanic,
    OutOfMemory,
    RemoteArtifact,
    default_registry,
)
from zerocost.api.artifact_api import ArtifactRESTAPI

KINDS = {
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "SystemExit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "BaseException": BaseException,
    "CancelledError": asyncio.CancelledError,
    "CancelledError of a future": concurrent.futures.CancelledError,
    "InvalidStateError": asyncio.InvalidStateError,
    "TimeoutError": TimeoutError,
    "LookupError": LookupError,
}


class Raises(Artifact):
    """Raises the exception that it is asked for."""

    def execute(self, input_data, context):
        raise KINDS[input_data["kind"]]("as asked")

    def get_schema(self):
        return {"properties": {"kind": {"type": "string"}}, "required": ["kind"], "x-outputs": {"y": {}}}


@pytest.fixture
def strangers(registry):
    registry.register_artifact("raises", Raises(), "custom")
    return registry


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", KINDS)
def test_every_exception_is_answered_and_the_server_keeps_running(serve, strangers, kind):
    client = serve(strangers)
    chain = {"pipeline": [{"artifact": "raises"}], "initial_input": {"kind": kind}}
    for path, body in (("/artifacts/raises/execute", {"kind": kind}), ("/chains/execute", chain)):
        answer = client.post(path, json=body, timeout=10)
        assert answer.status_code == 500
        assert answer.json()["code"] == "internal"
        assert answer.json()["request_id"]
    assert client.get("/livez").status_code == 200


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", KINDS)
def test_the_coroutine_answers_too(strangers, kind):
    answer = asyncio.run(asyncio.wait_for(ArtifactRESTAPI(strangers).execute_artifact("raises", {"kind": kind}), 10))
    assert set(answer) == {"error"}


@pytest.mark.timeout(60)
def test_a_panic_in_a_kernel_is_a_500_and_the_server_keeps_running(serve, caplog):
    registry = default_registry()
    registry.register_artifact("panics", Panics(), "custom")
    client = serve(registry)
    matrix = np.random.default_rng(0).standard_normal((256, 256)).tolist()
    paths = {
        "/artifacts/panics/execute": {},
        "/chains/execute": {"pipeline": [{"artifact": "panics"}]},
        "/v2/models/panics/infer": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]},
    }
    for index in range(5):
        for path, body in paths.items():
            answer = client.post(path, json=body, headers={"x-request-id": f"panic-{index}"})
            assert answer.status_code == 500
            assert answer.headers["x-request-id"] == f"panic-{index}"
            assert "a test asked for it" not in answer.text
            if not path.startswith("/v2"):
                document = answer.json()
                assert (document["code"], document["request_id"]) == ("kernel_panic", f"panic-{index}")
        # The pool still works, and the result is the same as before.
        answer = client.post("/artifacts/sparse_attention/execute", json={"attention_matrix": matrix})
        assert answer.status_code == 200
    record = next(record for record in caplog.records if "panic-0" in record.getMessage())
    assert "a test asked for it" in str(record.exc_info[1])
    assert isinstance(record.exc_info[1], KernelPanic)


def test_a_third_party_value_error_is_the_clients(client):
    document = problem(execute(client, "picky", how="value"), 422, "invalid_input")
    assert document["detail"].startswith("bad value near")
    assert "0x" not in document["detail"]
    assert "secret" not in document["detail"]
    problem(execute(client, "picky", how="type"), 422, "invalid_input")


@pytest.mark.parametrize("how", ["key", "no dict", "object", "longdouble", "endless"])
def test_other_exceptions_are_only_in_the_log(client, caplog, how):
    document = problem(execute(client, "picky", how=how), 500, "internal")
    assert "passwd" not in str(document)
    assert any(document["request_id"] in record.getMessage() and record.exc_info for record in caplog.records)
    assert execute(client, attention_matrix=MATRIX).status_code == 200


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


@pytest.mark.parametrize("how", ["python", "numpy", "kernel"])
def test_out_of_memory_is_a_503(serve, how):
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


def test_a_remote_server_without_memory_raises_out_of_memory(serve, monkeypatch):
    monkeypatch.setattr("zerocost.client.remote_artifact.time.sleep", lambda _: None)
    registry = default_registry()
    registry.register_artifact("hungry", Hungry(), "custom")
    client = serve(registry)
    remote = RemoteArtifact(str(client.base_url), "hungry", timeout=10)
    with closing(remote), pytest.raises(OutOfMemory, match="12 GiB"):
        remote.execute({"how": "kernel"}, context("hungry"))


@pytest.fixture
def symbols(small):
    """Causes the first panic, which reads the symbols for its backtrace once."""
    raw_post(small, "/artifacts/panics/execute", {})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/artifacts/panics/execute", {}),
        ("/chains/execute", {"pipeline": [{"artifact": "panics"}]}),
        ("/v2/models/panics/infer", {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}),
    ],
)
def test_a_panic(symbols, bounded, path, body):
    for _ in range(5):
        answer = raw_post(bounded, path, body, x_request_id="panic-1")
        assert status(answer) == 500
        assert b"x-request-id: panic-1\r\n" in answer
        assert b"a test asked for it" not in answer
