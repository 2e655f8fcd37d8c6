"""The routes of the model and tokenizer services."""

import concurrent.futures
import http.client
import threading
import time
from urllib.parse import urlsplit

import httpx2
import numpy as np
import orjson
import pytest

from support.requests import get
from support.servers import metric
from support.service_registry import BoundedDict, ask
from support.waiting import wait_until
from zerocost import (
    AttentionArtifact,
    LimitExceeded,
    SimplifiedModelService,
    create_app,
)
from zerocost.api.artifact_api import ArtifactRESTAPI
from zerocost.api.server.run import background_server
from zerocost.api.settings import Settings
from zerocost.models.architecture import Architecture
from zerocost.services.limits import check_work


class Timed(BoundedDict):
    """A dict that notes the deadline of every call."""

    def __init__(self):
        super().__init__()
        self.deadlines = []

    def execute(self, input_data, context):
        self.deadlines.append(context.metadata.get("deadline"))
        return super().execute(input_data, context)


def test_forward_gives_what_the_service_gives(serve, registry):
    client = serve(registry)
    service = SimplifiedModelService(registry)
    for ids in ([1, 70, 2], [[1, 70, 2], [1, 71, 72, 2]]):
        answer = ask(client, "model/forward", {"input_ids": ids, "output_attentions": True})
        assert answer.status_code == 200, answer.text
        output, wanted = answer.json()["output"], service.forward(ids, output_attentions=True)
        assert output["model"] == service.model.name
        assert output["trained"] is False
        np.testing.assert_array_equal(np.float32(output["pooled"]), wanted.pooled)
    assert np.shape(output["attentions"][0][0]) == (4, 3, 3)


def test_a_request_brings_its_own_artifacts(serve, registry):
    client = serve(registry)
    plain = ask(client, "model/forward", {"input_ids": [1, 70, 2]}).json()["output"]["pooled"]
    chosen = {"attention": {"artifact": "first", "params": {"strength": 0.5}}}
    own = ask(client, "model/forward", {"input_ids": [1, 70, 2], "artifacts": chosen}).json()["output"]["pooled"]
    wanted = SimplifiedModelService(registry).forward([1, 70, 2], artifacts=chosen).pooled
    np.testing.assert_array_equal(np.float32(own), wanted)
    assert own != plain
    assert ask(client, "model/forward", {"input_ids": [1, 70, 2]}).json()["output"]["pooled"] == plain


def test_concurrent_requests_get_their_own_numbers(serve, registry):
    client = serve(registry)
    service = SimplifiedModelService(registry)
    every = [[1, *range(10, 10 + length), 2] for length in range(1, 25)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda ids: ask(client, "model/forward", {"input_ids": ids}).json(), every))
    for ids, answer in zip(every, answers, strict=True):
        np.testing.assert_allclose(answer["output"]["pooled"], service.forward(ids).pooled, atol=2e-6)


def test_concurrent_requests_are_computed_together(registry):
    waits = Waits()
    registry.register_artifact("waits", waits, "attention")

    def answer(url, ids, artifacts):
        body = {"input_ids": ids, "artifacts": artifacts}
        return httpx2.post(f"{url}/services/model/forward", json=body, timeout=30).json()["output"]["usage"]

    with background_server(create_app(registry, Settings())) as url, concurrent.futures.ThreadPoolExecutor(8) as pool:
        first = pool.submit(answer, url, [1, 2], {"attention": {"artifact": "waits"}})
        wait_until(lambda: waits.lengths)
        # These arrive while the first one is computed: one batch with artifacts, and one without.
        chosen = {"attention": {"artifact": "first"}}
        others = [pool.submit(answer, url, [1] * length, chosen) for length in (3, 4)]
        plain = [pool.submit(answer, url, [1] * length, None) for length in (5, 6, 7)]
        wait_until(lambda: pending(url) == 6)
        waits.go.set()
        assert first.result()["tokens"] == 2
        assert [usage.result()["tokens"] for usage in others] == [7, 7]
        assert [usage.result()["tokens"] for usage in plain] == [18, 18, 18]


def pending(url):
    return metric(get(url, "/metrics").text, "zerocost_pending_requests")


class Waits(AttentionArtifact):
    """Waits for a sign, and notes how long the sequences were."""

    def __init__(self):
        self.lengths, self.go = [], threading.Event()

    def process_attention(self, attention_matrix):
        self.lengths.append(attention_matrix.shape[-1])
        assert self.go.wait(20)
        return attention_matrix


