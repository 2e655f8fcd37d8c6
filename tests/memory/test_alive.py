"""Python code that calls back into the cache, from wherever Python code can run, from one thread and from eight.

Every test has a timeout: a cache that hangs fails.
"""

import contextlib
import gc
import os
import random
import subprocess
import sys
import threading
import time

import pytest

from zerocost import LRUCache

pytestmark = pytest.mark.timeout(30)


class Meddler:
    """Does something to the cache whenever Python calls it: one method of it, or all."""

    def __init__(self, cache, number, actions, places, depth):
        self.cache, self.number, self.actions, self.places, self.depth = cache, number, actions, places, depth

    def meddle(self, place):
        if place not in self.places or self.depth.get("n", 0) > 2:
            return
        self.depth["n"] = self.depth.get("n", 0) + 1
        try:
            for action in self.actions:
                ACTIONS[action](self.cache, self)
        finally:
            self.depth["n"] -= 1

    def __eq__(self, other):
        self.meddle("__eq__")
        return isinstance(other, Meddler) and self.number == other.number

    def __hash__(self):
        self.meddle("__hash__")
        return self.number % 2

    def __repr__(self):
        self.meddle("__repr__")
        return f"Meddler({self.number})"

    def __del__(self):
        self.meddle("__del__")


def collect(cache, meddler):
    gc.collect(0)


def get(cache, meddler):
    cache.get(Meddler(cache, meddler.number + 1, (), (), meddler.depth))


def put(cache, meddler):
    key = Meddler(cache, meddler.number + 1, (), (), meddler.depth)
    cache.put(key, Meddler(cache, 0, meddler.actions, meddler.places, meddler.depth))


def delete(cache, meddler):
    cache.pop(Meddler(cache, meddler.number, (), (), meddler.depth), None)


def clear(cache, meddler):
    cache.clear()


def look(cache, meddler):
    list(cache.items()), len(cache), repr(cache), cache.stats(), cache == {}


def pop(cache, meddler):
    with contextlib.suppress(KeyError):
        cache.popitem()


ACTIONS = {f.__name__: f for f in (collect, get, put, delete, clear, look, pop)}
PLACES = ["__eq__", "__hash__", "__repr__", "__del__", "sizeof", "on_evict", "clock", "iterator", "loader"]


def meddling_cache(actions, places, policy):
    depth = {}
    holder = []

    def call(place, result):
        def called(*_):
            if holder:
                Meddler(holder[0], 1, actions, (place,), depth).meddle(place)
            return result() if callable(result) else result

        return called

    cache = LRUCache(
        6,
        60,
        policy=policy,
        ttl=1000.0,
        sizeof=call("sizeof", 10),
        on_evict=call("on_evict", None),
        clock=call("clock", time.monotonic),
    )
    holder.append(cache)
    return cache, depth


def work(cache, actions, places, depth, seed, rounds):
    rng = random.Random(seed)

    def key():
        return Meddler(cache, rng.randrange(10), actions, places, depth)

    def pairs():
        for _ in range(3):
            pair = (key(), key())
            pair[0].meddle("iterator")
            yield pair

    def load():
        value = key()
        value.meddle("loader")
        return value

    steps = [
        lambda: cache.put(key(), key()),
        lambda: cache.get(key()),
        lambda: key() in cache,
        lambda: cache.pop(key(), None),
        lambda: cache.setdefault(key(), key()),
        lambda: cache.update(pairs()),
        lambda: cache.get_or_compute(key(), load),
        lambda: repr(list(cache.values())),
        lambda: key() in cache.keys(),  # noqa: SIM118  the view is what is looked at
        lambda: cache == {key(): key()},
    ]
    for _ in range(rounds):
        # What goes wrong inside is an exception here, never a hang and never a crash.
        with contextlib.suppress(RuntimeError, KeyError):
            rng.choice(steps)()
        assert len(cache) <= 6


@pytest.mark.parametrize("policy", ["lru", "sieve", "w-tinylfu"])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("place", PLACES)
def test_one_thread(place, action, policy):
    cache, depth = meddling_cache((action,), (place,), policy)
    work(cache, (action,), (place,), depth, seed=7, rounds=80)
    assert cache.stats()["bytes"] == 10 * len(cache) <= 60


@pytest.mark.timeout(100)
@pytest.mark.parametrize("policy", ["lru", "sieve", "w-tinylfu"])
def test_eight_threads_everything_at_once(policy):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        cache, depth = meddling_cache(tuple(ACTIONS), tuple(PLACES), policy)
        failures = []

        def run(seed):
            try:
                work(cache, tuple(ACTIONS), tuple(PLACES), depth, seed, rounds=20)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(seed,), daemon=True) for seed in range(8)]
        for thread in threads:
            thread.start()
        # Far more than it takes (a second) on a machine that does something else at the same time.
        ends = time.monotonic() + 90
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))
        assert not any(thread.is_alive() for thread in threads), "it hangs"
        assert failures == []
        assert cache.stats()["bytes"] == 10 * len(cache) <= 60
    finally:
        sys.setswitchinterval(interval)


class Broken(Exception):
    pass


