"""A cache that gets no more memory raises an error, never aborts, and keeps working."""

import sys

import pytest

from support.processes import MEMORY, run_python

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="limits and reads the address space as Linux has it"),
]

BEGINNING = f"""
{MEMORY}
import gc, resource
import numpy as np
from zerocost import LRUCache

gc.disable()

def refused(call):
    try:
        call()
    except MemoryError as error:  # Python's own has no words
        assert not str(error) or "bytes of memory are needed" in str(error), error
        return True
    return False
"""


def run(program):
    done = run_python("-c", BEGINNING + program, check=False, seconds=100)
    assert (done.returncode, done.stdout, done.stderr[-900:]) == (0, "", "")


@pytest.mark.parametrize(
    "options",
    [
        "10**9",
        "10**9, policy='sieve'",
        "10**9, policy='w-tinylfu'",
        "10**9, ttl=1e6",
        "max_bytes=10**18",
        "max_bytes=10**18, tti=1e6, policy='sieve', on_evict=lambda *left: None",
        "10**9, 10**18, sizeof=lambda key, value: 1, policy='w-tinylfu'",
    ],
)
def test_a_put_without_memory_changes_nothing(options):
    run(f"""
keys = list(range(300_000))
values = [np.zeros(1) for _ in range(2_000)]
for megabytes in (0, 1, 3, 9):
    cache = LRUCache({options})
    limit_memory(megabytes)
    for n in keys:
        if refused(lambda: cache.put(n, values[n % 2000])):
            break
    else:
        raise AssertionError("there was memory enough")
    assert len(cache) == n
    assert n not in cache
    assert all(cache.peek(key) is values[key % 2000] for key in keys[:n])
    for again in (lambda: cache.__setitem__(n, 1), lambda: cache.setdefault(n, 1)):
        if not refused(again):  # the allocator had kept something back
            assert cache.pop(n) == 1
    # Where what is full is an index, of keys or of owners, it grows before a place in it is used again: then a put that
    # adds nothing is refused too, and changes nothing.
    kept = cache.peek(n - 1)
    if not refused(lambda: cache.put(n - 1, values[0])):
        kept = values[0]
    assert cache[n - 1] is kept
    del cache[0]
    if not refused(lambda: cache.put(n, values[1])):
        assert cache[n] is values[1]
    limit_memory(1000)
    assert cache.put(n - 1, values[0]) is True
    assert cache[n - 1] is values[0]
    assert cache.put(n, values[1]) is True
    cache.put(-1, values[0])
    assert len(cache) == n + 1
""")


def test_entries_that_expire_together_are_removed_in_portions():
    run("""
now = [0.0]
cache = LRUCache(10**9, ttl=1.0, clock=lambda: now[0])
for n in range(150_000):
    cache[n] = None
limit_memory(0)
now[0] = 5.0
turns = 0
while refused(lambda: cache.get("absent")):
    turns += 1
    assert turns < 100
assert turns
assert len(cache) == 0
assert cache.stats()["evictions"]["expired"] == 150_000
""")


def test_a_value_that_evicts_everything():
    run("""
cache = LRUCache(max_bytes=150_000, sizeof=lambda key, value: value)
for n in range(150_000):
    cache[n] = 1
limit_memory(1)
turns = 0
while refused(lambda: cache.put("large", 150_000)):
    turns += 1
    assert turns < 100
    assert cache.stats()["bytes"] == len(cache) < 150_000
assert turns
assert list(cache) == ["large"]
""")


def test_a_list_of_the_entries():
    run("""
cache = LRUCache(10**9, ttl=1e6)
for n in range(150_000):
    cache[n] = None
lists = (
    lambda: list(cache),
    lambda: reversed(cache),
    lambda: list(cache.values()),
    lambda: list(cache.items()),
    cache._lifetimes,
    lambda: cache == {},
)
# From none for a list to none for the last of its tuples.
results = set()
for megabytes in (0, 1, 3, 5, 9, 12, 15):
    limit_memory(megabytes)
    results |= {refused(call) for call in lists}
    limit_memory(1000)
assert results == {True, False}
assert len(cache) == 150_000
""")


def test_restore_takes_a_list_with_a_wrong_length():
    run("""
class Liar(list):
    def __len__(self):
        return 2**40

cache = LRUCache(9)
cache._restore(Liar([("a", 1, 9.0, 9.0)]))
assert cache == {"a": 1}
for wrong in (range(3), None, 2**60):
    try:
        cache._restore(wrong)
    except TypeError:
        continue
    raise AssertionError(wrong)
""")
