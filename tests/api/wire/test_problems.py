"""Exceptions of a stranger's artifact that a server must survive and answer."""

import asyncio
import concurrent.futures

import numpy as np
import pytest

from support.samples import Panics
from zerocost import Artifact, KernelPanic, default_registry
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
    """Raises what it is asked to."""

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
def test_it_is_answered_and_the_server_goes_on(serve, strangers, kind):
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
def test_a_panic_in_a_kernel_is_answered_and_the_server_goes_on(serve, caplog):
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
