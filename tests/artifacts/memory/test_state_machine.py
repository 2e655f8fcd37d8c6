"""Random operations on the cache and on a simple model of it: an OrderedDict, a sum, and a clock.

W-TinyLFU has no simple model; ``rust/kernels`` compares it with a twin.
"""

import math
from collections import OrderedDict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zerocost import LRUCache


class Same:
    """Equal by value, found through Python only; all of them share three hashes."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, Same) and self.value == other.value

    def __hash__(self):
        return hash(self.value) % 3

    def __repr__(self):
        return f"Same({self.value})"


numbers = st.integers(-4, 8)
keys = st.one_of(
    numbers,
    numbers.map(float),
    numbers.map(lambda n: n + 2**61 - 1),
    numbers.map(lambda n: n * 2**64),
    numbers.map(str),
    numbers.map(lambda n: f"ä{n}"),
    numbers.map(lambda n: str(n).encode()),
    st.tuples(numbers, numbers.map(str)),
    st.booleans(),
    st.none(),
    numbers.map(Same),
)
values = st.integers(0, 12).map(bytes)
times = st.none() | st.integers(1, 9)


class Model(RuleBasedStateMachine):
    @initialize(
        bounds=st.one_of(
            st.tuples(st.integers(1, 9), st.none()),
            st.tuples(st.none(), st.integers(1, 40)),
            st.tuples(st.integers(1, 9), st.integers(1, 40)),
        ),
        policy=st.sampled_from(["lru", "sieve"]),
        ttl=times,
        tti=times,
    )
    def make(self, bounds, policy, ttl, tti):
        self.max_entries, self.max_bytes = bounds
        self.policy, self.ttl, self.tti = policy, ttl or math.inf, tti or math.inf
        self.now = 0
        self.left = []
        self.cache = LRUCache(
            *bounds,
            policy=policy,
            ttl=ttl,
            tti=tti,
            clock=lambda: self.now,
            on_evict=lambda key, value, cause: self.left.append((key, value, cause)),
        )
        self.model = OrderedDict()
        # SIEVE's; and when entries end.
        self.visited, self.hand = set(), None
        self.live, self.idle = {}, {}
        self.expected = []
        self.counts = {"hits": 0, "misses": 0, "rejected": 0}

    def size(self):
        return sum(map(len, self.model.values()))

    def use(self, key):
        self.idle[key] = self.now + self.tti
        if self.policy == "lru":
            self.model.move_to_end(key)
        else:
            self.visited.add(key)

    def victim(self, keep=None):
        order = list(self.model)
        if self.policy == "lru":
            return order[0]
        place = 0 if self.hand is None else order.index(self.hand[0])
        while order[place] in self.visited or (keep is not None and order[place] == keep[0]):
            self.visited.discard(order[place])
            place = (place + 1) % len(order)
        self.hand = (order[place],)
        return order[place]

    def remove(self, key):
        """Its item, with the key that is resident."""
        order = list(self.model)
        place = order.index(key)
        if self.hand is not None and self.hand[0] == key:
            self.hand = (order[place + 1],) if place + 1 < len(order) else None
        self.visited.discard(key)
        del self.live[key], self.idle[key]
        return order[place], self.model.pop(key)

    def full(self, entries, size):
        return (self.max_entries is not None and len(self.model) + entries > self.max_entries) or (
            self.max_bytes is not None and self.size() + size > self.max_bytes
        )

    def put(self, key, value, ttl=None):
        if self.max_bytes is not None and len(value) > self.max_bytes:
            self.counts["rejected"] += 1
            return False
        if key in self.model:
            old = next(k for k in self.model if k == key)
            self.expected.append((old, self.model[key], "replaced"))
            self.model[key] = value
            self.use(key)
            while self.full(0, 0):
                self.expected.append((*self.remove(self.victim(keep=(key,))), "size"))
        else:
            while self.full(1, len(value)):
                self.expected.append((*self.remove(self.victim()), "size"))
            self.model[key] = value
            self.idle[key] = self.now + self.tti
        self.live[key] = self.now + (self.ttl if ttl is None else ttl)
        return True

    @rule(seconds=st.integers(1, 5))
    def wait(self, seconds):
        self.now += seconds
        ended = [key for key in self.model if min(self.live[key], self.idle[key]) <= self.now]
        expected = [(*self.remove(key), "expired") for key in ended]
        before = len(self.left)
        assert len(self.cache) == len(self.model)
        assert sorted(self.left[before:], key=repr) == sorted(expected, key=repr)
        self.expected += self.left[before:]

    @rule(key=keys, value=values, ttl=st.integers(1, 9) | st.just(math.inf))
    def store_for(self, key, value, ttl):
        assert self.cache.put(key, value, ttl) == self.put(key, value, ttl)

    @rule(key=keys)
    def get(self, key):
        if key in self.model:
            self.counts["hits"] += 1
            self.use(key)
            assert self.cache.get(key) is self.model[key]
        else:
            self.counts["misses"] += 1
            assert self.cache.get(key, self) is self

    @rule(key=keys)
    def item(self, key):
        if key in self.model:
            self.counts["hits"] += 1
            self.use(key)
            assert self.cache[key] is self.model[key]
        else:
            self.counts["misses"] += 1
            with pytest.raises(KeyError) as error:
                self.cache[key]
            assert error.value.args == (key,)

    @rule(key=keys)
    def look(self, key):
        assert (key in self.cache) == (key in self.model)
        assert self.cache.peek(key) is self.model.get(key)

    @rule(key=keys, value=values)
    def store(self, key, value):
        assert self.cache.put(key, value) == self.put(key, value)

    @rule(key=keys, value=values)
    def set_item(self, key, value):
        stored = self.put(key, value)
        try:
            self.cache[key] = value
        except ValueError:
            assert not stored
        else:
            assert stored

    @rule(key=keys, value=values)
    def set_default(self, key, value):
        if key in self.model:
            self.counts["hits"] += 1
            self.use(key)
            assert self.cache.setdefault(key, value) is self.model[key]
            return
        self.counts["misses"] += 1
        stored = self.put(key, value)
        try:
            assert self.cache.setdefault(key, value) is value
        except ValueError:
            assert not stored

    @rule(key=keys)
    def pop(self, key):
        if key in self.model:
            item = self.remove(key)
            self.expected.append((*item, "explicit"))
            assert self.cache.pop(key) is item[1]
        else:
            assert self.cache.pop(key, self) is self

    @rule()
    def pop_item(self):
        if not self.model:
            with pytest.raises(KeyError):
                self.cache.popitem()
            return
        item = self.remove(self.victim())
        assert self.cache.popitem() == item
        self.expected.append((*item, "explicit"))

    @precondition(lambda self: len(self.model) > 2)
    @rule()
    def clear(self):
        cleared = sorted(((k, v, "explicit") for k, v in self.model.items()), key=repr)
        for every in (self.model, self.visited, self.live, self.idle):
            every.clear()
        self.hand = None
        before = len(self.left)
        self.cache.clear()
        assert sorted(self.left[before:], key=repr) == cleared
        self.expected += self.left[before:]

    @rule(items=st.dictionaries(numbers, values, max_size=4))
    def update(self, items):
        small = {k: v for k, v in items.items() if self.max_bytes is None or len(v) <= self.max_bytes}
        for key, value in small.items():
            self.put(key, value)
        self.cache.update(small)

    @invariant()
    def equal(self):
        if not hasattr(self, "cache"):
            return
        assert len(self.cache) == len(self.model)
        assert list(self.cache) == list(self.cache.keys()) == list(self.model)
        assert list(self.cache.items()) == list(self.model.items())
        assert all(a is b for a, b in zip(self.cache.values(), self.model.values(), strict=True))
        assert list(reversed(self.cache)) == list(reversed(self.model))
        assert self.cache == dict(self.model)
        assert self.left == self.expected
        stats = self.cache.stats()
        assert {name: stats[name] for name in self.counts} == self.counts
        assert stats["entries"] == len(self.model)
        assert stats["bytes"] == (self.size() if self.max_bytes is not None else 0)
        for cause, count in stats["evictions"].items():
            assert count == sum(left[2] == cause for left in self.left)


TestModel = Model.TestCase
TestModel.settings = settings(stateful_step_count=60)
