"""``If-Match`` and ``If-None-Match`` of entries, and how long entries live; in the process and on a Redis server."""

import concurrent.futures

import pytest

from support.redis import needs_redis
from support.requests import JSON, problem
from support.service_artifacts import Dict
from support.waiting import wait_until
from zerocost import default_registry
from zerocost.artifacts.memory.lru_cache import LRUCacheArtifact
from zerocost.artifacts.memory.redis_cache import RedisCacheArtifact

ENTRY = "/services/memory/entries/k"


class Plain(Dict):
    """A memory that cannot compare and store in one step."""

    def delete(self, key):
        return self.entries.pop(key, None) is not None


@pytest.fixture(params=["lru", pytest.param("redis", marks=needs_redis)])
def artifact(request):
    if request.param == "lru":
        return LRUCacheArtifact()
    artifact = RedisCacheArtifact(request.getfixturevalue("redis").url)
    artifact.clear()
    return artifact


@pytest.fixture
def client(serve, artifact):
    registry = default_registry()
    registry.register_artifact("lru_cache", artifact, "memory", replace=True)
    return serve(registry)


def put(client, body=b"1", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.put(ENTRY, content=body, headers={**JSON, **named})


def test_put_if_none_match(client):
    assert put(client, if_none_match="*").status_code == 204
    problem(put(client, b"2", if_none_match="*"), 412, "precondition_failed")
    assert client.get(ENTRY).content == b"1"
    assert client.delete(ENTRY).status_code == 204
    assert put(client, b"3", if_none_match="*").status_code == 204


def test_put_if_match(client):
    problem(put(client, if_match="*"), 412, "precondition_failed")
    first = put(client, b"1").headers["etag"]
    second = put(client, b"2", if_match=f'"other", {first}')
    assert second.status_code == 204
    problem(put(client, b"3", if_match=first), 412, "precondition_failed")
    # A weak tag says that something looks alike; If-Match asks for the same bytes.
    problem(put(client, b"3", if_match=f"W/{second.headers['etag']}"), 412, "precondition_failed")
    problem(put(client, b"3", if_none_match=f"W/{second.headers['etag']}"), 412, "precondition_failed")
    assert put(client, b"3", if_match="*").status_code == 204
    assert client.get(ENTRY).content == b"3"


def test_delete_if_match(client):
    tag = put(client).headers["etag"]
    for headers in ({"if-match": '"other"'}, {"if-none-match": "*"}, {"if-none-match": tag}):
        problem(client.delete(ENTRY, headers=headers), 412, "precondition_failed")
        assert client.get(ENTRY).content == b"1"
    assert client.delete(ENTRY, headers={"if-match": tag}).status_code == 204
    assert client.get(ENTRY).status_code == 404
    problem(client.delete(ENTRY, headers={"if-match": tag}), 412, "precondition_failed")


def test_get_if_none_match(client):
    assert client.get(ENTRY, headers={"if-match": "*"}).status_code == 404
    first = put(client, b"1").headers["etag"]
    for known in ("*", first, f'"other", {first}'):
        assert client.get(ENTRY, headers={"if-match": known}).content == b"1"
    for other in ('"other"', f"W/{first}"):
        problem(client.get(ENTRY, headers={"if-match": other}), 412, "precondition_failed")
    # If-Match comes first (RFC 9110, 13.2.2).
    problem(client.get(ENTRY, headers={"if-match": '"other"', "if-none-match": first}), 412, "precondition_failed")
    assert client.get(ENTRY, headers={"if-match": first, "if-none-match": first}).status_code == 304


@pytest.mark.parametrize("text", ["1_0", "soon", "", "1 0"])
def test_a_ttl_is_a_decimal_number(client, text):
    problem(put(client, zerocost_ttl=text), 400, "bad_request")


def test_entries_that_others_put_have_an_etag(client, artifact):
    artifact.store("k", {"x": [1, None]})
    tag = client.get(ENTRY).headers["etag"]
    problem(put(client, if_match='"other"'), 412, "precondition_failed")
    assert put(client, if_match=tag).status_code == 204


def test_one_of_many_concurrent_creations_wins(client):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda index: put(client, b"%d" % index, if_none_match="*"), range(8)))
    assert sorted(answer.status_code for answer in answers) == [204, *[412] * 7]
    stored = int(client.get(ENTRY).content)
    assert answers[stored].status_code == 204


def test_no_update_is_lost(client):
    put(client, b"0")

    def count(_):
        for _ in range(10):
            while True:
                known = client.get(ENTRY)
                answer = put(client, b"%d" % (int(known.content) + 1), if_match=known.headers["etag"])
                if answer.status_code == 204:
                    break
                assert answer.status_code == 412

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert client.get(ENTRY).content == b"40"


def test_a_memory_without_conditional_writes_is_refused(serve):
    registry = default_registry()
    registry.register_artifact("lru_cache", Plain(), "memory", replace=True)
    client = serve(registry)
    assert put(client).status_code == 204
    problem(put(client, if_none_match="*"), 501, "unsupported")
    problem(client.delete(ENTRY, headers={"if-match": "*"}), 501, "unsupported")
    assert client.get(ENTRY).content == b"1"
    assert client.delete(ENTRY).status_code == 204


@pytest.mark.alone
@pytest.mark.parametrize("headers", [{}, {"if_none_match": "*"}])
def test_entries_expire_after_their_time_to_live(client, headers):
    assert put(client, zerocost_ttl="0.7", **headers).status_code == 204
    assert client.get(ENTRY).content == b"1"
    wait_until(lambda: client.get(ENTRY).status_code == 404, 5)
    for forever in ("inf", "1e300"):
        assert put(client, zerocost_ttl=forever).status_code == 204
    assert client.get(ENTRY).content == b"1"
    for wrong in ("0", "-1", "nan"):
        assert put(client, zerocost_ttl=wrong).status_code == 422


@pytest.mark.alone
def test_values_expire_after_their_time_to_live(client):
    def ask(method, **body):
        return client.post(f"/services/memory/{method}", json=body)

    assert ask("put", key="k", value=[1], ttl=0.7).json() == {"output": True}
    assert ask("get", key="k").json() == {"output": [1]}
    wait_until(lambda: ask("get", key="k").status_code == 404, 5)
    assert ask("put", key="k", value=[2], ttl="Infinity").json() == {"output": True}
    assert ask("get", key="k").json() == {"output": [2]}
    for wrong in (0, "NaN", "soon", True):
        assert ask("put", key="k", value=[3], ttl=wrong).status_code == 422
