"""Single flight: one computation per key, threads and tasks."""

import asyncio
import threading

import pytest

from support.clock import Clock
from support.threads import together
from support.waiting import wait_until, wait_until_async
from zerocost import LRUCache

pytestmark = pytest.mark.timeout(20)


def test_threads_share_one_computation():
    cache = LRUCache(9)
    calls = []

    def load():
        calls.append(1)
        wait_until(lambda: cache.stats()["misses"] == 8)  # all of them have asked
        return object()

    results = together(8, lambda n: cache.get_or_compute("key", load))
    assert len(calls) == 1
    assert all(result is results[0] for result in results)
    assert cache["key"] is results[0]
    assert cache.stats()["loads"] == 1
    assert cache.stats()["load_seconds"] > 0
    assert len(cache._flights()) == 0


def test_the_exception_goes_to_everyone_and_is_not_cached():
    cache = LRUCache(9)

    def load():
        wait_until(lambda: cache.stats()["misses"] == 4)  # all of them have asked
        raise LookupError("nothing there")

    results = together(4, lambda n: cache.get_or_compute("key", load))
    assert {type(result) for result in results} == {LookupError}
    assert "key" not in cache
    assert cache.get_or_compute("key", lambda: 1) == 1
    assert cache.stats()["loads"] >= 2


def test_a_flight_that_waits_for_itself_raises():
    cache = LRUCache(9)

    def load():
        return cache.get_or_compute("key", load)

    with pytest.raises(RuntimeError, match="wait for itself"):
        cache.get_or_compute("key", load)
    assert len(cache._flights()) == 0


def test_flights_that_wait_for_each_other_raise():
    one, two = LRUCache(9), LRUCache(9)
    both = threading.Barrier(2)

    def ask(n):
        first, second = (one, two) if n == 0 else (two, one)

        def load():
            both.wait()
            return second.get_or_compute("key", lambda: 1)

        return first.get_or_compute("key", load)

    results = together(2, ask)
    assert any(isinstance(result, RuntimeError) for result in results)


def test_a_put_during_the_flight_wins_and_a_deleted_key_does_not_come_back():
    for meanwhile, after, result in (
        (lambda cache: cache.put("key", "put"), {"key": "put"}, "put"),
        (lambda cache: cache.setdefault("key", "put"), {"key": "put"}, "put"),
        (lambda cache: cache.pop("key", None), {}, "computed"),
        (lambda cache: (cache.put("key", "put"), cache.pop("key")), {}, "computed"),
        (lambda cache: cache.clear(), {}, "computed"),
    ):
        cache = LRUCache(9)

        def load(cache=cache, meanwhile=meanwhile):
            meanwhile(cache)
            return "computed"

        assert cache.get_or_compute("key", load) == result
        assert cache == after
        assert len(cache._flights()) == 0


def test_a_get_after_a_delete_computes_anew():
    cache = LRUCache(9)

    def load():
        cache.pop("key", None)
        assert cache.get_or_compute("key", lambda: "fresh") == "fresh"
        return "stale"

    assert cache.get_or_compute("key", load) == "fresh"
    assert cache["key"] == "fresh"


def test_an_interrupted_leader_is_replaced():
    cache = LRUCache(9)
    inside, calls = threading.Event(), []

    def load():
        calls.append(1)
        if len(calls) == 1:
            inside.set()
            wait_until(lambda: cache.stats()["misses"] == 2)  # the other one waits
            raise KeyboardInterrupt
        return "second"

    def ask(n):
        if n == 1:
            inside.wait()
        return cache.get_or_compute("key", load)

    first, second = together(2, ask)
    assert isinstance(first, KeyboardInterrupt)
    assert second == "second"


def test_the_time_to_live_and_the_bound_hold_for_what_is_computed():
    clock = Clock(0.0)
    cache = LRUCache(max_bytes=10, clock=clock)
    assert cache.get_or_compute("large", lambda: bytes(11)) == bytes(11)
    assert "large" not in cache
    assert cache.get_or_compute("a", lambda: b"1", ttl=5) == b"1"
    clock.now = 5.0
    assert "a" not in cache
    with pytest.raises(ValueError, match="ttl"):
        cache.get_or_compute("a", lambda: 1, ttl=0)
    with pytest.raises(TypeError, match="sizeof"):
        cache.get_or_compute("odd", object)


def test_tasks_share_one_computation():
    async def main():
        cache = LRUCache(9)
        calls = []

        async def load():
            calls.append(1)
            await wait_until_async(lambda: cache.stats()["misses"] == 10)  # all of them have asked
            return object()

        results = await asyncio.gather(*(cache.aget_or_compute("key", load) for _ in range(10)))
        assert len(calls) == 1
        assert all(result is results[0] for result in results)
        assert await cache.aget_or_compute("key", load) is results[0]
        assert await cache.aget_or_compute("sync", lambda: 5) == 5

    asyncio.run(main())


