"""A model on artifacts whose shards and stages may run on Ray."""

import numpy as np
import pytest

from support.ray import MARKS
from support.service_artifacts import ids_of
from zerocost import SimplifiedModelService
from zerocost.models.layers import Awake
from zerocost.services.model_runner import awake_threads

pytestmark = MARKS


@pytest.mark.parametrize(
    ("artifact", "params"),
    [
        ("tensor_parallel", {"num_splits": 2}),
        ("tensor_parallel", {"num_splits": 2, "mode": "row"}),
        ("pipeline_parallel", {"num_stages": 2}),
    ],
)
def test_a_model_on_ray_gives_the_same_numbers(registries, artifact, params):
    plain, there = (SimplifiedModelService(registry) for registry in registries)
    ids = ids_of(plain)
    there.use_artifact(artifact, **params)
    np.testing.assert_allclose(there.forward(ids).pooled, plain.forward(ids).pooled, atol=5e-6)


def test_the_weights_are_put_into_the_object_store_once(registries, executor, monkeypatch):
    service = SimplifiedModelService(registries[1])
    service.use_artifact("tensor_parallel", num_splits=2)
    service.forward([1, 70, 2])
    sent, put = [], executor._ray.put
    monkeypatch.setattr(executor._ray, "put", lambda array: (sent.append(array.shape), put(array))[1])
    service.forward([1, 71, 72, 73, 2])
    linear_layers = 4 * service.model.encoder.architecture.layers
    assert len(sent) == linear_layers
    assert {rows for rows, _ in sent} == {5}, "tensors, no weights"


def test_kernel_threads_sleep_while_shards_are_computed_elsewhere(registries):
    for registry, artifact, awake in [
        (registries[0], "tensor_parallel", True),
        (registries[1], "tensor_parallel", False),
        (registries[1], "pipeline_parallel", True),
    ]:
        service = SimplifiedModelService(registry)
        service.use_artifact(artifact)
        assert isinstance(awake_threads(service._active.snapshot()), Awake) is awake
