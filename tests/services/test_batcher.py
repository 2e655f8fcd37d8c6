"""The batcher, and requests of the services that are computed together."""

import asyncio
import threading
import time

import numpy as np
import pytest

from support.waiting import wait_until_async
from zerocost import (
    AttentionArtifact,
    DeadlineExceeded,
    RangeError,
    SimplifiedModelService,
    UndeclaredInput,
    default_registry,
)
from zerocost.services.batcher import Batcher
from zerocost.services.request_context import request_context


def run(coroutine):
    return asyncio.run(coroutine)


def test_items_of_one_key_are_computed_together():
    batches = []

    def compute(items):
        batches.append(list(items))
        return [item * 2 for item in items]

    async def ask():
        batcher = Batcher(compute, max_delay=0.05, max_size=10)
        return await asyncio.gather(*(batcher.submit(item, item % 2, 1) for item in range(6)))

    assert run(ask()) == [0, 2, 4, 6, 8, 10]
    assert sorted(batches) == [[0, 2, 4], [1, 3, 5]]


def test_the_size_of_a_batch_is_bounded():
    batches = []

    def compute(items):
        batches.append(list(items))
        return items

    async def ask():
        batcher = Batcher(compute, max_delay=30, max_size=4)
        last = asyncio.create_task(batcher.submit("last", "key", 5))
        tasks = [asyncio.create_task(batcher.submit(index, "key", 2)) for index in range(4)]
        # Those that are full do not wait for half a minute; the last one would.
        done, _ = await asyncio.wait([last, *tasks[:2]], timeout=10)
        assert len(done) == 3
        for task in tasks:
            task.cancel()

    run(ask())
    assert batches == [["last"], [0, 1]]


def test_requests_that_arrive_during_a_batch_are_the_next_batch():
    batches, go = [], threading.Event()

    def compute(items):
        batches.append(list(items))
        assert go.wait(10)
        return items

    async def ask():
        batcher = Batcher(compute, max_delay=0, max_size=100)
        first = asyncio.create_task(batcher.submit(0, "key", 1))
        await wait_until_async(lambda: batches)
        others = []
        for index in range(1, 5):
            others.append(asyncio.create_task(batcher.submit(index, "key", 1)))
            await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(first, *others)

    assert run(ask()) == [0, 1, 2, 3, 4]
    assert batches == [[0], [1, 2, 3, 4]]


def test_errors_and_cancelled_requests():
    batches = []

    def compute(items):
        batches.append(list(items))
        if "break" in items:
            raise RuntimeError("all of them")
        if "bad" in items:
            raise ValueError("bad")
        return items

    async def ask():
        batcher = Batcher(compute, max_delay=0.02, max_size=100)
        gone = asyncio.create_task(batcher.submit("gone", "key", 1))
        good = asyncio.create_task(batcher.submit("good", "key", 1))
        bad = asyncio.create_task(batcher.submit("bad", "key", 1))
        await asyncio.sleep(0)
        gone.cancel()
        assert await good == "good"
        with pytest.raises(ValueError, match="bad"):
            await bad
        alone = asyncio.create_task(batcher.submit("alone", "key", 1))
        await asyncio.sleep(0)
        alone.cancel()
        await asyncio.sleep(0.1)
        with pytest.raises(RuntimeError, match="all of them"):
            await batcher.submit("break", "key", 1)

    run(ask())
    assert batches == [["good", "bad"], ["good"], ["bad"], ["break"]]


class Picky(AttentionArtifact):
    """Refuses sequences of five tokens."""

    seen = 0

    def process_attention(self, attention_matrix):
        self.seen += 1
        if attention_matrix.shape[-1] == 5:
            raise ValueError("five tokens")
        return attention_matrix


def test_concurrent_requests_get_the_results_of_single_ones():
    registry = default_registry()
    registry.register_artifact("picky", Picky(), "attention")
    service = SimplifiedModelService(registry)
    texts = ["a", "some longer text", ["two", "texts"], "Ünïcödé", "end"]
    asked = [
        [e.input_ids for e in service.tokenizer.encode(text)]
        if isinstance(text, list)
        else service.tokenizer.encode(text).input_ids
        for text in texts
    ]

    async def ask():
        return await asyncio.gather(*(service.post_forward({"input_ids": ids}) for ids in asked))

    answers = run(ask())
    total = sum(len(e.input_ids) for t in texts for e in service.tokenizer.encode([t] if isinstance(t, str) else t))
    for ids, answer in zip(asked, answers, strict=True):
        alone = service.forward(ids)
        assert answer["output"]["usage"]["tokens"] == total  # of the batch: they ran together
        np.testing.assert_allclose(answer["output"]["pooled"], alone.pooled, atol=2e-6)
        assert np.shape(answer["output"]["pooled"]) == alone.pooled.shape


