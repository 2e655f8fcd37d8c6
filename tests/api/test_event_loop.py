"""Requests that take long to read or to compute do not block the event loop."""

import asyncio
import gzip
import json
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from support.samples import echo_registry
from zerocost import create_app, default_registry
from zerocost.api.settings import Settings
from zerocost.api.v2 import body as inference_body
from zerocost.api.v2.body import InferenceRequest
from zerocost.artifacts.attention.sparse_attention import SparseAttentionArtifact
from zerocost.artifacts.memory.redis_cache import RedisCacheArtifact
from zerocost.artifacts.parallel.tensor_parallel import TensorParallelArtifact


def turns(app, path, body, chunk=1 << 18, **headers):
    """The status of an answer, and how often others had their turn on the event loop while it was made."""
    names = {"host": "localhost", "content_type": "application/json", "content_length": str(len(body)), **headers}
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "server": ("127.0.0.1", 80),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in names.items()],
    }
    pieces = [body[start : start + chunk] for start in range(0, len(body), chunk)]
    answers = []

    async def receive():
        if not pieces:
            await asyncio.sleep(3600)
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message):
        answers.append(message)

    async def run():
        request = asyncio.ensure_future(app(scope, receive, send))
        count = 0
        while not request.done():
            await asyncio.sleep(0.001)
            count += 1
        await request
        return answers[0]["status"], count

    return asyncio.run(run())


def binary(tensors, data=b""):
    text = json.dumps({"inputs": tensors}).encode()
    return text + data, {"inference_header_content_length": str(len(text))}


@pytest.fixture(scope="module")
def app():
    return create_app(echo_registry(), Settings(max_body=256 << 20))


def test_the_event_loop_stays_free_while_a_bomb_is_unpacked(app):
    packed = gzip.compress(b" " * (200 << 20), 9)
    for path in ("/artifacts/scale/execute", "/v2/models/echo/infer"):
        found, count = turns(app, path, packed, chunk=1 << 20, content_encoding="gzip")
        assert found == 400
        assert count > 50


@pytest.fixture
def threads(monkeypatch):
    """The threads that read binary BYTES and the JSON of a request."""
    seen = []

    def noting(function):
        def noted(*args, **kwargs):
            seen.append(threading.current_thread())
            return function(*args, **kwargs)

        return noted

    monkeypatch.setattr(inference_body, "read_bytes_elements", noting(inference_body.read_bytes_elements))
    monkeypatch.setattr(InferenceRequest, "from_json", noting(InferenceRequest.from_json))
    return seen


@pytest.mark.parametrize("elements", [10, 100_000])
@pytest.mark.parametrize("in_json", [True, False])
def test_long_requests_are_parsed_in_a_thread(app, threads, elements, in_json):
    texts = {"name": "x_BYTES", "datatype": "BYTES", "shape": [elements]}
    number = {"name": "x_FP32", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}
    if in_json:
        body, headers = binary([{**texts, "data": ["a"] * elements}, number], bytes(4))
    else:
        size = {"parameters": {"binary_data_size": 4 * elements}}
        body, headers = binary([{**texts, **size}], bytes(4 * elements))
    found, _ = turns(app, "/v2/models/echo/infer", body, **headers)
    assert found == 200
    if elements > 10:
        assert threading.main_thread() not in (threads if in_json else threads[1:])


class Slow(SparseAttentionArtifact):
    """A third-party subclass of a built-in artifact."""

    def process_attention(self, attention_matrix, sparsity_ratio: float = 0.8):
        """Sleeps."""
        time.sleep(0.2)
        return np.asarray(attention_matrix)


def test_only_quick_artifacts_run_on_the_event_loop():
    registry = default_registry()
    registry.register_artifact("slow", Slow(), "attention")
    quick = {spec.name for spec in registry.list_artifacts() if spec.implementation.is_quick}
    assert quick == {
        "sparse_attention",
        "sliding_window_attention",
        "scaled_dot_product_attention",
        "tensor_parallel",
        "lru_cache",
    }
    assert not RedisCacheArtifact.is_quick
    assert not TensorParallelArtifact(executor=SimpleNamespace(is_local=False)).is_quick
    body = json.dumps({"attention_matrix": [[1.0]]}).encode()
    found, count = turns(create_app(registry, Settings()), "/artifacts/slow/execute", body)
    assert found == 200
    assert count > 20
