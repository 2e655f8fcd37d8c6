"""The mapping protocol, bounds, weights and errors."""

import gc
import inspect
import sys
import weakref
from collections.abc import MutableMapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zerocost
from zerocost import LRUCache


def test_it_is_a_mutable_mapping_and_not_hashable():
    cache = LRUCache(4)
    assert isinstance(cache, MutableMapping)
    with pytest.raises(TypeError, match="unhashable"):
        hash(cache)
    assert LRUCache[str, int].__origin__ is LRUCache
    assert weakref.ref(cache)() is cache


def test_get_returns_the_stored_object():
    cache = LRUCache(max_bytes=1000)
    array = np.arange(5.0)
    cache["a"] = array
    assert cache["a"] is array
    assert cache.get("a") is array
    assert cache.peek("a") is array
    assert array.flags.writeable


def test_views_are_sets_and_snapshots():
    cache = LRUCache(4)
    cache.update({"a": 1, "b": 2}, c=3)
    cache.update([("d", 4)])
    assert cache.keys() & {"a", "z"} == {"a"}
    assert cache.items() >= {("a", 1)}
    assert ("a", 2) not in cache.items()
    assert "a" not in cache.items()
    assert 3 in cache.values()
    assert len(cache.values()) == 4
    assert list(reversed(cache.values())) == [4, 3, 2, 1]
    assert next(reversed(cache.items())) == ("d", 4)
    assert next(reversed(cache.keys())) == "d"
    for key in cache:
        del cache[key]
    assert len(cache) == 0
    assert not cache
    assert cache.stats()["hits"] == 0, "looking at views is no use of an entry"


def test_equality_is_that_of_mappings():
    one, two = LRUCache(4), LRUCache(9)
    one.update(a=1, b=2)
    two.update(b=2, a=1)
    assert one == two == {"a": 1, "b": 2}
    assert one != {"a": 1}
    assert one != [("a", 1), ("b", 2)]


def test_missing_is_honoured_by_subscription_only():
    class Doubling(LRUCache):
        def __init__(self, name):
            super().__init__(max_entries=3)
            self.name = name

        def __missing__(self, key):
            self[key] = key * 2
            return self[key]

    cache = Doubling("a subclass has attributes")
    assert cache[4] == 8
    assert cache.get(5) is None
    assert list(cache) == [4]
    assert "Doubling" in repr(cache)


def test_a_subclass_without_super_init_gets_a_clear_error():
    class Forgetful(LRUCache):
        def __init__(self):
            pass

    with pytest.raises(RuntimeError, match="__init__"):
        Forgetful()["a"]
    with pytest.raises(RuntimeError, match="twice"):
        LRUCache(3).__init__(4)


def test_pop_setdefault_and_popitem():
    cache = LRUCache(2)
    cache["a"] = 1
    assert cache.pop("a") == 1
    assert cache.pop("a", None) is None
    with pytest.raises(KeyError, match="a"):
        cache.pop("a")
    with pytest.raises(KeyError, match="empty"):
        cache.popitem()
    with pytest.raises(KeyError):
        del cache["a"]
    with pytest.raises(TypeError):
        cache.pop("a", 1, 2)
    assert cache.setdefault("n") is None
    assert "n" in cache


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((), {}, ValueError, "at least one bound"),
        ((None, None), {}, ValueError, "at least one bound"),
        ((0,), {}, ValueError, "max_entries: 0 was given"),
        ((-1,), {}, ValueError, "max_entries: -1 was given"),
        ((None, 0), {}, ValueError, "max_bytes: 0 was given"),
        ((None, -(10**30)), {}, ValueError, "max_bytes"),
        ((1.5,), {}, TypeError, "max_entries: .*float.* was given"),
        ((True,), {}, TypeError, "max_entries"),
        (("3",), {}, TypeError, "max_entries"),
        ((3,), {"ttl": 0}, ValueError, "ttl: 0 was given"),
        ((3,), {"ttl": -1.0}, ValueError, "ttl"),
        ((3,), {"ttl": float("nan")}, ValueError, "ttl"),
        ((3,), {"ttl": "1"}, TypeError, "ttl"),
        ((3,), {"tti": 0}, ValueError, "tti: 0 was given"),
        ((3,), {"ttl": 1, "ttl_jitter": 1.5}, ValueError, "ttl_jitter: 1.5 was given"),
        ((3,), {"ttl_jitter": float("nan")}, ValueError, "ttl_jitter"),
        ((3,), {"policy": "lfu"}, ValueError, "policy: 'lfu' was given"),
        ((3,), {"on_evict": 3}, TypeError, "on_evict"),
        ((3,), {"sizeof": 3}, TypeError, "sizeof"),
        ((3,), {"clock": 3}, TypeError, "clock"),
        ((3,), {"nonsense": 3}, TypeError, "nonsense"),
    ],
)
def test_invalid_options_are_refused(arguments, options, error, text):
    with pytest.raises(error, match=text):
        LRUCache(*arguments, **options)


