"""RemoteArtifact: the results and the exceptions of a call in the process, from another process."""

import json
import threading
import time
from contextlib import contextmanager

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import zerocost
from support.contract import context
from support.equality import same_values
from support.safetensors import message
from support.samples import echo_registry, sample_registry
from support.servers import serve_samples, serving
from zerocost import ArtifactCommunicationService, ArtifactRegistry, RemoteArtifact
from zerocost.api.server.run import background_server
from zerocost.api.settings import Settings
from zerocost.api.wire.protocol import Protocol

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)
TYPE = "application/vnd.safetensors"


@pytest.fixture(scope="module")
def server():
    with serving(echo_registry()) as client:
        yield client


@contextmanager
def remotes(server):
    """``make(name)`` gives an artifact of the server; all are closed at the end."""
    made = []

    def make(name, **options):
        made.append(RemoteArtifact(str(server.base_url), name, **options))
        return made[-1]

    yield make
    for artifact in made:
        artifact.close()


@pytest.fixture
def remote(server):
    with remotes(server) as make:
        yield make


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_results_are_those_of_a_call_in_the_process(remote, dtype):
    for array in (MATRIX.astype(dtype), MATRIX.astype(dtype)[:, ::2], np.empty((0, 3), dtype)):
        for name, inputs in (
            ("scale", {"attention_matrix": array, "factor": 0.5}),
            ("pieces", {"tensor": array, "num_splits": 3}),
        ):
            here = echo_registry()[name].implementation.execute(inputs, context(name))
            there = remote(name).execute(inputs, context(name))
            assert same_values(here, there)


def test_values_of_every_kind(remote):
    inputs = {
        "x_INT8": np.array([1, -1], dtype=np.int8),
        "x_BOOL": np.array([[True], [False]]),
        "number": np.float32(0.5),
        "text": "ünï\n",
        "list": [1, 2, 3],
        "object": {"a": {"b": [None, True]}},
    }
    assert same_values({**inputs, "number": 0.5}, remote("echo").execute(inputs, context("echo")))


def test_one_connection_is_reused(monkeypatch):
    opened = []
    made = Protocol.connection_made
    monkeypatch.setattr(Protocol, "connection_made", lambda self, transport: (opened.append(1), made(self, transport)))
    with background_server(zerocost.create_app(sample_registry(), Settings())) as url:
        artifact = RemoteArtifact(url, "scale")
        for _ in range(5):
            artifact.execute({"attention_matrix": MATRIX}, context("scale"))
        artifact.close()
    assert len(opened) == 1


def test_it_describes_itself_and_can_be_registered(remote):
    here = ArtifactRegistry()
    here.register_artifact("far", remote("scale"), "attention")
    assert here["far"].implementation.get_description() == "Multiplies every score."
    assert here["far"].ports.main_input == "attention_matrix"
    assert not here["far"].implementation.validate_input({"attention_matrix": MATRIX, "factor": -1})
    result = here["far"].implementation.execute({"attention_matrix": MATRIX}, context("far"))
    assert result["artifact_used"] == "far"


@pytest.mark.parametrize(
    ("name", "inputs", "kind"),
    [
        ("scale", {"attention_matrix": MATRIX, "facter": 1}, zerocost.UndeclaredInput),
        ("scale", {"attention_matrix": MATRIX.astype(np.int64)}, ValueError),
        ("scale", {"attention_matrix": MATRIX, "factor": -1}, ValueError),
        ("scale", {}, ValueError),
        ("huge", {"shape": [10**9, 10**9]}, zerocost.LimitExceeded),
        ("nothing", {}, zerocost.UnknownArtifact),
        ("picky", {"how": "value"}, zerocost.InvalidInput),
        ("picky", {"how": "key"}, zerocost.ZerocostError),
    ],
)
def test_exceptions_keep_their_classes(remote, name, inputs, kind):
    with pytest.raises(kind) as raised:
        remote(name).execute(inputs, context(name))
    assert any("http://" in note for note in raised.value.__notes__)


def test_an_input_that_cannot_be_sent(remote):
    with pytest.raises(zerocost.DatatypeError, match="object"):
        remote("echo").execute({"anything": object()}, context("scale"))
    with pytest.raises(zerocost.RangeError, match="http"):
        RemoteArtifact("ftp://example.com", "scale")


