"""Single flight under interruption: signal handlers, destructors, keys that raise, exhausted recursion."""

import asyncio
import gc
import signal
import sys
import threading
import time

import pytest

from support.processes import run_code
from zerocost import LRUCache

pytestmark = [
    pytest.mark.timeout(20),
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no such timers here"),
]


@pytest.fixture
def alarms():
    """Sets a signal handler; the returned function asks for the signal in so many seconds."""
    before = signal.getsignal(signal.SIGALRM)

    def use(handler):
        signal.signal(signal.SIGALRM, handler)
        return lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)

    yield use
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def led_by_another_thread(cache, key, seconds):
    """A thread that computes ``key``, once it does."""
    started = threading.Event()

    def load():
        started.set()
        time.sleep(seconds)
        return "theirs"

    thread = threading.Thread(target=cache.get_or_compute, args=(key, load), daemon=True)
    thread.start()
    started.wait()
    return thread


def test_a_signal_handler_may_use_the_cache_anywhere(alarms):
    cache = LRUCache(9)
    asked = []

    def handler(*_):
        asked.append(cache.get_or_compute(("signal", len(asked)), lambda: 1))

    alarm = alarms(handler)
    for n in range(400):
        thread = led_by_another_thread(cache, n, 0.0005)
        alarm(2e-6 + n % 40 * 1e-6)
        # The other thread may have ended its computation already, or still wait for its turn.
        assert cache.get_or_compute(n, lambda: "ours") in ("ours", "theirs")
        thread.join(10)
        assert not thread.is_alive()
    assert asked


def test_a_destructor_may_use_the_cache_anywhere():
    cache = LRUCache(9)
    dead = []

    class Garbage:
        def __init__(self):
            self.me = self

        def __del__(self):
            dead.append(1)
            cache.get_or_compute(("other", len(dead)), lambda: 1)

    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    try:
        for n in range(2, 40):
            thread = led_by_another_thread(cache, n, 0.02)
            gc.collect()
            gc.disable()
            Garbage()
            # The collection begins at the n-th object that is made from here.
            gc.set_threshold(gc.get_count()[0] + n)
            gc.enable()
            cache.get_or_compute(n, lambda: "ours")
            gc.set_threshold(*thresholds)
            thread.join(10)
            assert not thread.is_alive()
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
        gc.unfreeze()
    gc.collect()
    assert len(dead) == 38


def test_a_signal_handler_that_raises_leaves_no_waiter(alarms):
    class Interrupt(BaseException):
        pass

    def interrupt(*_):
        raise Interrupt

    cache = LRUCache(1000)
    alarm = alarms(interrupt)
    interrupted = 0

    def interrupted_in(n):
        alarm(2e-6 + n % 60 * 1e-6)
        cache.get_or_compute(n, lambda: sum(range(100)))
        # It arrives sooner or later, in any thread.
        while True:
            time.sleep(0.0002)

    for n in range(400):
        with pytest.raises(Interrupt):
            interrupted_in(n)
        interrupted += n not in cache
        thread = threading.Thread(target=cache.get_or_compute, args=(n, lambda: 4950), daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        assert cache[n] == 4950
    assert interrupted
    assert len(cache._flights()) == 0


def test_a_signal_ends_the_wait_of_the_main_thread():
    # As with Ctrl-C, which this process must not be sent.
    program = """
import _thread, threading, time
from zerocost import LRUCache
cache = LRUCache(9)
started, go = threading.Event(), threading.Event()
def load():
    started.set()
    go.wait()
    return "theirs"
thread = threading.Thread(target=cache.get_or_compute, args=("key", load))
thread.start()
started.wait()
import os, signal
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    cache.get_or_compute("key", load)
except KeyboardInterrupt:
    print("interrupted")
go.set()
thread.join()
print(cache.get_or_compute("key", load))
"""
    done = run_code(program, seconds=15)
    assert (done.stdout, done.stderr) == ("interrupted\ntheirs\n", "")


class Moody:
    """A key that can be neither hashed nor compared while it is in a bad mood."""

    bad = False

    def __hash__(self):
        if Moody.bad:
            raise LookupError("hash")
        return 5

    def __eq__(self, other):
        if Moody.bad:
            raise LookupError("eq")
        return isinstance(other, Moody)


@pytest.fixture
def mood():
    yield Moody
    Moody.bad = False


@pytest.mark.parametrize("ask", ["thread", "task"])
@pytest.mark.parametrize("fails", [True, False])
def test_a_key_that_fails_at_the_end_of_a_computation_leaves_no_flight(mood, ask, fails):
    cache = LRUCache(9)

    def get(load):
        if ask == "thread":
            return cache.get_or_compute(Moody(), load)
        return asyncio.run(cache.aget_or_compute(Moody(), load))

    def load():
        mood.bad = True
        if fails:
            raise KeyError("once")
        return "old"

    if fails:
        with pytest.raises(KeyError, match="once"):
            get(load)
    else:
        assert get(load) == "old"
        cache.clear()
    mood.bad = False
    assert get(lambda: "fresh") == "fresh"
    assert cache[Moody()] == "fresh"
    assert len(cache._flights()) == 0


def test_the_bottom_of_the_stack_leaves_no_flight_behind():
    limit = sys.getrecursionlimit()
    for depth in range(150, 162):
        cache = LRUCache(10**6)

        def descend(n, cache=cache):
            return cache.get_or_compute(n, lambda: descend(n + 1))

        try:
            sys.setrecursionlimit(depth)
            with pytest.raises(RecursionError):
                descend(0)
        finally:
            sys.setrecursionlimit(limit)
        assert len(cache._flights()) == 0
