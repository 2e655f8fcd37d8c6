"""Entries of the memory over HTTP: put, read, deleted, and used in a chain."""

import numpy as np
import orjson
import pytest

from support.service_registry import ask
from zerocost import (
    default_registry,
)
from zerocost.core.safetensors import to_pieces


def test_memory_by_method(serve, registry):
    client = serve(registry)
    assert ask(client, "memory/put", {"key": "a", "value": {"x": [1, None]}}).json() == {"output": True}
    assert ask(client, "memory/get", {"key": "a"}).json() == {"output": {"x": [1, None]}}
    assert client.get("/services/memory/entries/a").json() == {"x": [1, None]}
    assert ask(client, "memory/stats", {}).json() == {"output": {"entries": 1}}
    assert ask(client, "memory/delete", {"key": "a"}).json() == {"output": True}
    assert ask(client, "memory/clear", {}).json() == {"output": True}


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/json", "application/vnd.safetensors"])
def test_entries_come_back_as_they_were_put(serve, registry, kind):
    client = serve(registry)
    url, body = "/services/memory/entries/folder/ü key", b'{"x": 1}\n\x00'[:-1]
    put = client.put(url, content=body, headers={"content-type": kind, "zerocost-ttl": "2.5"})
    assert put.status_code == 204, put.text
    assert registry["lru_cache"].implementation.lives == {"folder/ü key": 2.5}
    got = client.get(url)
    assert (got.status_code, got.content, got.headers["content-type"]) == (200, body, kind)
    assert got.headers["etag"] == put.headers["etag"]
    unchanged = client.get(url, headers={"if-none-match": f'"other", W/{got.headers["etag"]}'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert client.get(url, headers={"if-none-match": '"other"'}).status_code == 200
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 404


def test_entries_that_cannot_be_put(serve, registry):
    client = serve(registry)
    url = "/services/memory/entries/a"
    json = {"content-type": "application/json"}
    assert client.put(url, content=b"x", headers={"content-type": "text/html"}).status_code == 415
    assert client.put(url, content=b"x", headers={**json, "zerocost-ttl": "soon"}).status_code == 400
    assert client.put(url, content=b"x", headers={**json, "zerocost-ttl": "0"}).status_code == 422
    assert client.put(url, content=b"x" * 2000, headers=json).status_code == 413
    assert client.put(f"/services/memory/entries/{'k' * 1001}", content=b"x", headers=json).status_code == 422


MATRIX = [[1.0, 2.0], [3.0, 4.0]]


ENTRIES = {
    "application/json": orjson.dumps(MATRIX),
    "application/vnd.safetensors": b"".join(to_pieces({"attention_matrix": np.array(MATRIX)}, "{}")),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_a_chain_passes_on_the_value_of_a_raw_entry(serve, kind):
    registry = default_registry()
    client = serve(registry)
    url = "/services/memory/entries/m"
    assert client.put(url, content=ENTRIES[kind], headers={"content-type": kind}).status_code == 204
    get, attend = {"artifact": "lru_cache", "params": {"key": "m"}}, {"artifact": "sparse_attention"}
    if kind == "application/json":
        answer = client.post("/chains/execute", json={"pipeline": [get, attend]})
        wanted = client.post("/artifacts/sparse_attention/execute", json={"attention_matrix": MATRIX}).json()["data"]
        assert (answer.status_code, answer.json().get("data")) == (200, wanted)
    # A client that put bytes gets these bytes.
    assert client.get(url).content == ENTRIES[kind]
    assert client.get(url).headers["content-type"] == kind


def test_raw_entries_are_values_for_clients_that_ask_for_values(serve):
    client = serve(default_registry())
    url = "/services/memory/entries/k"

    def got():
        return (
            client.post("/artifacts/lru_cache/execute", json={"operation": "get", "key": "k"}),
            client.post("/chains/execute", json={"pipeline": [{"artifact": "lru_cache", "params": {"key": "k"}}]}),
            ask(client, "memory/get", {"key": "k"}),
        )

    def values(answers):
        artifact, chain, service = (answer.json() for answer in answers)
        return artifact["data"]["result"], chain["data"]["result"], service["output"]

    client.put(url, content=b'{"x": [1, 2.5, null]}', headers={"content-type": "application/json"})
    assert values(got()) == ({"x": [1, 2.5, None]},) * 3
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    message = b"".join(to_pieces({"t": array}, '{"y": "z"}'))
    client.put(url, content=message, headers={"content-type": "application/vnd.safetensors"})
    assert values(got()) == ({"t": array.tolist(), "y": "z"},) * 3
    assert client.get(url).content == message
    for kind, content in [
        ("application/octet-stream", b"\0\1"),
        ("application/json", b'{"not": json'),
        ("application/vnd.safetensors", message[:-1]),
        ("application/vnd.safetensors", b""),
    ]:
        client.put(url, content=content, headers={"content-type": kind})
        for answer in got():
            assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable"), answer.text
        assert client.get(url).content == content


def test_keys_that_are_not_utf8_are_refused(serve):
    client = serve(default_registry())
    json = {"content-type": "application/json"}
    assert client.put("/services/memory/entries/%ff", content=b"1", headers=json).status_code == 422
    assert client.put("/services/memory/entries/%ef%bf%bd", content=b"1", headers=json).status_code == 204