def test_tasks_and_threads_share_one_computation():
    cache = LRUCache(9)
    started = threading.Event()

    def slow():
        started.set()
        wait_until(lambda: cache.stats()["misses"] == 3)  # the tasks have asked
        return "thread"

    def ask(n):
        if n == 0:
            return cache.get_or_compute("key", slow)
        started.wait()
        return asyncio.run(cache.aget_or_compute("key", lambda: "task"))

    assert together(3, ask) == ["thread"] * 3


def test_a_cancelled_leader_is_replaced_and_a_cancelled_waiter_affects_no_other():
    async def main():
        cache = LRUCache(9)
        calls = []

        async def load():
            calls.append(1)
            await asyncio.sleep(0.02 if len(calls) > 1 else 10)
            return len(calls)

        leader = asyncio.create_task(cache.aget_or_compute("key", load))
        await asyncio.sleep(0)
        waiters = [asyncio.create_task(cache.aget_or_compute("key", load)) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
        leader.cancel()
        done = await asyncio.gather(leader, *waiters, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in done] == [True, True, False, False]
        assert done[2:] == [2, 2]

    asyncio.run(main())


def test_tasks_that_wait_for_each_other_raise():
    async def main():
        cache = LRUCache(9)

        async def load(other):
            await asyncio.sleep(0)
            return await cache.aget_or_compute(other, lambda: load("a" if other == "b" else "b"))

        done = await asyncio.gather(
            cache.aget_or_compute("a", lambda: load("b")),
            cache.aget_or_compute("b", lambda: load("a")),
            return_exceptions=True,
        )
        assert any(isinstance(result, RuntimeError) for result in done)

    asyncio.run(main())


def test_a_task_that_blocks_its_own_loop_raises():
    async def main():
        cache = LRUCache(9)
        leading = asyncio.create_task(cache.aget_or_compute("key", lambda: asyncio.sleep(0.05, "async")))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="wait for itself"):
            cache.get_or_compute("key", lambda: "sync")
        assert await leading == "async"

    asyncio.run(main())


def test_a_failed_put_does_not_end_a_flight():
    def refused(cache):
        assert not cache.put("key", bytes(11))

    def fails(cache):
        with pytest.raises(TypeError):
            cache.put("key", object())

    def set_default(cache):
        with pytest.raises(ValueError, match="whole cache"):
            cache.setdefault("key", bytes(11))

    for meanwhile in (refused, fails, set_default):
        cache = LRUCache(max_bytes=10)

        def load(cache=cache, meanwhile=meanwhile):
            meanwhile(cache)
            return b"v"

        assert cache.get_or_compute("key", load) == b"v"
        assert cache == {"key": b"v"}


@pytest.mark.parametrize("remove", [lambda cache: cache.pop("key", None), lambda cache: cache.clear()])
def test_a_key_whose_deletion_ends_during_the_flight_does_not_come_back(remove):
    started, go, threads = threading.Event(), threading.Event(), []

    def load():
        started.set()
        go.wait(10)
        return "stale"

    def clock():
        # Asked after the deletion has begun and before it takes place.
        if armed.pop("armed", False):
            threads.append(threading.Thread(target=cache.get_or_compute, args=("key", load)))
            threads[0].start()
            started.wait(10)
        return 1.0

    armed = {}
    cache = LRUCache(9, ttl=10, clock=clock)
    cache.get_or_compute("other", lambda: 1)
    armed["armed"] = True
    remove(cache)
    go.set()
    threads[0].join(10)
    assert "key" not in cache


@pytest.mark.timeout(20)
def test_a_loop_inside_of_a_computation_is_part_of_who_waits_for_whom():
    # One thread computes k1 in a loop of its own, in which a task waits for k2; the computation of k2 asks for k1.
    cache = LRUCache(9)
    second, waits = threading.Event(), threading.Event()
    failures = []

    async def below():
        return await cache.aget_or_compute("k2", lambda: "own")

    def first():
        def load():
            second.wait()
            waits.set()
            return asyncio.run(below())

        return cache.get_or_compute("k1", load)

    def other():
        def load():
            second.set()
            waits.wait()
            wait_until(lambda: cache.stats()["misses"] == 3)  # the task has asked for k2
            return cache.get_or_compute("k1", lambda: "theirs")

        return cache.get_or_compute("k2", load)

    def run(work):
        try:
            work()
        except RuntimeError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in (first, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert "this computation would wait for itself" in failures[0]