def test_requests_of_disconnected_clients_are_not_computed(registry):
    waits = Waits()
    registry.register_artifact("waits", waits, "attention")
    chosen = {"attention": {"artifact": "waits"}}

    def body(length):
        return orjson.dumps({"input_ids": [1] * length, "artifacts": chosen})

    def post(connection, length):
        connection.request("POST", "/services/model/forward", body(length), {"content-type": "application/json"})

    with background_server(create_app(registry, Settings())) as url:
        port = urlsplit(url).port
        first, gone, stays = (http.client.HTTPConnection("127.0.0.1", port, timeout=20) for _ in range(3))
        post(first, 2)
        wait_until(lambda: waits.lengths)
        post(gone, 3)
        post(stays, 4)
        wait_until(lambda: pending(url) == 3)
        gone.close()
        wait_until(lambda: pending(url) == 2)
        waits.go.set()
        for connection in (first, stays):
            assert connection.getresponse().status == 200
            connection.close()
    assert set(waits.lengths) == {2, 4}


def test_embed_reports_truncation(serve, registry):
    answer = ask(serve(registry), "model/embed", {"texts": ["a", "b" * 600]}).json()
    assert answer["truncated"] == [1]
    wanted = SimplifiedModelService(registry).embed("a")
    np.testing.assert_allclose(answer["output"][0], wanted, atol=1e-6)


def test_the_tokenizer(serve, registry):
    client = serve(registry)
    encoded = ask(client, "tokenizer/encode", {"texts": "ü", "max_tokens": 3}).json()
    assert encoded == {"output": {"input_ids": [1, 198, 2], "tokens": 4, "truncated": True}}
    assert ask(client, "tokenizer/decode", {"input_ids": [1, 198, 191, 2]}).json() == {"output": "ü"}
    assert ask(client, "tokenizer/count", {"texts": ["a", ""]}).json() == {"output": [3, 2]}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("model/forward", {}, 422),
        ("model/forward", {"input_ids": [999]}, 422),
        ("model/forward", {"input_ids": [1], "ids": 1}, 422),
        ("model/forward", [], 422),
        ("model/forward", {"input_ids": [1], "artifacts": {"attention": {"artifact": "nothing"}}}, 404),
        ("model/forward", {"input_ids": [1], "artifacts": {"attention": {"artifact": "breaks"}}}, 422),
        (
            "model/forward",
            {"input_ids": [1], "artifacts": {"attention": {"artifact": "first", "params": {"out": 1}}}},
            422,
        ),
        ("model/embed", {}, 422),
        ("model/embed", {"texts": [1]}, 422),
        ("tokenizer/encode", {}, 422),
        ("tokenizer/decode", {"input_ids": [-1]}, 422),
        ("memory/get", {"key": "nothing"}, 404),
        ("memory/put", {"key": 1, "value": 1}, 422),
        ("model/nothing", {}, 404),
    ],
)
def test_mistakes_of_the_client_are_4xx(serve, registry, path, body, status):
    answer = ask(serve(registry), path, body)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(("how", "told"), [("raise", "not today"), ("crop", "shape"), ("nan", "NaN")])
def test_an_artifact_that_raises_in_a_layer_is_named(serve, registry, how, told):
    chosen = {"attention": {"artifact": "changes", "params": {"how": how}}}
    answer = ask(serve(registry), "model/forward", {"input_ids": [1, 70, 2], "artifacts": chosen})
    assert answer.status_code == 422, answer.text
    detail = answer.json()["detail"]
    assert told in detail
    assert "(in layer 0, through the attention artifact 'changes')" in detail


def test_a_memory_artifact_that_raises_is_named(serve, registry):
    chosen = {"memory": {"artifact": "forgets"}}
    answer = ask(serve(registry), "model/forward", {"input_ids": [1, 70, 2], "artifacts": chosen})
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"] == "forgotten (in the memory artifact 'forgets')"


