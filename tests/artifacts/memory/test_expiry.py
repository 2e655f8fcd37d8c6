"""Times to live and to idle, with a clock that the test moves."""

import math

import pytest

from support.clock import Clock
from support.waiting import wait_until
from zerocost import LRUCache


@pytest.fixture
def clock():
    return Clock()


def test_an_entry_ends_when_its_time_is_over(clock):
    left = []
    cache = LRUCache(9, ttl=10, clock=clock, on_evict=lambda *item: left.append(item))
    cache["a"] = 1
    clock.now += 9.999
    assert cache["a"] == 1
    clock.now += 0.001
    assert "a" not in cache
    assert left == [("a", 1, "expired")]
    assert cache.stats()["evictions"]["expired"] == 1


@pytest.mark.parametrize("operation", ["len", "iter", "stats", "repr", "items", "get", "put", "popitem", "eq"])
def test_no_operation_shows_what_has_ended(clock, operation):
    cache = LRUCache(2, ttl=10, clock=clock)
    cache["old"] = 1
    clock.now += 5
    cache["young"] = 2
    clock.now += 5
    if operation == "put":
        cache["new"] = 3
        assert list(cache) == ["young", "new"], "no live entry goes before one that has ended"
        assert cache.stats()["evictions"]["size"] == 0
        return
    assert {
        "len": lambda: len(cache) == 1,
        "iter": lambda: list(cache) == ["young"],
        "stats": lambda: cache.stats()["entries"] == 1,
        "repr": lambda: "entries=1" in repr(cache),
        "items": lambda: list(cache.items()) == [("young", 2)],
        "get": lambda: cache.get("old") is None,
        "popitem": lambda: cache.popitem() == ("young", 2),
        "eq": lambda: cache == {"young": 2},
    }[operation]()


def test_entries_have_times_of_their_own(clock):
    cache = LRUCache(9, ttl=10, clock=clock)
    cache.put("short", 1, ttl=1)
    cache.put("long", 1, ttl=100)
    cache.put("ever", 1, ttl=math.inf)
    cache.put("default", 1)
    clock.now += 1
    assert set(cache) == {"long", "ever", "default"}
    clock.now += 9
    assert set(cache) == {"long", "ever"}
    clock.now += 1e9
    assert set(cache) == {"ever"}
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="ttl"):
            cache.put("a", 1, ttl=wrong)
    with pytest.raises(TypeError, match="ttl"):
        cache.put("a", 1, ttl="1")


def test_a_cache_without_times_takes_entries_with_one(clock):
    cache = LRUCache(9, clock=clock)
    cache["ever"] = 1
    cache.put("a", 1, ttl=5)
    clock.now += 5
    assert list(cache) == ["ever"]


def test_overwriting_starts_anew(clock):
    cache = LRUCache(9, ttl=10, clock=clock)
    cache.put("a", 1, ttl=1)
    clock.now += 0.5
    cache["a"] = 2
    clock.now += 9
    assert cache["a"] == 2
    clock.now += 1
    assert "a" not in cache


def test_idle_time_counts_from_the_last_use_and_the_earlier_end_wins(clock):
    cache = LRUCache(9, ttl=25, tti=10, clock=clock)
    cache["used"] = cache["peeked"] = 1
    clock.now += 9
    assert cache.get("used") == 1
    assert cache.peek("peeked") == 1
    clock.now += 9
    assert cache.get("used") == 1
    assert "peeked" not in cache
    assert list(cache) == ["used"], "a look is no use"
    clock.now += 7
    assert len(cache) == 0


def test_jitter_draws_below_the_time_to_live(clock):
    cache = LRUCache(1000, ttl=100, ttl_jitter=0.5, clock=clock)
    for n in range(1000):
        cache[n] = n
    clock.now += 49.9
    assert len(cache) == 1000
    clock.now += 25
    assert 350 < len(cache) < 650
    clock.now += 25.2
    assert len(cache) == 0


def test_invalid_clocks(clock):
    for broken, error in ((lambda: "now", TypeError), (lambda: float("nan"), ValueError)):
        cache = LRUCache(3, ttl=1, clock=broken)
        with pytest.raises(error, match="clock"):
            cache["a"] = 1


def test_the_default_clock_runs():
    lasting, brief = LRUCache(3, ttl=1000), LRUCache(3, ttl=0.05)
    lasting["a"] = brief["a"] = 1
    wait_until(lambda: "a" not in brief)
    assert "a" in lasting