def test_one_request_that_breaks_an_artifact_does_not_break_the_others():
    registry = default_registry()
    registry.register_artifact("picky", Picky(), "attention")
    service = SimplifiedModelService(registry)
    chosen = {"attention": {"artifact": "picky"}}

    async def ask():
        asked = [{"input_ids": ids, "artifacts": chosen} for ids in ([1, 9, 2], [1, 9, 9, 9, 2], [1, 9, 9, 2])]
        return await asyncio.gather(*map(service.post_forward, asked), return_exceptions=True)

    good, bad, other = run(ask())
    assert isinstance(bad, ValueError)
    np.testing.assert_allclose(good["output"]["pooled"], service.forward([1, 9, 2]).pooled, atol=2e-6)
    np.testing.assert_allclose(other["output"]["pooled"], service.forward([1, 9, 9, 2]).pooled, atol=2e-6)


def test_texts_are_batched_with_other_requests(monkeypatch):
    monkeypatch.setattr("zerocost.services.model_service.BATCH_DELAY", 1.0)
    service = SimplifiedModelService(default_registry())
    ids = service.tokenizer.encode("a sentence").input_ids
    passes = []
    through = service._runner.run

    def counted(sequences, *arguments, **options):
        passes.append(len(sequences))
        return through(sequences, *arguments, **options)

    service._runner.run = counted

    async def ask():
        asked = [service.post_embed({"texts": "one"}), service.post_embed({"texts": ["two", "three"]})]
        return await asyncio.gather(*asked, service.post_forward({"input_ids": ids}))

    one, several, forward = run(ask())
    assert passes == [4]
    np.testing.assert_allclose(one["output"], service.embed("one"), atol=2e-6)
    np.testing.assert_allclose(several["output"], service.embed(["two", "three"]), atol=2e-6)
    np.testing.assert_allclose(forward["output"]["pooled"], service.forward(ids).pooled, atol=2e-6)
    assert run(service.post_embed({"texts": []}))["output"].shape == (0, 64)


def test_a_large_embedding_ends_when_nobody_waits_for_it(monkeypatch):
    monkeypatch.setattr("zerocost.services.model_service.BATCH_TOKENS", 20)
    service = SimplifiedModelService(default_registry())
    passes, reached, go = [], threading.Event(), threading.Event()
    through = service._runner.run

    def counted(sequences, *arguments, **options):
        passes.append(sum(len(ids) for ids, _ in sequences))
        reached.set()
        assert go.wait(20)
        return through(sequences, *arguments, **options)

    service._runner.run = counted

    async def leave():
        gone = asyncio.create_task(service.post_embed({"texts": ["a longer text"] * 50}))
        await asyncio.to_thread(reached.wait, 20)
        gone.cancel()
        go.set()
        await asyncio.wait([gone])
        # The batcher answers this one after all earlier ones.
        return await service.post_embed({"texts": "ab"})

    answer = run(leave())
    assert passes == [15, 4]
    np.testing.assert_allclose(answer["output"], service.embed("ab"), atol=2e-6)
    texts = ["one", "a much longer text than the others", "", "two"] * 10
    np.testing.assert_allclose(run(service.post_embed({"texts": texts}))["output"], service.embed(texts), atol=2e-6)


def test_requests_are_checked_before_they_wait():
    service = SimplifiedModelService(default_registry())
    for data, kind in [
        ({"input_ids": [999]}, RangeError),
        ({"input_ids": [1], "attention_masks": [1]}, UndeclaredInput),
        ({"input_ids": [1], "output_attentions": 1}, ValueError),
        ({}, ValueError),
    ]:
        with pytest.raises(kind):
            run(service.post_forward(data))


class Clock(AttentionArtifact):
    """Records the deadline of every call, and waits if asked to."""

    def __init__(self):
        self.deadlines, self.wait = [], 0.0

    def execute(self, input_data, context):
        self.deadlines.append(context.metadata.get("deadline"))
        time.sleep(self.wait)
        return super().execute(input_data, context)

    def process_attention(self, attention_matrix):
        return attention_matrix


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def timed(clock):
    registry = default_registry()
    registry.register_artifact("clock", clock, "attention")
    service = SimplifiedModelService(registry)
    service.use_artifact("clock")
    return service


async def ask_until(service, deadline, ids):
    with request_context(deadline):
        return await service.post_forward({"input_ids": ids})


@pytest.mark.parametrize(("seconds", "latest"), [((50, 90, 70), 90), ((50, None, 70), None), ((None,), None)])
def test_a_batch_has_the_latest_deadline_of_its_requests(timed, clock, seconds, latest):
    now = time.monotonic()
    deadlines = [None if left is None else now + left for left in seconds]

    async def ask():
        await asyncio.gather(*(ask_until(timed, deadline, [1, 70, 2]) for deadline in deadlines))

    run(ask())
    assert set(clock.deadlines) == {None if latest is None else now + latest}


@pytest.mark.alone
def test_a_deadline_is_looked_at_between_packed_batches(timed, clock):
    clock.wait = 0.3
    with pytest.raises(DeadlineExceeded):
        run(ask_until(timed, time.monotonic() + 0.1, [[1] * 500] * 9))
    layers, in_one_batch = timed.model.encoder.architecture.layers, 4
    assert len(clock.deadlines) == layers * in_one_batch
