"""RemoteArtifact: the results and the exceptions of a call in the process, from another process."""

import threading
import time
from contextlib import contextmanager

import ml_dtypes
import numpy as np
import pytest

import zerocost
from support.contract import context
from support.equality import same_values
from support.samples import echo_registry, sample_registry
from support.servers import serve_samples, serving
from support.threads import together
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
    results = together(2, lambda _: artifact.execute({"how": "sleep"}, context("picky")))
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
