"""Admission without a server: thread pools, pending requests, and what a request leaves behind."""

import asyncio
import gc
import threading
import weakref

import pytest

from support.samples import sample_registry
from support.waiting import wait_until_async
from zerocost import create_app
from zerocost.api.calls import Calls
from zerocost.api.settings import Settings
from zerocost.api.thread_pool import ThreadPool
from zerocost.api.wire.body import ClientGone
from zerocost.api.wire.problems import HTTPError
from zerocost.api.wire.request import Request
from zerocost.errors import DeadlineExceeded


@pytest.fixture
def go():
    """An event that jobs wait for; it is set at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


async def stays():
    await asyncio.Event().wait()


async def goes():
    return {"type": "http.disconnect"}


def request(receive=stays):
    return Request({"headers": [], "path": "/"}, receive)


def soon(seconds=0.05):
    return asyncio.get_running_loop().time() + seconds


def test_an_abandoned_job_is_pending_until_it_ends(go):
    async def run():
        calls = Calls(Settings(slots=1, max_waiting=1))
        with pytest.raises(DeadlineExceeded):
            await calls.admit(request(), calls.compute_pool.run(go.wait), soon())
        await wait_until_async(lambda: (calls.pending, calls.compute_pool.abandoned) == (1, 1))
        with pytest.raises(ClientGone):
            await calls.admit(request(goes), calls.compute_pool.run(go.wait), None)
        await wait_until_async(
            lambda: (calls.pending, calls.compute_pool.jobs) == (1, 1)
        )  # the waiting request is gone
        go.set()
        assert await calls.admit(request(), calls.compute_pool.run(lambda: 3), None) == 3
        await wait_until_async(
            lambda: (calls.pending, calls.compute_pool.jobs, calls.compute_pool.abandoned) == (0, 0, 0)
        )
        calls.close()

    asyncio.run(run())


def test_a_batch_that_nobody_waits_for_is_pending(go):
    async def run():
        calls = Calls(Settings(slots=1))
        batch = asyncio.ensure_future(calls.compute_pool.run(go.wait))
        with pytest.raises(DeadlineExceeded):
            await calls.admit(request(), stays(), soon())
        await asyncio.sleep(0)
        assert calls.pending == 1
        go.set()
        await batch
        assert calls.pending == 0
        calls.close()

    asyncio.run(run())


def test_one_bound_for_both_pools(go):
    async def run():
        calls = Calls(Settings(slots=1, max_waiting=1))
        pools = (calls.compute_pool, calls.io_pool)
        running = [asyncio.ensure_future(calls.admit(request(), pool.run(go.wait), None)) for pool in pools]
        await wait_until_async(lambda: calls.pending == 2)
        for pool in (*pools, None):
            with pytest.raises(HTTPError) as refused:
                await calls.admit(request(), stays() if pool is None else pool.run(go.wait), None)
            assert (refused.value.status, refused.value.headers) == (429, {"retry-after": "1"})
        go.set()
        assert await asyncio.gather(*running) == [True, True]
        calls.close()

    asyncio.run(run())


def test_a_closed_pool_starts_again():
    async def run():
        pool = ThreadPool(1, "test")
        for _ in range(2):
            assert await pool.run(lambda: 1) == 1
            pool.close()

    asyncio.run(run())


@pytest.mark.parametrize("error", [KeyError("a"), StopIteration(), KeyboardInterrupt()])
def test_a_job_s_exception_reaches_the_caller(error):
    def job():
        raise error

    async def run():
        pool = ThreadPool(1, "test")
        expected = KeyError if isinstance(error, KeyError) else RuntimeError
        with pytest.raises(expected):
            await pool.run(job)
        assert await pool.run(lambda: 1) == 1
        pool.close()

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/artifacts/scale/execute", "/livez", "/nothing", "/artifacts/nothing/execute"])
def test_a_request_leaves_nothing_to_the_garbage_collector(path, monkeypatch):
    app = create_app(sample_registry(), Settings())
    body = b'{"attention_matrix": [[1.0]]}'
    seen = []

    class Seen(Request):
        __slots__ = ("__weakref__",)

        def __init__(self, *arguments):
            super().__init__(*arguments)
            seen.append(weakref.ref(self))

    monkeypatch.setattr("zerocost.api.edge.middleware.Request", Seen)

    async def run():
        sent = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            return sent.pop() if sent else await stays()

        async def send(message):
            pass

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "server": ("127.0.0.1", 1)}
        await app(scope, receive, send)

    asyncio.run(run())
    gc.collect()
    gc.disable()
    try:
        asyncio.run(run())
        assert seen[-1]() is None
    finally:
        gc.enable()