def test_large_bounds_are_bounds():
    assert LRUCache(10**30).max_entries == 2**64 - 1
    assert LRUCache(np.int64(5)).max_entries == 5
    assert LRUCache(max_bytes=2**63).max_bytes == 2**63
    assert LRUCache(5, policy="sieve").policy == "sieve"


def test_unhashable_keys_are_refused_everywhere():
    cache = LRUCache(3)
    calls = [cache.get, cache.peek, cache.__getitem__, cache.__contains__, cache.pop, cache.setdefault]
    calls += [lambda key: cache.put(key, 1), lambda key: cache.__setitem__(key, 1), cache.__delitem__]
    for call in calls:
        with pytest.raises(TypeError, match="unhashable"):
            call([])
    assert cache.stats() == LRUCache(3).stats()


def test_a_value_larger_than_the_cache_changes_nothing():
    cache = LRUCache(max_bytes=10)
    cache["a"] = b"12345"
    assert not cache.put("a", b"x" * 11)
    with pytest.raises(zerocost.LimitExceeded, match="10 bytes"):
        cache["a"] = b"x" * 11
    with pytest.raises(ValueError, match="10 bytes"):
        cache.setdefault("b", b"x" * 11)
    assert cache == {"a": b"12345"}
    assert cache.stats()["rejected"] == 3


def weight(value, **options):
    cache = LRUCache(max_bytes=2**40, **options)
    cache["value"] = value
    return cache.stats()["bytes"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=3), children, max_size=4),
)


@given(json_values)
def test_json_values_weigh_what_they_are_encoded(value):
    import orjson

    expected = len(value.encode()) if isinstance(value, str) else len(orjson.dumps(value))
    assert weight(value) == expected


