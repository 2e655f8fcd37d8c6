"""Exceptions of a stranger's artifact that a server must survive and answer."""

import asyncio
import builtins

import pytest

from zerocost import Artifact
from zerocost.api.artifact_api import ArtifactRESTAPI


class Raises(Artifact):
    """Raises what it is asked to."""

    def execute(self, input_data, context):
        raise getattr(builtins, input_data["kind"])("as asked")

    def get_schema(self):
        return {"properties": {"kind": {"type": "string"}}, "required": ["kind"], "x-outputs": {"y": {}}}


@pytest.fixture
def strangers(registry):
    registry.register_artifact("raises", Raises(), "custom")
    return registry


KINDS = ["StopIteration", "SystemExit", "LookupError"]


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