def test_deadlines_and_tokens(remote, serve):
    with pytest.raises(zerocost.DeadlineExceeded):
        remote("picky").execute({"how": "sleep"}, context("scale", deadline=time.monotonic() + 0.1))
    with pytest.raises(zerocost.DeadlineExceeded):
        remote("picky").execute({"how": "fine"}, context("scale", deadline=time.monotonic() - 1))
    with pytest.raises(zerocost.DeadlineExceeded):
        remote("picky", timeout=0.1).execute({"how": "sleep"}, context("scale"))
    url = str(serve(sample_registry(), token="word").base_url)
    refused = RemoteArtifact(url, "scale")
    with pytest.raises(zerocost.ZerocostError, match="token"):
        refused.get_schema()
    refused.close()
    allowed = RemoteArtifact(url, "scale", token="word")
    assert allowed.execute({"attention_matrix": MATRIX}, context("scale"))["artifact_used"] == "scale"
    allowed.close()


def test_a_busy_server_is_asked_again(serve):
    url = str(serve(sample_registry(), slots=1, max_waiting=0).base_url)
    artifact = RemoteArtifact(url, "picky")
    results = []

    def call():
        results.append(artifact.execute({"how": "sleep"}, context("picky")))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    artifact.close()
    assert results == [{"how": "sleep"}] * 2


def test_a_chain_over_two_servers_one_of_which_is_stopped(serve):
    first = str(serve(sample_registry()).base_url)
    app = zerocost.create_app(sample_registry(), Settings())
    with background_server(app) as second:
        here = ArtifactRegistry()
        near, far = RemoteArtifact(first, "scale"), RemoteArtifact(second, "pieces")
        here.register_artifact("near", near, "attention")
        here.register_artifact("far", far, "parallel")
        service = ArtifactCommunicationService(here)
        pipeline = [{"artifact": "near"}, {"artifact": "far"}]
        local = ArtifactCommunicationService(sample_registry())
        expected = local.chain_artifacts([{"artifact": "scale"}, {"artifact": "pieces"}], {"attention_matrix": MATRIX})
        result = service.chain_artifacts(pipeline, {"attention_matrix": MATRIX})
        assert same_values(expected["result"], result["result"])
    with pytest.raises(zerocost.ServiceUnavailable, match=second) as raised:
        service.chain_artifacts(pipeline, {"attention_matrix": MATRIX})
    assert "in step 1 (far) of the chain" in raised.value.__notes__
    near.close()
    far.close()


def test_a_server_that_is_killed_in_the_middle_of_a_step(serve):
    here = ArtifactRegistry()
    with serve_samples() as far:
        url = f"http://127.0.0.1:{far.port}"
        near = RemoteArtifact(str(serve(sample_registry()).base_url), "scale")
        here.register_artifact("near", near, "attention")
        sleeping = RemoteArtifact(url, "picky")
        here.register_artifact("far", sleeping, "custom")
        killer = threading.Timer(0.3, far.process.kill)
        killer.start()
        pipeline = [{"artifact": "near"}, {"artifact": "far", "params": {"how": "sleep"}}]
        with pytest.raises(zerocost.ServiceUnavailable, match=url) as raised:
            ArtifactCommunicationService(here).chain_artifacts(pipeline, {"attention_matrix": MATRIX})
        killer.join()
    assert "in step 1 (far) of the chain" in raised.value.__notes__
    near.close()
    sleeping.close()


def test_a_chain_over_http_names_the_step_and_the_server_that_was_killed(serve):
    here = sample_registry()
    with serve_samples() as far:
        remote = RemoteArtifact(f"http://user:secret@127.0.0.1:{far.port}", "picky")
        here.register_artifact("far", remote, "custom")
        client = serve(here)
        pipeline = [{"artifact": "scale"}, {"artifact": "far", "params": {"how": "sleep"}}]
        chain = {"pipeline": pipeline, "initial_input": {"attention_matrix": [[1.0]]}}
        assert client.post("/chains/execute", json=chain).status_code == 200
        killer = threading.Timer(0.3, far.process.kill)
        killer.start()
        answers = [client.post("/chains/execute", json=chain) for _ in range(2)]  # in the middle of a step, and after
        killer.join()
    for answer in answers:
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        detail = answer.json()["detail"]
        assert detail.startswith(f"http://127.0.0.1:{far.port}: the server does not answer")
        assert detail.endswith("(in step 1 (far) of the chain)")
        for internal in ("secret", "Traceback", "httpx", "Errno", ".py", "0x"):
            assert internal not in answer.text
    assert client.get("/livez").status_code == 200
    remote.close()


# The format, by its own library