def fail(*_):
    raise Broken


def test_exceptions_from_everywhere_leave_the_cache_as_it_was(monkeypatch):
    class Key:
        def __init__(self, fails):
            self.fails = fails

        def __hash__(self):
            return fail() if self.fails == "hash" else 7

        def __eq__(self, other):
            return fail() if "eq" in (self.fails, getattr(other, "fails", "")) else self is other

    good = Key("")
    failing = {"clock": False, "sizeof": False}
    cache = LRUCache(
        3,
        100,
        ttl=1000.0,
        clock=lambda: fail() if failing["clock"] else 1.0,
        sizeof=lambda key, value: fail() if failing["sizeof"] else 1,
        on_evict=fail,
    )
    cache[good] = 1
    before = cache.stats()

    def raises(call):
        with pytest.raises(Broken):
            call()
        assert cache.peek(good) == 1

    for fails in ("hash", "eq"):
        bad = Key(fails)
        for call in (cache.get, cache.peek, cache.pop, cache.__contains__, cache.setdefault, cache.__getitem__):
            with pytest.raises(Broken):
                call(bad)
        with pytest.raises(Broken):
            cache[bad] = 1
    failing["clock"] = True
    for call in (lambda: cache.get(good), lambda: cache.put(good, 2), lambda: len(cache), lambda: list(cache)):
        with pytest.raises(Broken):
            call()
    failing["clock"] = False
    failing["sizeof"] = True
    raises(lambda: cache.put(good, 2))
    failing["sizeof"] = False
    raises(lambda: cache.update(fail() for _ in range(3)))
    raises(lambda: cache.get_or_compute("new", fail))
    stats = cache.stats()
    assert (stats["entries"], stats["bytes"], stats["evictions"]) == (1, 1, before["evictions"])

    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda info: unraisable.append(info.exc_type))
    cache[good] = 2
    assert cache.pop(good) == 2
    cache.clear()
    assert unraisable == [Broken, Broken], "a listener's error goes to sys.unraisablehook"


def test_a_comparison_that_always_changes_the_cache_ends():
    class Key:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            cache.put(Key(), 1)
            return False

    # Every comparison puts another key that has to be compared, three levels deep and no more.
    cache = LRUCache(4)
    depth = []
    original = Key.__eq__

    def bounded(self, other):
        if len(depth) > 2:
            return False
        depth.append(1)
        try:
            return original(self, other)
        finally:
            depth.pop()

    Key.__eq__ = bounded
    cache.put(Key(), 1)
    with contextlib.suppress(RuntimeError):
        cache.get(Key())
    assert len(cache) <= 4


def test_a_key_that_leaves_while_it_is_compared_is_not_found():
    class Key:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            if isinstance(other, Key):
                cache.clear()
                cache[1] = "another entry in the same slot"
            return True

    cache = LRUCache(4)
    cache.put(Key(), "old")
    assert cache.get(Key()) == "another entry in the same slot", "found anew, where the comparison says equal"


def test_a_cache_that_holds_itself():
    cache = LRUCache(3)
    cache["self"] = cache
    assert cache["self"]["self"] is cache
    assert "entries=1" in repr(cache)
    repr(list(cache.items()))
    cache.clear()


def test_a_value_that_dies_looks_at_a_consistent_cache():
    class Value:
        def __init__(self, cache):
            self.cache = cache

        def __del__(self):
            seen.append((len(self.cache), list(self.cache)))

    seen = []
    cache = LRUCache(2)
    for n in range(4):
        cache[n] = Value(cache)
    assert seen == [(2, [1, 2]), (2, [2, 3])]
    cache[3] = 0
    assert seen[-1] == (2, [2, 3])
    cache.clear()
    assert seen[-1] == (0, [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_in_a_program_with_threads():
    # In a process of its own: forking this one, with all its threads, is what Python warns of.
    program = """
import os, threading, time
from zerocost import LRUCache

cache = LRUCache(50, ttl=100.0)
stop = threading.Event()
started = threading.Event()

def work(seed):
    n = seed
    while not stop.is_set():
        n += 1
        cache.put(n % 70, n)
        cache.get((n * 7) % 70)

def load():
    started.set()
    stop.wait()
    return "parent"

threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
threads.append(threading.Thread(target=lambda: cache.get_or_compute("slow", load)))
for thread in threads:
    thread.start()
started.wait()
for _ in range(10):
    child = os.fork()
    if child == 0:
        cache.put("child", 1)
        good = cache["child"] == 1 and len(cache) <= 50
        # The flight of the parent's thread is not the child's.
        good = good and cache.get_or_compute("slow", lambda: "child") == "child"
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
for thread in threads:
    thread.join()
assert cache["slow"] == "parent"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=25)


def test_threads_and_counters_agree():
    cache = LRUCache(100)
    each = 20_000

    def run(seed):
        rng = random.Random(seed)
        for _ in range(each):
            key = rng.randrange(200)
            if cache.get(key) is None:
                cache[key] = key

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = cache.stats()
    assert stats["hits"] + stats["misses"] == 8 * each
    assert len(cache) == 100
    assert all(cache.peek(key) == key for key in cache)
