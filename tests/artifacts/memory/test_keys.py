"""Keys that are compared natively are the same keys as in a dict, and all others are still found."""

import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerocost import LRUCache

# Equal values of several types, values that collide, and values around the limits of native types.
ATOMS = st.one_of(
    st.sampled_from([0, False, 0.0, -0.0, 1, True, 1.0, -1, -2, 2**61 - 1, 2**61 - 2, -(2**61 - 1), 2**63, -(2**63)]),
    st.sampled_from([2**70, 2.0**70, float("nan"), float("inf"), None, "", b"", "a", b"a", "ä", "\ud800", "1"]),
    st.integers(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.floats(),
)
KEYS = st.one_of(
    ATOMS,
    st.lists(ATOMS, max_size=3).map(tuple),
    st.tuples(ATOMS, st.tuples(ATOMS)),
    st.frozensets(st.sampled_from([0, 1, "a"])),
)


def copied(key):
    """An equal object that is another one, where there can be one."""
    match key:
        case tuple():
            return tuple([copied(part) for part in key])
        case frozenset():
            return frozenset(list(key))
        case bool():
            return key
        case int():
            return int(str(key))
        case float() if key == key:
            return float(repr(key))
        case str():
            return "".join(list(key))
        case bytes():
            return bytes(bytearray(key))
    return key


@given(st.lists(st.tuples(KEYS, st.sampled_from(["put", "get", "in", "[]", "pop"])), max_size=60))
def test_the_same_keys_as_in_a_dict(steps):
    cache, model = LRUCache(1000), {}
    for n, (key, step) in enumerate(steps):
        again = copied(key)
        match step:
            case "put" if n % 2:
                assert cache.put(key, n) is True
                model[key] = n
            case "put":
                cache[key] = model[key] = n
            case "get":
                assert cache.get(again, "absent") == model.get(again, "absent")
                assert cache.get(again) == model.get(again)
            case "in":
                assert (again in cache) == (again in model)
            case "[]" if again in model:
                assert cache[again] == model[again]
            case "[]":
                with pytest.raises(KeyError):
                    cache[again]
            case "pop":
                assert cache.pop(again, None) == model.pop(again, None)
    assert len(cache) == len(model)
    assert cache == model


def test_no_comparison_of_built_in_keys_fails_at_the_bottom_of_a_recursion():
    keys = [2**70, b"abc", "text", (1, "a", b"c", 2**70, 1.5, None)]
    cache = LRUCache(9)
    for n, key in enumerate(keys):
        cache[key] = n
    others = [copied(key) for key in keys]
    found = set()

    def descend():
        for n, other in enumerate(others):
            found.add(cache.get(other) == n)
        descend()

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200)
    try:
        with pytest.raises(RecursionError):
            descend()
    finally:
        sys.setrecursionlimit(limit)
    assert found == {True}


def test_a_call_of_every_shape():
    cache = LRUCache(4)
    assert cache.put("a", 1) is True
    assert cache.put("b", 2, None) is True
    assert cache.put("c", value=3) is True
    assert cache.put(key="d", value=4, ttl=None) is True
    assert cache.get("a") == cache.get(key="a") == cache.get("a", None) == cache.get("a", default=None) == 1
    assert cache.get("z", 7) == cache.get("z", default=7) == 7
    assert LRUCache.get(cache, "a") == 1
    for call in (cache.get, cache.put, lambda: cache.get(1, 2, 3), lambda: cache.put(1, 2, 3, 4)):
        with pytest.raises(TypeError):
            call()
    for call in (lambda: cache.get(1, other=2), lambda: LRUCache.get({}, 1), lambda: cache.get([])):
        with pytest.raises(TypeError):
            call()
    assert "default=None" in LRUCache.get.__text_signature__
    assert "more than the whole cache" in LRUCache.put.__doc__


@pytest.mark.parametrize("policy", ["lru", "sieve", "w-tinylfu"])
def test_quick_calls_count_and_order_as_the_others(policy):
    quick, slow = LRUCache(8, policy=policy), LRUCache(8, policy=policy, on_evict=lambda *_: None)
    for n, step in zip(range(600), itertools.cycle([3, 5, 7, 11, 13]), strict=False):
        key = n * step % 23
        assert quick.get(key) == slow.get(key=key)
        if n % 3:
            quick[key] = n
            slow.put(key, n, ttl=None)
    assert list(quick) == list(slow)
    assert quick.stats() == slow.stats()
