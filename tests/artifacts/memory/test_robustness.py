"""What a cache must survive: exceptions from any hook, keys that change it, itself as a value, forks, threads.

Every test has a timeout: a cache that hangs fails. Code that calls back into the cache is in ``test_reentrancy``.
"""

import asyncio
import os
import random
import sys

import pytest

from support.processes import run_code
from support.threads import together
from support.waiting import wait_until
from zerocost import LRUCache

pytestmark = pytest.mark.timeout(30)


class Broken(Exception):
    pass


def fail(*_):
    raise Broken


def test_exceptions_from_any_hook_leave_the_cache_unchanged(monkeypatch):
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
    compared = []

    class Key:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            compared.append(1)
            # Empty, so that this put compares nothing: the key that was found equal is gone, and another is there.
            cache.clear()
            cache.put(Key(), 1)
            return True

    cache = LRUCache(4)
    cache.put(Key(), 1)
    for look in (cache.get, cache.peek, cache.pop, cache.__contains__, lambda key: cache.put(key, 2)):
        compared.clear()
        with pytest.raises(RuntimeError, match="1,000 attempts"):
            look(Key())
        assert len(compared) == 1000
        assert len(cache) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_exceptions_of_values_loaders_and_what_is_missing(monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda info: unraisable.append(info.exc_type))

    class Value:
        __del__ = __repr__ = fail

    class Missing(LRUCache):
        __missing__ = fail

    cache = Missing(2, 100, sizeof=lambda key, value: 1)
    for n in range(4):
        cache[n] = Value()
    assert unraisable == [Broken, Broken], "of those that were evicted"
    assert (list(cache), cache.stats()["bytes"]) == ([2, 3], 2)
    assert "entries=2" in repr(cache)
    with pytest.raises(Broken):
        repr(list(cache.values()))
    with pytest.raises(Broken):
        cache["nothing"]
    assert list(cache) == [2, 3]

    async def load():
        await asyncio.sleep(0)
        fail()

    async def tasks():
        return await asyncio.gather(*(cache.aget_or_compute("k", load) for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in asyncio.run(tasks())] == [Broken] * 3
    with pytest.raises(Broken):
        asyncio.run(cache.aget_or_compute("k", fail))
    assert "k" not in cache
    cache.clear()
    assert len(unraisable) == 4
    assert (len(cache), cache.stats()["bytes"], len(cache._flights())) == (0, 0, 0)


@pytest.mark.parametrize("fails", ["sizeof", "clock"])
def test_an_exception_at_the_end_of_a_computation_reaches_all_and_leaves_nothing(fails):
    landing = []
    cache = LRUCache(
        9,
        100,
        ttl=9.0,
        sizeof=lambda key, value: fail() if landing and fails == "sizeof" else 1,
        clock=lambda: fail() if landing and fails == "clock" else 1.0,
    )

    def load():
        wait_until(lambda: cache.stats()["misses"] == 4)  # all of them have asked
        landing.append(1)
        return 1

    outcomes = together(4, lambda _: cache.get_or_compute("k", load))
    assert [type(outcome) for outcome in outcomes] == [Broken] * 4
    landing.clear()
    assert (len(cache), cache.stats()["bytes"], len(cache._flights())) == (0, 0, 0)
    assert cache.get_or_compute("k", lambda: 7) == 7


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


def test_a_destructor_sees_a_consistent_cache():
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
    # In a process of its own, since Python warns when this one, with all its threads, is forked.
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
    run_code(program, seconds=25)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_while_a_thread_changes_the_artifact():
    program = """
import os, threading
from zerocost import LRUCache
from zerocost.artifacts.memory.lru_cache import LRUCacheArtifact

inside, stop = threading.Event(), threading.Event()

def let_go(*left):
    inside.set()
    stop.wait()

artifact = LRUCacheArtifact(LRUCache(1, on_evict=let_go))
thread = threading.Thread(target=lambda: [artifact.store(key, 1) for key in "ab"])
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    artifact.cache = LRUCache(9)
    os._exit(0 if artifact.store("c", 1) and artifact.lookup("c") == (True, 1) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
thread.join()
"""
    run_code(program, seconds=25)


def test_threads_and_counters_agree():
    cache = LRUCache(100)
    each = 20_000

    def run(seed):
        rng = random.Random(seed)
        for _ in range(each):
            key = rng.randrange(200)
            if cache.get(key) is None:
                cache[key] = key

    assert together(8, run, seconds=50) == [None] * 8
    stats = cache.stats()
    assert stats["hits"] + stats["misses"] == 8 * each
    assert len(cache) == 100
    assert all(cache.peek(key) == key for key in cache)
