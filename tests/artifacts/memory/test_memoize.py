"""memoize: calls that are remembered as functools does, with bounds, times and single flight."""

import asyncio
import inspect
import sys
import threading

import numpy as np
import pytest

import zerocost
from support.clock import Clock
from support.threads import together
from support.waiting import wait_until


def test_it_remembers_as_functools_does():
    calls = []

    @zerocost.memoize(max_entries=2)
    def add(a, b=1, *, c=0):
        """Adds."""
        calls.append((a, b, c))
        return a + b + c

    assert [add(1), add(1), add(1, 1), add(1, b=1), add(1, c=2)] == [2, 2, 2, 2, 4]
    assert len(calls) == 4
    assert add.__name__ == "add"
    assert add.__doc__ == "Adds."
    assert add.__wrapped__(2) == 3
    info = add.cache_info()
    assert (info.hits, info.misses, info.maxsize, info.currsize) == (1, 4, 2, 2)
    assert add.cache_parameters() == {"maxsize": 2, "typed": False, "maxbytes": None}
    add.cache_clear()
    assert add.cache_info()[:4] == (0, 0, 2, 0)


def test_typed_tells_types_apart():
    @zerocost.memoize(typed=True)
    def kind(x, **options):
        return type(x)

    assert [kind(3), kind(3.0), kind(True), kind(x=3), kind(x=3.0)] == [int, float, bool, int, float]

    @zerocost.memoize
    def loose(x, y):
        return type(x)

    assert [loose(3, 0), loose(3.0, 0)] == [int, int]
    assert loose.cache_info().maxsize == 128


def test_arguments_and_keywords_are_not_confused():
    @zerocost.memoize
    def seen(*args, **kwargs):
        return args, kwargs

    for _ in range(2):
        assert seen("a", 1) == (("a", 1), {})
        assert seen(a=1) == ((), {"a": 1})
        assert seen(("a", 1)) == ((("a", 1),), {})
        assert seen() == ((), {})
    with pytest.raises(TypeError, match="unhashable"):
        seen([])


def test_methods_remember_by_instance():
    class Model:
        @zerocost.memoize
        def double(self, x):
            return 2 * x, self

    one, two = Model(), Model()
    assert one.double(3)[1] is one
    assert two.double(3)[1] is two
    assert one.double(3)[1] is one
    assert Model.double.cache_info().hits == 1


def test_bounds_times_and_errors():
    clock = Clock(0.0)
    made = []

    @zerocost.memoize(max_bytes=100, ttl=10, clock=clock)
    def zeros(n):
        made.append(n)
        return np.zeros(n)

    assert zeros(5) is zeros(5)
    assert zeros(50) is not zeros(50), "larger than the cache: returned, not kept"
    clock.now = 10.0
    zeros(5)
    assert made == [5, 50, 50, 5]
    assert zeros.cache_info().currbytes == 40

    @zerocost.memoize
    def failing():
        made.append("failed")
        raise LookupError

    for _ in range(2):
        with pytest.raises(LookupError):
            failing()
    assert made[-2:] == ["failed", "failed"]
    with pytest.raises(ValueError, match="max_entries"):
        zerocost.memoize(max_entries=0)


@pytest.mark.parametrize("single_flight", [True, False])
def test_concurrent_calls(single_flight):
    calls = []
    barrier = threading.Barrier(4)

    @zerocost.memoize(single_flight=single_flight)
    def slow(x):
        calls.append(x)
        wait_until(lambda: slow.cache_info().misses == 4)  # all of them have asked
        return object()

    def run(_):
        barrier.wait()
        slow(1)

    assert together(4, run) == [None] * 4
    assert len(calls) == (1 if single_flight else 4)


def test_recursion_ends():
    @zerocost.memoize(max_entries=1000)
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(80) == 23416728348467685

    @zerocost.memoize
    def endless(n):
        return endless(n)

    with pytest.raises(RuntimeError, match="wait for itself"):
        endless(1)


def test_an_async_function_is_remembered_by_what_it_returned():
    calls = []

    @zerocost.memoize(max_entries=9)
    async def double(x):
        calls.append(x)
        await asyncio.sleep(0.01)
        return [x] * 2

    class Service:
        @zerocost.memoize(max_entries=9)
        async def name(self, x):
            return self, x

    async def main():
        first, *others = await asyncio.gather(*(double(3) for _ in range(5)))
        assert all(other is first for other in others)
        assert await double(3) is first == [3, 3]
        service = Service()
        assert await service.name(1) == (service, 1)

    asyncio.run(main())
    assert calls == [3]
    info = double.cache_info()
    assert (info.currsize, info.maxsize) == (1, 9)
    assert inspect.iscoroutinefunction(double) == (sys.version_info >= (3, 12))
    with pytest.raises(ValueError, match="single_flight"):

        @zerocost.memoize(single_flight=False)
        async def refused():
            pass