@pytest.mark.parametrize(
    ("stages", "status", "told"),
    [
        (["first", "nothing"], 404, "(in stages[1])"),
        (["first", "breaks"], 422, "(in stage 1 (breaks) of the pipeline, micro-batch 0)"),
    ],
)
def test_the_failing_stage_is_named(serve, registry, stages, status, told):
    body = {"tensor": [[0.0, 1.0], [2.0, 3.0]], "num_stages": 2, "stages": stages, "num_microbatches": 1}
    answer = serve(registry).post("/artifacts/pipeline_parallel/execute", json=body)
    assert answer.status_code == status, answer.text
    assert told in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("model/forward", {"input_ids": [1, 70, 2], "artifacts": {"memory": {"artifact": "lru_cache"}}}),
        ("model/embed", {"texts": "a", "artifacts": {"memory": {"artifact": "lru_cache"}}}),
        ("memory/put", {"key": "a", "value": 1}),
        ("memory/stats", {}),
        ("memory/entries/a", None),
    ],
)
def test_artifacts_get_the_deadline_of_the_request(serve, registry, path, body):
    timed = Timed()
    registry.register_artifact("lru_cache", timed, "memory", replace=True)
    client, before, headers = serve(registry), time.monotonic(), {"request-timeout": "20"}
    if body is None:
        assert client.get(f"/services/{path}", headers=headers).status_code == 404
    else:
        assert ask(client, path, body, **headers).status_code == 200
    assert timed.deadlines
    assert all(before + 20 <= deadline <= time.monotonic() + 20 for deadline in timed.deadlines)


def test_an_output_beyond_the_limit_is_not_computed(serve, registry):
    answer = ask(serve(registry, max_elements=1000), "model/forward", {"input_ids": [1] * 20})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "body", "settings", "status"),
    [
        ("model/embed", {"texts": ["a"] * 20}, {"max_elements": 64 * 20}, 200),
        ("model/embed", {"texts": ["a"] * 21}, {"max_elements": 64 * 20}, 413),
        ("model/embed", {"texts": ["a"] * 20}, {"max_model_operations": 12_000_000}, 200),
        ("model/embed", {"texts": ["a" * 100] * 20}, {"max_model_operations": 12_000_000}, 413),
        ("model/forward", {"input_ids": [1] * 50}, {"max_model_operations": 15_000_000}, 200),
        ("model/forward", {"input_ids": [1] * 100}, {"max_model_operations": 15_000_000}, 413),
        ("model/forward", {"input_ids": [[1] * 50] * 2}, {"max_model_operations": 23_000_000}, 200),
        ("model/forward", {"input_ids": [1] * 500}, {"max_model_operations": 110_000_000}, 413),
        *(
            ("model/forward", {"input_ids": [1] * 3, "artifacts": {"parallel": chosen}}, {"max_parts": 10}, 422)
            for chosen in (
                {"artifact": "tensor_parallel", "params": {"num_splits": 11}},
                {"artifact": "pipeline_parallel", "params": {"num_stages": 11}},
            )
        ),
    ],
)
def test_limits_of_the_server_hold_for_the_model(serve, registry, path, body, settings, status):
    answer = ask(serve(registry, **settings), path, body)
    assert answer.status_code == status, answer.text


BERT_BASE = Architecture("bert", 30522, 768, 12, 12, 3072, 512, None, 2, "gelu", 1e-12)


def test_an_ordinary_batch_of_an_ordinary_model_is_allowed(registry):
    limits = ArtifactRESTAPI(registry, Settings()).model_limits
    check_work([512] * 32, {}, limits, BERT_BASE)
    with pytest.raises(LimitExceeded):
        check_work([512] * 1024, {}, limits, BERT_BASE)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("model/forward", {"input_ids": [1]}),
        ("model/embed", {"texts": "a"}),
        *((f"{service}/active_artifacts", {}) for service in ("model", "tokenizer", "memory")),
        *((f"{service}/use_artifact", {"artifact_name": "lru_cache"}) for service in ("model", "tokenizer", "memory")),
        *((f"{service}/stop_artifact", {"interface": "memory"}) for service in ("model", "tokenizer", "memory")),
        ("tokenizer/encode", {"texts": "a"}),
        ("tokenizer/decode", {"input_ids": [1]}),
        ("tokenizer/count", {"texts": "a"}),
        ("memory/put", {"key": "a", "value": 1}),
        ("memory/get", {"key": "a"}),
        ("memory/delete", {"key": "a"}),
        ("memory/clear", {}),
        ("memory/stats", {}),
    ],
)
def test_unknown_fields_are_refused(serve, registry, path, body):
    client = serve(registry, admin_token="a")
    client.headers["authorization"] = "Bearer a"
    assert ask(client, "memory/put", {"key": "a", "value": 1}).status_code == 200
    answer = ask(client, path, {**body, "tll": 1})
    assert answer.status_code == 422, answer.text
    assert "tll" in answer.json()["detail"]
    assert answer.json()["errors"][0]["pointer"] == "/tll"
    for name in body:
        left = {key: value for key, value in body.items() if key != name}
        answer = ask(client, path, left)
        assert answer.status_code == 422
        assert name in answer.json()["detail"]
    assert ask(client, path, body).status_code == 200