def test_chains_as_safetensors(server):
    pipeline = [{"artifact": "scale", "params": {"factor": 3}}, {"artifact": "pieces", "params": {"num_splits": 2}}]

    def post(tensors, accept=TYPE, **more):
        body = safetensors.numpy.save(tensors, {"json": json.dumps({"pipeline": pipeline, **more})})
        return server.post("/chains/execute", content=body, headers={"content-type": TYPE, "accept": accept})

    local = ArtifactCommunicationService(echo_registry())
    expected = local.chain_artifacts(pipeline, {"attention_matrix": MATRIX})["result"]
    for answer in (post({"attention_matrix": MATRIX}), post({"attention_matrix": MATRIX}, trace=True)):
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == TYPE
        found = safetensors.numpy.load(answer.content)
        assert all(same_values(found[f"result.{index}"], piece) for index, piece in enumerate(expected))
    size = int.from_bytes(answer.content[:8], "little")
    others = json.loads(json.loads(answer.content[8 : 8 + size])["__metadata__"]["json"])
    assert [step["artifact"] for step in others["trace"]] == ["scale", "pieces"]
    assert 'copied;desc="48 bytes"' in answer.headers["server-timing"]
    # Tensors in, JSON out, and the other way round.
    assert post({"attention_matrix": MATRIX}, "application/json").json()["data"]["result"][0] == expected[0].tolist()
    request = {"pipeline": pipeline, "initial_input": {"attention_matrix": MATRIX.tolist()}}
    answer = server.post("/chains/execute", json=request, headers={"accept": TYPE})
    assert safetensors.numpy.load(answer.content)["result.1"].tolist() == expected[1].tolist()
    # Invalid bodies
    assert post({"attention_matrix": MATRIX}, initial_input={"attention_matrix": [[1.0]]}).status_code == 422
    assert post({}).status_code == 422
    assert server.post("/chains/execute", content=b"1", headers={"content-type": TYPE}).status_code == 422


def test_safetensors_by_another_implementation(server):
    body = safetensors.numpy.save({"attention_matrix": MATRIX}, metadata={"json": '{"factor": 3}'})
    answer = server.post("/artifacts/scale/execute", content=body, headers={"content-type": TYPE, "accept": TYPE})
    assert answer.headers["content-type"] == TYPE
    assert same_values(MATRIX * np.float32(3), safetensors.numpy.load(answer.content)["processed_attention"])
    timing = answer.headers["server-timing"]
    assert f'copied;desc="{MATRIX.nbytes} bytes"' in timing, "one copy: from the network into the array"
    # The answer's form is the client's choice, whatever the request's was.
    answer = server.post("/artifacts/scale/execute", content=body, headers={"content-type": TYPE})
    assert answer.json()["data"]["processed_attention"] == (MATRIX * 3).tolist()
    answer = server.post("/artifacts/pieces/execute", json={"tensor": MATRIX.tolist()}, headers={"accept": TYPE})
    assert set(safetensors.numpy.load(answer.content)) == {"result.0", "result.1"}


ENTRY = {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"\xff" * 8, 422),
        (b"\x10" + b"\x00" * 7, 422),
        (message(b"not json"), 400),
        (message([]), 400),
        (message({"attention_matrix": 1}), 422),
        (message({"attention_matrix": {**ENTRY, "dtype": "F8"}}, b"1234"), 422),
        (message({"attention_matrix": {**ENTRY, "shape": [-1]}}, b"1234"), 422),
        (message({"attention_matrix": {**ENTRY, "shape": [2]}}, b"1234"), 422),
        (message({"attention_matrix": {**ENTRY, "shape": [2**40, 0], "data_offsets": [0, 0]}}), 413),
        (message({"attention_matrix": {**ENTRY, "data_offsets": [4, 8]}}, b"12345678"), 422),
        (message({"attention_matrix": ENTRY, "factor": ENTRY}, b"1234"), 422),
        (message({"attention_matrix": ENTRY}, b"123"), 422),
        (message({"attention_matrix": ENTRY}, b"12345"), 422),
        (message({"attention_matrix": ENTRY, "__metadata__": {"json": "{"}}, b"1234"), 400),
        (message({"attention_matrix": ENTRY, "__metadata__": {"json": "[]"}}, b"1234"), 422),
        (message({"attention_matrix": ENTRY, "__metadata__": {"json": '{"attention_matrix": 1}'}}, b"1234"), 422),
        (message({"attention_matrix.1": ENTRY}, b"1234"), 422),
        (message({"attention_matrix": ENTRY}, b"\x00\x00\x80?"), 200),
    ],
)
def test_bodies_that_are_not_safetensors(server, body, status):
    for content in (body, iter([body[:3], body[3:]])):
        answer = server.post("/artifacts/scale/execute", content=content, headers={"content-type": TYPE})
        assert answer.status_code == status, answer.text
