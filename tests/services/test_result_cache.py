"""Cached results of a model: only results of the same computation are reused."""

import asyncio
import threading

import ml_dtypes
import numpy as np
import pytest

from support.model_folder import make_folder
from support.service_artifacts import Dict, FirstOnly, ids_of
from zerocost import AttentionArtifact, SimplifiedModelService, default_registry
from zerocost.artifacts.memory.lru_cache import LRUCacheArtifact
from zerocost.models.model import untrained_model

IDS = [[1, 70, 2], [1, 71, 72, 2]]


class Scaled(AttentionArtifact):
    """Has its behaviour in attributes."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)
        self.factor = 1.0

    def process_attention(self, attention_matrix):
        return attention_matrix * np.float32(self.factor)


class Counts(AttentionArtifact):
    """Does something else at every call."""

    calls = 0

    def process_attention(self, attention_matrix):
        self.calls += 1
        return attention_matrix * np.float32(self.calls)


class Slots(AttentionArtifact):
    """Has its state where no fingerprint finds it."""

    __slots__ = ("factor",)

    def process_attention(self, attention_matrix):
        return attention_matrix * np.float32(self.factor)


@pytest.fixture
def registry():
    registry = default_registry()
    registry.register_artifact("dict", Dict(), "memory")
    return registry


def test_results_are_cached_for_the_same_model_and_artifacts_only(registry):
    service = SimplifiedModelService(registry)
    memory = registry["dict"].implementation
    registry.register_artifact("first", FirstOnly(), "attention")
    service.use_artifact("dict")
    ids = ids_of(service)
    plain = service.forward(ids)
    again = service.forward([*ids, [1, 2]])
    assert (plain.usage["cached"], again.usage["cached"]) == (0, len(ids))
    np.testing.assert_array_equal(again.pooled[:-1], plain.pooled)
    for one, other in zip(again.last_hidden_state, plain.last_hidden_state, strict=False):
        np.testing.assert_array_equal(one, other)
    assert not any(isinstance(key, str) for key in memory.entries)

    service.use_artifact("first")
    assert service.forward(ids).usage["cached"] == 0
    assert service.forward(ids).usage["cached"] == len(ids)
    service.use_artifact("first", strength=0.5)
    changed = service.forward(ids)
    assert changed.usage["cached"] == 0
    registry.register_artifact("first", FirstOnly(), "attention", replace=True)
    service.use_artifact("first", strength=0.5)
    assert service.forward(ids).usage["cached"] == 0
    service.stop_artifact("attention")
    assert service.forward(ids).usage["cached"] == len(ids)

    other = SimplifiedModelService(registry, untrained_model(seed=1))
    other.use_artifact("dict")
    assert other.forward(ids).usage["cached"] == 0


def test_the_built_in_cache_keeps_results(registry):
    service = SimplifiedModelService(registry)
    service.use_artifact("lru_cache")
    ids = ids_of(service)
    plain = service.forward(ids)
    again = service.forward(ids)
    assert again.usage["cached"] == len(ids)
    np.testing.assert_array_equal(again.pooled, plain.pooled)
    service.use_artifact("sliding_window_attention", window_size=3)
    assert service.forward(ids).usage["cached"] == 0


def test_a_mask_is_part_of_the_cache_key(registry):
    service = SimplifiedModelService(registry)
    service.use_artifact("dict")
    whole = service.forward([1, 70, 71, 2])
    hole = service.forward([1, 70, 71, 2], [1, 0, 1, 1])
    assert hole.usage["cached"] == 0
    assert len(hole.last_hidden_state) == 3
    assert not np.allclose(hole.pooled, whole.pooled)
    assert service.forward([1, 71, 2]).usage["cached"] == 0  # the same tokens at other positions


def service_with(registry, artifact):
    registry.register_artifact("mine", artifact, "attention")
    service = SimplifiedModelService(registry)
    service.use_artifact("dict")
    service.use_artifact("mine")
    return service


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"table": np.arange(3)},
        {"table": np.zeros((2, 0)), "scale": np.array(2.0)},
        {"halves": np.ones(2, ml_dtypes.bfloat16)},
        {"bag": {"a": [1, (2, None)]}, "mode": b"x"},
    ],
)
def test_a_changed_artifact_misses_the_cache(registry, attributes):
    artifact = Scaled(**attributes)
    service = service_with(registry, artifact)
    first = service.forward(IDS)
    assert service.forward(IDS).usage["cached"] == 2
    artifact.factor = 2.0
    changed = service.forward(IDS)
    assert changed.usage["cached"] == 0
    assert not np.allclose(changed.pooled, first.pooled)
    artifact.factor = 1.0
    again = service.forward(IDS)
    assert again.usage["cached"] == 2
    np.testing.assert_array_equal(again.pooled, first.pooled)
    for name in attributes:
        setattr(artifact, name, "other")
        assert service.forward(IDS).usage["cached"] == 0


def cycle():
    value = []
    value.append(value)
    return value


def made_with(factor):
    artifact = Slots()
    artifact.factor = factor
    return artifact


@pytest.mark.parametrize(
    "artifact",
    [
        Scaled(lock=threading.Lock()),
        Scaled(function=abs),
        Scaled(several={1, 2}),
        Scaled(mixed={1: 2, "a": 3}),
        Scaled(cycle=cycle()),
        Scaled(objects=np.array([object()])),
        Scaled(large=[np.zeros(2**17 - 100), np.zeros(200)]),
        made_with(1.0),
        Counts(),
    ],
    ids=["lock", "function", "set", "mixed", "cycle", "objects", "large", "slots", "counts"],
)
def test_results_of_an_artifact_with_unhashable_state_are_not_cached(registry, artifact):
    service = service_with(registry, artifact)
    service.forward(IDS)
    assert service.forward(IDS).usage["cached"] == 0
    assert registry["dict"].implementation.entries == {}


def test_a_touched_file_only_ends_caching(registry, tmp_path, caplog):
    folder = make_folder(tmp_path)
    service = SimplifiedModelService(registry, folder)
    service.use_artifact("dict")
    ids = [[2, 4, 3], [2, 5, 3]]
    first = service.forward(ids)
    assert service.forward(ids).usage["cached"] == 2
    (folder / "model.safetensors").touch()
    for _ in range(2):
        again = service.forward(ids)
        assert again.usage["cached"] == 0
        np.testing.assert_array_equal(again.pooled, first.pooled)
    (told,) = caplog.messages
    assert "model.safetensors: was written to or touched after it was loaded" in told


def test_two_memories_of_one_class_are_not_mixed():
    registry = default_registry()
    caches = {name: LRUCacheArtifact() for name in "ab"}
    for name, cache in caches.items():
        registry.register_artifact(name, cache, "memory")
    service = SimplifiedModelService(registry)

    async def ask():
        asked = [
            {"input_ids": ids, "artifacts": {"memory": {"artifact": name}}} for name, ids in zip("ab", IDS, strict=True)
        ]
        return await asyncio.gather(*map(service.post_forward, asked))

    answers = asyncio.run(ask())
    assert [cache.stats()["entries"] for cache in caches.values()] == [1, 1]
    assert [answer["output"]["usage"]["tokens"] for answer in answers] == [3, 4]


def test_requests_of_one_artifact_are_batched_whatever_its_state(registry):
    registry.register_artifact("counts", Scaled(lock=threading.Lock()), "attention")
    service = SimplifiedModelService(registry)
    chosen = {"attention": {"artifact": "counts"}}

    async def ask():
        return await asyncio.gather(*(service.post_forward({"input_ids": ids, "artifacts": chosen}) for ids in IDS))

    assert [answer["output"]["usage"]["tokens"] for answer in asyncio.run(ask())] == [7, 7]


def test_requests_with_other_artifacts_or_parameters_are_not_batched(registry):
    service = SimplifiedModelService(registry)
    window = "sliding_window_attention"
    choices = [
        None,
        {"attention": {"artifact": window, "params": {"window_size": 3}}},
        {"attention": {"artifact": window, "params": {"window_size": 5}}},
        {"parallel": {"artifact": "tensor_parallel"}},
        {"memory": {"artifact": "dict"}},
    ]

    async def ask():
        asked = [{"input_ids": [1] * (index + 2), "artifacts": chosen} for index, chosen in enumerate(choices)]
        several = [service.post_forward(data) for data in asked]
        return await asyncio.gather(*several, service.post_forward({"input_ids": [1] * 9, "output_attentions": True}))

    answers = asyncio.run(ask())
    assert [answer["output"]["usage"]["tokens"] for answer in answers] == [2, 3, 4, 5, 6, 9]
