"""Python code that calls back into the cache from every hook, from one thread and from eight.

Every test has a timeout: a cache that hangs fails. The work is bounded by its amount: after so many calls back, the
hooks do nothing more.
"""

import asyncio
import contextlib
import gc
import itertools
import random
import sys
import threading
import time
from collections import Counter

import pytest

from zerocost import LRUCache

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _cheap_collections():
    """Freezes what lives already, so that a full collection only visits what the test made."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Meddling:
    """The actions on a cache, the places where they happen, and how often each place was reached."""

    def __init__(self, actions, places, calls):
        self.actions, self.places = actions, places
        self.left = {place: iter(range(calls)) for place in places}
        self.calls = Counter()
        self.thread = threading.local()

    def __call__(self, cache, place, number=1):
        depth = getattr(self.thread, "depth", 0)
        if place not in self.places or depth > 1 or next(self.left[place], None) is None:
            return
        self.calls[place] += 1
        self.thread.depth = depth + 1
        try:
            for action in self.actions:
                ACTIONS[action](cache, self, number)
        finally:
            self.thread.depth = depth


class Meddler:
    """A key or a value that meddles with the cache whenever Python calls one of its methods."""

    def __init__(self, cache, number, meddling):
        self.cache, self.number, self.meddling = cache, number, meddling

    def __eq__(self, other):
        self.meddling(self.cache, "__eq__", self.number)
        return isinstance(other, Meddler) and self.number == other.number

    def __hash__(self):
        self.meddling(self.cache, "__hash__", self.number)
        return self.number % 2

    def __repr__(self):
        self.meddling(self.cache, "__repr__", self.number)
        return f"Meddler({self.number})"

    def __del__(self):
        self.meddling(self.cache, "__del__", self.number)


def collect(cache, meddling, number):
    gc.collect()


def get(cache, meddling, number):
    cache.get(Meddler(cache, number + 1, meddling))
    cache.get(number)


def put(cache, meddling, number):
    cache.put(Meddler(cache, number + 1, meddling), Meddler(cache, 0, meddling))
    cache[number] = Meddler(cache, 0, meddling)


def delete(cache, meddling, number):
    cache.pop(Meddler(cache, number, meddling), None)
    cache.pop(number, None)


def clear(cache, meddling, number):
    cache.clear()


def look(cache, meddling, number):
    list(cache.items()), len(cache), repr(cache), cache.stats(), cache == {}


def pop(cache, meddling, number):
    with contextlib.suppress(KeyError):
        cache.popitem()


def get_or_compute(cache, meddling, number):
    for key in (Meddler(cache, number + 1, meddling), number):
        # A key that the caller is computing itself is refused.
        with contextlib.suppress(RuntimeError):
            cache.get_or_compute(key, lambda: Meddler(cache, 0, meddling))


def aget_or_compute(cache, meddling, number):
    async def ask():
        await cache.aget_or_compute(Meddler(cache, number + 1, meddling), lambda: asyncio.sleep(0, number))

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with contextlib.suppress(RuntimeError):
            asyncio.run(ask())


ACTIONS = {f.__name__: f for f in (collect, get, put, delete, clear, look, pop, get_or_compute, aget_or_compute)}
PLACES = ["__eq__", "__hash__", "__repr__", "__del__", "sizeof", "on_evict", "clock", "iterator", "loader", "task"]


def cache_of(meddling, policy):
    """At most 6 entries and 60 bytes, 10 each; and one without hooks of its own, which takes the short ways."""

    def hook(place, result):
        def called(*_):
            meddling(hooked, place)
            return result() if callable(result) else result

        return called

    hooked = LRUCache(
        6,
        60,
        policy=policy,
        ttl=1000.0,
        sizeof=hook("sizeof", 10),
        on_evict=hook("on_evict", None),
        clock=hook("clock", time.monotonic),
    )
    return hooked, LRUCache(6, policy=policy)


def work(cache, meddling, seed, rounds):
    rng = random.Random(seed)

    def key():
        number = rng.randrange(10)
        return Meddler(cache, number, meddling) if rng.random() < 0.8 else number

    def value():
        return Meddler(cache, rng.randrange(10), meddling)

    def pairs():
        for _ in range(3):
            meddling(cache, "iterator")
            yield key(), value()

    def load():
        meddling(cache, "loader")
        return value()

    def assign():
        cache[key()] = value()

    async def load_in_task():
        meddling(cache, "task")
        await asyncio.sleep(0)
        return value()

    async def tasks():
        await asyncio.gather(*(cache.aget_or_compute(key(), load_in_task) for _ in range(3)))

    steps = [
        lambda: cache.put(key(), value()),
        assign,
        lambda: cache.get(key()),
        lambda: key() in cache,
        lambda: cache.pop(key(), None),
        lambda: cache.setdefault(key(), value()),
        lambda: cache.update(pairs()),
        lambda: cache.get_or_compute(key(), load),
        lambda: asyncio.run(tasks()),
        lambda: repr(list(cache.values())),
        lambda: key() in cache.keys(),  # noqa: SIM118  the view is what is looked at
        lambda: cache == {key(): key()},
    ]
    for step in itertools.islice(itertools.cycle(rng.sample(steps, len(steps))), rounds):
        # A failure inside is an exception here, never a hang or a crash.
        with contextlib.suppress(RuntimeError, KeyError):
            step()
        assert len(cache) <= 6


def check(caches, meddling):
    hooked, short = caches
    assert set(meddling.calls) == set(meddling.places), "each hook was reached"
    assert hooked.stats()["bytes"] == 10 * len(hooked) <= 60
    assert len(short) <= 6


def in_eight_threads(run):
    failures = []

    def caught(seed):
        try:
            run(seed)
        except BaseException as error:
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=caught, args=(seed,), daemon=True) for seed in range(8)]
        for thread in threads:
            thread.start()
        ends = time.monotonic() + 50
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))
        assert not any(thread.is_alive() for thread in threads), "it hangs"
    finally:
        sys.setswitchinterval(interval)
    assert failures == []


@pytest.mark.parametrize("policy", ["lru", "sieve", "w-tinylfu"])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("place", PLACES)
def test_one_thread(place, action, policy):
    meddling = Meddling((action,), (place,), calls=100)
    caches = cache_of(meddling, policy)
    for cache in caches:
        work(cache, meddling, seed=7, rounds=66)
    check(caches, meddling)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("place", PLACES)
def test_eight_threads(place, action):
    meddling = Meddling((action,), (place,), calls=100)
    caches = cache_of(meddling, "lru")
    in_eight_threads(lambda seed: work(caches[seed % 4 == 3], meddling, seed, rounds=22))
    check(caches, meddling)


@pytest.mark.parametrize("policy", ["lru", "sieve", "w-tinylfu"])
def test_eight_threads_everything_at_once(policy):
    meddling = Meddling(tuple(ACTIONS), tuple(PLACES), calls=60)
    caches = cache_of(meddling, policy)
    in_eight_threads(lambda seed: work(caches[seed % 4 == 3], meddling, seed, rounds=33))
    check(caches, meddling)


def test_a_dict_that_changes_during_update():
    changing = {n: n for n in range(5)}

    def sizeof(key, value):
        changing.pop(4, None)
        changing[99 + key] = 1
        return 1

    cache = LRUCache(9, 100, sizeof=sizeof)
    cache.update(changing)
    assert cache == {n: n for n in range(5)}, "what it was when it was given"
    grows = {n: n for n in range(5)}
    cache = LRUCache(1, on_evict=lambda *_: grows.setdefault(object(), 1))
    cache.update(grows)
    assert cache == {4: 4}
