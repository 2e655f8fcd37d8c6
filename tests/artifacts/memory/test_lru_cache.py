"""The lru_cache artifact: its operations, its bound, and conditional changes."""

import threading

import numpy as np
import pytest

import zerocost
from support.contract import ArtifactContract, context
from zerocost import ArtifactCommunicationService, ArtifactRegistry, LRUCache, default_registry
from zerocost.artifacts.memory.lru_cache import LRUCacheArtifact
from zerocost.core.artifact_base import ABSENT


class TestLRUCacheArtifact(ArtifactContract):
    def make(self):
        return LRUCacheArtifact()

    def required(self, artifact):
        return ["key"]  # the schema's conditions need it for the example's operation


@pytest.fixture
def artifact():
    return LRUCacheArtifact(LRUCache(max_bytes=100))


def run(artifact, operation, **inputs):
    return artifact.execute({"operation": operation, **inputs}, context("lru_cache"))


def test_put_get_delete_contains_keys_clear(artifact):
    array = np.arange(3.0)
    assert run(artifact, "put", key="a", value=array) == {"result": True, "artifact_used": "lru_cache"}
    found = run(artifact, "get", key="a")
    assert found["result"] is array
    assert found["found"] is True
    assert artifact.execute({"key": "a"}, context())["result"] is array
    assert run(artifact, "contains", key="a")["result"] is True
    assert run(artifact, "keys")["result"] == ["a"]
    assert run(artifact, "delete", key="a")["result"] is True
    assert run(artifact, "delete", key="a")["result"] is False
    assert run(artifact, "contains", key="a")["result"] is False
    run(artifact, "put", key="b", value=1)
    assert run(artifact, "clear")["result"] is True
    assert run(artifact, "keys")["result"] == []


def test_a_stored_none_can_be_told_from_nothing(artifact):
    assert run(artifact, "get", key="a") == {"result": None, "found": False, "artifact_used": "lru_cache"}
    run(artifact, "put", key="a", value=None)
    assert run(artifact, "get", key="a") == {"result": None, "found": True, "artifact_used": "lru_cache"}


def test_larger_than_the_cache_is_false_and_the_old_value_stays(artifact):
    run(artifact, "put", key="a", value=b"old")
    run(artifact, "put", key="b", value=b"other")
    assert run(artifact, "put", key="a", value=bytes(101))["result"] is False
    assert run(artifact, "get", key="a")["result"] == b"old"
    stats = run(artifact, "stats")["result"]
    assert stats["rejected"] == 1
    assert stats["entries"] == 2
    assert stats["bytes"] == 8


def test_an_unknown_operation_is_named(artifact):
    with pytest.raises(ValueError, match="Unknown operation: evict"):
        run(artifact, "evict")
    with pytest.raises(zerocost.MissingInput, match="value required"):
        run(artifact, "put", key="a")
    with pytest.raises(zerocost.MissingInput, match="key required"):
        run(artifact, "get")


def test_the_bound_is_read_when_the_artifact_is_made(monkeypatch):
    monkeypatch.delenv("ZEROCOST_MEMORY_MAX_BYTES", raising=False)
    assert LRUCacheArtifact().cache.max_bytes == 256 * 1024**2
    monkeypatch.setenv("ZEROCOST_MEMORY_MAX_BYTES", " 1000 ")
    assert LRUCacheArtifact().cache.max_bytes == 1000
    for wrong in ("0", "-5", "1e6", "256 MiB", "1.5"):
        monkeypatch.setenv("ZEROCOST_MEMORY_MAX_BYTES", wrong)
        with pytest.raises(zerocost.RangeError, match=f"ZEROCOST_MEMORY_MAX_BYTES: '{wrong}' was given"):
            LRUCacheArtifact()


def test_it_is_built_in_and_works_in_a_chain():
    registry = default_registry()
    assert registry["lru_cache"].interface == "memory"
    assert default_registry()["lru_cache"].implementation is not registry["lru_cache"].implementation
    chain = [
        {"artifact": "lru_cache", "params": {"operation": "put", "key": "a"}},
        {"artifact": "lru_cache", "params": {"operation": "get", "key": "a"}, "inputs": {}},
    ]
    array = np.arange(4.0)
    result = ArtifactCommunicationService(registry).chain_artifacts(chain, {"value": array})
    assert result["result"] is array


def test_a_registry_can_hold_two_caches():
    registry = ArtifactRegistry()
    for name in ("one", "two"):
        registry.register_artifact(name, LRUCacheArtifact(LRUCache(3)), "memory")
    registry["one"].implementation.execute({"operation": "put", "key": "a", "value": 1}, context())
    assert not registry["two"].implementation.execute({"key": "a"}, context())["found"]


def test_a_listener_may_wait_for_a_store_of_another_thread():
    stored = []

    def store_elsewhere(*_):
        if not stored:
            thread = threading.Thread(target=lambda: stored.append(artifact.store("other", 1)))
            thread.start()
            thread.join(10)

    artifact = LRUCacheArtifact(zerocost.LRUCache(10, on_evict=store_elsewhere))
    artifact.store("key", 1)
    assert artifact.exchange("key", 2, lambda found: found == 1)
    assert stored == [True]
    assert artifact.retrieve("other") == 1


@pytest.mark.parametrize("value", ["new", ABSENT])
@pytest.mark.parametrize("before", ["old", ABSENT])
def test_what_changes_the_cache_itself_is_seen_by_an_exchange(before, value):
    cache = zerocost.LRUCache(10)
    artifact = LRUCacheArtifact(cache)
    seen = []

    def when(found):
        seen.append(found)
        if len(seen) == 1:  # another change comes in between
            cache["key"] = "another"
        return True

    if before is not ABSENT:
        cache["key"] = before
    assert artifact.exchange("key", value, when)
    assert seen == [before, "another"]
    assert cache.get("key", ABSENT) is value


def test_an_exchange_that_changes_nothing_says_so():
    artifact = LRUCacheArtifact(zerocost.LRUCache(max_bytes=100))
    assert not artifact.exchange("key", np.zeros(1000), lambda found: found is ABSENT)
    assert not artifact.exchange("key", ABSENT, lambda found: found is ABSENT)
    assert artifact.keys() == []
