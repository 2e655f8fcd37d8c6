"""The executor on threads of this process."""

import threading
import time

import numpy as np
import pytest

import zerocost
from support.contract import context, same
from zerocost.core.threads import ThreadExecutor
from zerocost.engine import executor


def test_shards_run_at_the_same_time_and_come_back_in_order():
    meeting = threading.Barrier(3, timeout=30)

    def shard(number):
        meeting.wait()
        return number

    assert ThreadExecutor().shards(shard, [(1,), (2,), (3,)], context()) == [1, 2, 3]
    assert ThreadExecutor().shards(shard, [], context()) == []


def test_a_failing_shard_is_named():
    with pytest.raises(ZeroDivisionError) as caught:
        ThreadExecutor().shards(lambda divisor: 1 / divisor, [(1,), (0,)], context())
    assert caught.value.__notes__ == ["in shard 1"]


def test_no_shard_begins_after_the_deadline():
    late = context()
    late.metadata["deadline"] = time.monotonic() - 1
    with pytest.raises(zerocost.DeadlineExceeded, match="the deadline passed"):
        ThreadExecutor().shards(pytest.fail, [("it ran",)], late)


def test_the_parallel_artifacts_treat_it_as_no_executor(monkeypatch):
    threads = executor("threads")
    named, default = zerocost.default_registry(threads), zerocost.default_registry()
    tensor, weight = np.ones((4, 6), np.float32), np.ones((6, 5), np.float32)
    for name, inputs in (
        ("tensor_parallel", {"tensor": tensor, "weight": weight, "num_splits": 2}),
        ("pipeline_parallel", {"tensor": tensor, "num_stages": 2, "stages": [np.negative, np.square]}),
    ):
        artifacts = [registry[name].implementation for registry in (named, default)]
        assert same(*(artifact.execute(dict(inputs), context())["result"] for artifact in artifacts))
        assert artifacts[0].is_quick == artifacts[1].is_quick
        assert artifacts[0].executor is threads
        assert artifacts[0].here() is artifacts[0]