class Tensor:
    """Not an array, but with one in it, as other libraries have."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_weights_of_values():
    assert weight(b"12345") == 5
    assert weight("äö") == 4
    assert weight("\ud800") == 3
    assert weight(np.zeros((3, 4))) == 96
    assert weight(np.zeros((3, 4))[::2, 1]) == 96, "the memory that it keeps alive"
    assert weight(np.zeros(0)) == 0
    assert weight(np.array(1.0)) == 8
    assert weight(memoryview(b"12345")[2:]) == 5
    assert weight(memoryview(bytearray(7))) == 7
    assert weight(memoryview(np.zeros(4))[1:]) == 32
    assert weight(Tensor(np.zeros((5, 2), np.float32)[1:])) == 32
    assert weight(Tensor(np.array(0.5))) == 8
    assert weight(2**70) == 22
    assert weight(1.5) == 3
    assert weight(np.float64(1.5)) == 3
    assert weight(object(), sizeof=lambda key, value: 7) == 7
    assert weight(object(), sizeof=lambda key, value: np.int64(7)) == 7


def test_shared_memory_is_charged_once():
    cache = LRUCache(max_bytes=100)
    root = np.zeros(10)
    for n in range(5):
        cache[n] = root[n:]
    cache["view"] = memoryview(root)
    assert cache.stats()["bytes"] == 80
    cache["other"] = b"x" * 20
    assert len(cache) == 7
    cache["more"] = b"y"
    assert list(cache) == ["other", "more"], "the shared memory is free when the last view has gone"
    assert cache.stats()["bytes"] == 21


def test_a_released_memoryview_is_still_charged_to_its_owner():
    cache = LRUCache(max_bytes=100)
    view = memoryview(bytearray(60))
    cache["view"] = view
    view.release()
    cache["array"] = np.zeros(5)
    assert cache.stats()["bytes"] == 100
    del cache["view"]
    assert cache.stats()["bytes"] == 40


@pytest.mark.parametrize("value", [object(), 1j, {1, 2}, (1, 2), bytearray(3), {"a": object()}, [2**70]])
def test_a_value_of_unknown_size_is_refused_under_a_byte_bound(value):
    cache = LRUCache(max_bytes=100)
    cache["a"] = b"1"
    with pytest.raises(TypeError, match=r"value: .*sizeof"):
        cache["a"] = value
    assert cache == {"a": b"1"}
    LRUCache(max_entries=3)["a"] = value


@pytest.mark.parametrize(
    ("sizeof", "error", "text"),
    [
        (lambda key, value: -1, ValueError, "sizeof: returned -1"),
        (lambda key, value: "3", TypeError, "sizeof"),
        (lambda key, value: 1.0, TypeError, "sizeof"),
        (lambda key, value: 1 / 0, ZeroDivisionError, "division"),
    ],
)
def test_a_sizeof_that_fails_changes_nothing(sizeof, error, text):
    broken = [False]
    cache = LRUCache(max_bytes=100, sizeof=lambda key, value: sizeof(key, value) if broken[0] else 1)
    cache["a"] = 1
    broken[0] = True
    with pytest.raises(error, match=text):
        cache["a"] = 2
    assert cache == {"a": 1}
    assert cache.stats()["bytes"] == 1


def test_a_sizeof_beyond_all_bounds_is_rejected():
    assert not LRUCache(max_bytes=2**63, sizeof=lambda key, value: 10**30).put("a", 1)


def test_freeze_keeps_one_read_only_view():
    cache = LRUCache(max_bytes=1000, freeze=True)
    array = np.arange(4.0)
    cache["a"] = array
    view = cache["a"]
    assert view is cache["a"] is not array
    assert not view.flags.writeable
    assert array.flags.writeable
    assert np.shares_memory(view, array)
    assert cache.stats()["bytes"] == 32
    cache["b"] = b"other values are as they are"
    with pytest.raises(TypeError, match="read-only"):
        cache["c"] = Tensor(array)


def test_collection_finds_cycles_through_the_cache_and_its_callables():
    class Node:
        pass

    for make in (lambda node: LRUCache(3), lambda node: LRUCache(3, on_evict=lambda *_: node)):
        node = Node()
        node.cache = make(node)
        node.cache["node"] = node
        node.cache["self"] = node.cache
        gone = weakref.ref(node)
        del node
        gc.collect()
        assert gone() is None

    class Listening(LRUCache):
        def __init__(self):
            super().__init__(3, on_evict=self.left, sizeof=self.size, clock=self.time)

        def left(self, key, value, cause): ...

        def size(self, key, value):
            return 1

        def time(self):
            return 0.0

    gone = weakref.ref(Listening())
    gc.collect()
    assert gone() is None


def test_collection_does_not_visit_what_cannot_hold_anything():
    cache = LRUCache(1000)
    for n in range(1000):
        cache[n] = np.zeros(1)
    assert gc.get_referents(cache) == [LRUCache]
    cache["list"] = []
    assert sorted(map(repr, gc.get_referents(cache))) == ["'list'", repr(LRUCache), "[]"]


@pytest.mark.parametrize(
    ("bounds", "options"),
    [
        ((100,), {}),
        ((100, 10_000), {}),
        ((100,), {"policy": "sieve"}),
        ((100, 10_000), {"policy": "w-tinylfu"}),
        ((100, 10_000), {"ttl": 1e-4, "tti": 1e-4}),
    ],
)
def test_a_million_operations_leak_nothing(bounds, options):
    cache = LRUCache(*bounds, **options)
    value, key, text = bytes(150), ("a", "key"), "".join(["some", "key"])
    watched = (value, key, text)
    shared = (None, True, False)
    before = [sys.getrefcount(one) for one in watched]
    before_shared = [sys.getrefcount(one) for one in shared]
    for n in range(100_000):
        cache[n % 150] = value
        cache.get(n % 130)
        cache.put(key, value)
        cache.get(("a", "key"))
        cache[text] = value
        _ = text in cache
        cache.get("missing", value)
        cache.pop(n % 110, None)
        cache.setdefault(n % 50, value)
        cache.get_or_compute(n % 90, lambda: value)
    if len(bounds) == 2:
        stats = cache.stats()
        assert stats["bytes"] == 150 * stats["entries"] <= 10_000
    cache.clear()
    assert [sys.getrefcount(one) for one in watched] == before
    # Others hold these too.
    assert all(abs(sys.getrefcount(one) - n) < 1000 for one, n in zip(shared, before_shared, strict=True))
    assert cache.stats()["bytes"] == 0


def test_the_class_has_a_signature_and_one_name():
    assert str(inspect.signature(LRUCache)).startswith("(max_entries=None, max_bytes=None, *, ttl=None, tti=None")
    assert list(inspect.signature(LRUCache.put).parameters) == ["self", "key", "value", "ttl"]
    assert inspect.signature(LRUCache(3).get_or_compute).bind("key", len, ttl=3)
    assert LRUCache.__doc__.startswith("A cache that is bounded")
    assert [kind.__name__ for kind in LRUCache.__mro__] == ["LRUCache", "_LRUCache", "object"]
    assert repr(LRUCache(3)).startswith("LRUCache(")


def test_weights_beyond_64_bits_are_exact():
    for policy in ("lru", "sieve", "w-tinylfu"):
        cache = LRUCache(9, policy=policy, sizeof=lambda key, value: value)
        for n in range(3):
            assert cache.put(n, 2**63 - 1)
        assert cache.stats()["bytes"] == 3 * (2**63 - 1)
        assert not cache.put(3, 10**30)
        cache.clear()
        assert cache.stats()["bytes"] == 0
    cache = LRUCache(max_bytes=2**64 - 2, sizeof=lambda key, value: value)
    for n in range(3):
        assert cache.put(n, 2**63)
        assert cache.stats()["bytes"] == 2**63
    assert not LRUCache(max_bytes=10**30, sizeof=lambda key, value: value).put("a", 10**30)


def test_a_dlpack_tensor_beyond_all_bounds_is_rejected():
    class Tensor:
        def __dlpack__(self, **_):
            return np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (2**30, 2**30), (0, 0)).__dlpack__()

        def __dlpack_device__(self):
            return (1, 0)

    assert not LRUCache(max_bytes=2**40).put("a", Tensor())


def test_an_owner_that_its_view_lets_go_of_is_charged_as_long_as_the_view_is_held():
    cache = LRUCache(max_bytes=10**6)
    root = np.zeros(10)
    cache["view"] = view = root[:]
    del root
    view.__setstate__((1, (1,), np.dtype("f8"), False, bytes(8)))
    before = cache.stats()["bytes"]
    # One of these takes the place of what was freed.
    others = [np.zeros(10) for _ in range(50)]
    cache.update(enumerate(others))
    assert cache.stats()["bytes"] - before == 50 * 80
