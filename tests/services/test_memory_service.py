"""The memory service."""

import asyncio
import sys

import numpy as np
import pytest

from support.service_artifacts import LastingDict
from support.threads import meanwhile
from zerocost import (
    ArtifactRegistry,
    DatatypeError,
    InvalidInput,
    MemoryArtifact,
    MemoryService,
    RangeError,
    UnknownArtifact,
    UnknownKey,
    UnknownOperation,
    default_registry,
)
from zerocost.core.entry import Entry
from zerocost.services.active_artifacts import ActiveArtifacts


class LookupDict(LastingDict):
    """Says whether an entry is there."""

    def lookup(self, key):
        return key in self.entries, self.entries.get(key)


class Plain(MemoryArtifact):
    """Has only the methods that every memory artifact has."""

    def retrieve(self, key):
        return None

    def store(self, key, value):
        return False

    def clear(self):
        return True


@pytest.fixture
def registry():
    registry = ArtifactRegistry()
    registry.register_artifact("dict", LookupDict(), "memory")
    registry.register_artifact("plain", Plain(), "memory")
    return registry


@pytest.fixture
def service(registry):
    return MemoryService(registry, "dict")


def test_get_returns_what_was_put(service):
    array = np.arange(3)
    assert service.put("a", array) is True
    assert service.get("a") is array
    service.put("none", None)
    assert service.get("none") is None
    assert service.stats() == {"entries": 2}
    assert service.delete("a") is True
    with pytest.raises(UnknownKey, match="'a'"):
        service.get("a")
    assert service.clear() is True
    assert service.stats() == {"entries": 0}


def test_entries_keep_their_media_type(service):
    entry = Entry("application/octet-stream", b"\0\1\xff")
    service.put("b", entry)
    assert service.get("b") == entry
    assert service.get("b").tag == entry.tag
    assert entry.tag != Entry("application/json", entry.body).tag != Entry("application/json", b"").tag
    assert Entry.unpack(b"bytes of another kind") == b"bytes of another kind"


def test_time_to_live(service, registry):
    service.put("a", 1, ttl=2.5)
    assert registry["dict"].implementation.lives == {"a": 2.5}
    for kind, wrong in (
        (RangeError, 0),
        (RangeError, -1),
        (RangeError, float("nan")),
        (TypeError, True),
        (TypeError, "1"),
    ):
        with pytest.raises(kind, match="ttl"):
            service.put("a", 1, ttl=wrong)
    service.use_artifact("plain")
    with pytest.raises(InvalidInput, match="'plain' takes none"):
        service.put("a", 1, ttl=1)


def test_the_built_in_cache():
    service = MemoryService(default_registry())
    array = np.arange(4.0)
    assert service.put("a", array, ttl=1000)
    assert service.get("a") is array
    assert service.put("b", Entry("application/json", b"1"))
    assert service.get("b") == Entry("application/json", b"1")
    assert service.put("short", 1, ttl=1e-6)
    with pytest.raises(UnknownKey):
        service.get("short")
    assert service.stats()["entries"] == 2
    assert service.clear()


def test_artifacts_that_can_do_less(registry):
    service = MemoryService(registry, "plain")
    assert service.put("a", 1) is False
    with pytest.raises(UnknownKey):
        service.get("a")
    with pytest.raises(UnknownOperation):
        service.stats()
    with pytest.raises(UnknownArtifact):
        MemoryService(registry, "nothing")


def test_keys_are_text(service):
    for wrong in (1, b"a", ("zerocost.forward", "a"), None):
        with pytest.raises(DatatypeError, match="key"):
            service.get(wrong)
        with pytest.raises(DatatypeError, match="key"):
            service.put(wrong, 1)


def test_methods_for_requests(service):
    async def ask():
        assert await service.post_put({"key": "a", "value": {"x": [1]}}) == {"output": True}
        assert await service.post_get({"key": "a"}) == {"output": {"x": [1]}}
        assert await service.post_stats({}) == {"output": {"entries": 1}}
        assert await service.post_delete({"key": "a"}) == {"output": True}
        assert await service.post_clear({}) == {"output": True}
        with pytest.raises(InvalidInput, match="value required"):
            await service.post_put({"key": "a"})
        service.put("raw", Entry("text/plain", b"x"))
        with pytest.raises(InvalidInput, match="text/plain"):
            await service.post_get({"key": "raw"})

    asyncio.run(ask())


@pytest.fixture
def quick_switches():
    """Threads take turns as often as they can, so that they meet in the middle of things."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_switches")
def test_there_is_always_a_memory_while_it_is_replaced():
    service = MemoryService(default_registry())
    with meanwhile(lambda: service.stop_artifact("memory")):
        for _ in range(20_000):
            service.clear()


@pytest.mark.usefixtures("quick_switches")
def test_changes_of_two_interfaces_at_once_are_both_kept():
    active = ActiveArtifacts(default_registry(), ("attention", "memory"))
    memory = active.find("lru_cache", {})
    windows = [active.find("sliding_window_attention", {"window_size": size}) for size in (1, 2)]

    def change():
        active.put(memory)
        active.stop("memory")

    with meanwhile(change):
        for window in windows * 20_000:
            active.put(window)
            assert active.get("attention") is window
