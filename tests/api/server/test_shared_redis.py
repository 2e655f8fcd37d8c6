"""Two `zerocost serve` processes that share one cache on a Redis server."""

import contextlib
import signal
import threading
import time
import urllib.request

import numpy as np
import pytest

import zerocost
from support.contract import context
from support.redis import needs_redis
from support.servers import serve_command
from support.threads import together
from zerocost.client import RemoteArtifact

pytestmark = [
    needs_redis,
    pytest.mark.timeout(100),
]


class CachingServer:
    """A ``zerocost serve`` process, and its cache as a client sees it."""

    def __init__(self, served):
        self.process, self.url, _ = served
        self.remote = RemoteArtifact(self.url, "lru_cache", timeout=20)

    def __call__(self, operation, **inputs):
        return self.remote.execute({"operation": operation, **inputs}, context("lru_cache"))


@pytest.fixture
def two(redis, tmp_path):
    with contextlib.ExitStack() as stack:
        served = []
        while len(served) < 2:
            command = serve_command(cwd=tmp_path, ZEROCOST_MEMORY_URL=redis.url)
            served.append(CachingServer(stack.enter_context(command)))
            stack.callback(served[-1].remote.close)
        served[0]("clear")
        yield served


def test_an_entry_that_one_stores_is_found_by_the_other(two):
    one, other = two
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert one("put", key="a", value=array)["result"] is True
    found = other("get", key="a")
    assert found["found"] is True
    assert found["result"].dtype == array.dtype
    assert np.array_equal(found["result"], array)
    assert other("put", key="a", value=array + 1)["result"] is True
    assert np.array_equal(one("get", key="a")["result"], array + 1)
    assert one("keys")["result"] == other("keys")["result"] == ["a"]
    assert one("stats")["result"]["entries"] == other("stats")["result"]["entries"] == 1
    assert other("delete", key="a")["result"] is True
    assert one("contains", key="a")["result"] is False
    one("put", key="b", value="1")
    assert other("clear")["result"] is True
    assert one("keys")["result"] == []


def test_metrics_show_what_the_server_holds(two):
    one, other = two
    one("put", key="a", value="1")
    one("get", key="a")
    one("get", key="b")
    for served, hits, misses in ((one, 1, 1), (other, 0, 0)):
        with urllib.request.urlopen(f"{served.url}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        assert 'zerocost_memory_entries{artifact="lru_cache"} 1.0' in lines
        assert f'zerocost_memory_hits_total{{artifact="lru_cache"}} {hits}.0' in lines
        assert f'zerocost_memory_misses_total{{artifact="lru_cache"}} {misses}.0' in lines


def test_concurrent_writes_leave_whole_values(two):
    def work(number):
        for _ in range(15):
            two[number % 2]("put", key="shared", value=np.full(50_000, float(number)))
            found = two[number % 2]("get", key="shared")["result"]
            assert found.shape == (50_000,)
            assert (found == found[0]).all()

    assert together(8, work, seconds=90) == [None] * 8


def test_a_process_killed_in_the_middle_of_a_put_leaves_the_old_value_or_the_new(two):
    one, other = two
    old, new = np.zeros(2_000_000), np.ones(2_000_000)
    assert other("put", key="large", value=old)["result"] is True
    begun = threading.Event()
    outcomes = []

    def put():
        try:
            while True:
                begun.set()
                one("put", key="large", value=new)
        except zerocost.ZerocostError as error:
            outcomes.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    begun.wait()
    time.sleep(0.05)
    one.process.send_signal(signal.SIGKILL)
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(outcomes[0], (zerocost.ServiceUnavailable, zerocost.DeadlineExceeded))
    found = other("get", key="large")["result"]
    assert np.array_equal(found, old) or np.array_equal(found, new)
    assert other("put", key="large", value=old)["result"] is True
    assert np.array_equal(other("get", key="large")["result"], old)


def test_both_report_a_lost_server_and_recover_when_it_returns(two, redis):
    two[0]("put", key="a", value="1")
    redis.kill()
    try:
        for one in two:
            started = time.monotonic()
            with pytest.raises(zerocost.ServiceUnavailable, match="cannot be reached"):
                one("get", key="a")
            assert time.monotonic() - started < 15
    finally:
        redis.start()
    for one in two:
        assert one("get", key="a")["found"] is False
    assert two[0]("put", key="a", value="2")["result"] is True
    assert two[1]("get", key="a")["result"] == "2"
