"""Random operations on the cache and on the obvious model of it: an OrderedDict and a sum."""

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


class Model(RuleBasedStateMachine):
    @initialize(
        bounds=st.one_of(
            st.tuples(st.integers(1, 9), st.none()),
            st.tuples(st.none(), st.integers(1, 40)),
            st.tuples(st.integers(1, 9), st.integers(1, 40)),
        )
    )
    def make(self, bounds):
        self.max_entries, self.max_bytes = bounds
        self.left = []
        self.cache = LRUCache(*bounds, on_evict=lambda key, value, cause: self.left.append((key, value, cause)))
        self.model = OrderedDict()
        self.expected = []
        self.counts = {"hits": 0, "misses": 0, "rejected": 0}

    def size(self):
        return sum(map(len, self.model.values()))

    def put(self, key, value):
        if self.max_bytes is not None and len(value) > self.max_bytes:
            self.counts["rejected"] += 1
            return False
        if key in self.model:
            old = next(k for k in self.model if k == key)
            self.expected.append((old, self.model[key], "replaced"))
            self.model[key] = value
            self.model.move_to_end(key)
        else:
            self.model[key] = value
        while (self.max_entries is not None and len(self.model) > self.max_entries) or (
            self.max_bytes is not None and self.size() > self.max_bytes
        ):
            self.expected.append((*self.model.popitem(last=False), "size"))
        return True

    @rule(key=keys)
    def get(self, key):
        if key in self.model:
            self.counts["hits"] += 1
            self.model.move_to_end(key)
            assert self.cache.get(key) is self.model[key]
        else:
            self.counts["misses"] += 1
            assert self.cache.get(key, self) is self

    @rule(key=keys)
    def item(self, key):
        if key in self.model:
            self.counts["hits"] += 1
            self.model.move_to_end(key)
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
            self.model.move_to_end(key)
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
            old = next(k for k in self.model if k == key)
            self.expected.append((old, self.model[key], "explicit"))
        assert self.cache.pop(key, self) is self.model.pop(key, self)

    @rule()
    def pop_item(self):
        if not self.model:
            with pytest.raises(KeyError):
                self.cache.popitem()
            return
        item = self.model.popitem(last=False)
        assert self.cache.popitem() == item
        self.expected.append((*item, "explicit"))

    @precondition(lambda self: len(self.model) > 2)
    @rule()
    def clear(self):
        cleared = sorted(((k, v, "explicit") for k, v in self.model.items()), key=repr)
        self.model.clear()
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
TestModel.settings = settings(deadline=None, stateful_step_count=60)
