"""A model whose layers a parallel artifact runs gives the same numbers."""

import numpy as np
import pytest

from support.service_artifacts import Dict, Halves, Probabilities, ids_of
from zerocost import InvalidInput, ParallelArtifact, SparseAttentionArtifact
from zerocost.models.layers import Awake
from zerocost.services.model_runner import awake_threads


@pytest.mark.parametrize("params", [{"num_splits": 3}, {"num_splits": 2, "mode": "row"}, {"gather": False}])
def test_sharded_layers_give_the_same_output(service, params):
    ids = ids_of(service)
    plain = service.forward(ids)
    service.use_artifact("tensor_parallel", **params)
    np.testing.assert_allclose(service.forward(ids).pooled, plain.pooled, atol=5e-6)


def test_a_third_party_parallel_artifact_computes_every_linear_layer(service, registry):
    halves = Halves()
    registry.register_artifact("halves", halves, "parallel")
    plain = service.forward(ids_of(service))
    service.use_artifact("halves")
    np.testing.assert_allclose(service.forward(ids_of(service)).pooled, plain.pooled, atol=5e-6)
    assert halves.calls == 4 * service.model.encoder.architecture.layers


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_layers_in_stages_give_the_same_output(service, stages):
    ids = ids_of(service)
    plain = service.forward(ids)
    service.use_artifact("pipeline_parallel", num_stages=stages)
    np.testing.assert_allclose(service.forward(ids).pooled, plain.pooled, atol=5e-6)
    np.testing.assert_allclose(service.forward(ids[0]).pooled, plain.pooled[0], atol=5e-6)
    staged = service.forward(ids, output_attentions=True).attentions
    service.stop_artifact("parallel")
    for got, wanted in zip(staged, service.forward(ids, output_attentions=True).attentions, strict=True):
        assert len(got) == len(wanted) == service.model.encoder.architecture.layers
        for layer, wanted_layer in zip(got, wanted, strict=True):
            np.testing.assert_allclose(layer, wanted_layer, atol=2e-6)


@pytest.mark.parametrize(
    ("artifacts", "awake"),
    [
        ({}, True),
        ({"attention": "sparse_attention", "parallel": "tensor_parallel", "memory": "dict"}, True),
        ({"attention": "mine"}, False),
        ({"attention": "own"}, False),
        ({"parallel": "halves", "attention": "sparse_attention"}, False),
    ],
)
def test_kernel_threads_sleep_while_a_third_party_artifact_computes(service, registry, artifacts, awake):
    registry.register_artifact("mine", Probabilities(), "attention")
    registry.register_artifact("own", type("Own", (SparseAttentionArtifact,), {})(), "attention")
    registry.register_artifact("halves", Halves(), "parallel")
    registry.register_artifact("dict", Dict(), "memory")
    active = service._active.select({interface: {"artifact": name} for interface, name in artifacts.items()})
    assert isinstance(awake_threads(active), Awake) is awake


def test_attention_parallel_and_memory_together_give_the_same_output(service, registry):
    registry.register_artifact("mine", Probabilities(), "attention")
    registry.register_artifact("halves", Halves(), "parallel")
    ids = ids_of(service)
    plain = service.forward(ids)
    service.use_artifact("lru_cache")
    for attention in ("mine", "scaled_dot_product_attention"):
        for parallel in ("halves", "tensor_parallel", "pipeline_parallel"):
            service.use_artifact(attention)
            service.use_artifact(parallel)
            for _ in range(2):
                output = service.forward(ids)
                np.testing.assert_allclose(output.pooled, plain.pooled, atol=5e-6)
                for states, wanted in zip(output.last_hidden_state, plain.last_hidden_state, strict=True):
                    np.testing.assert_allclose(states, wanted, atol=1e-5)
    service.use_artifact("scaled_dot_product_attention")
    assert service.forward(ids).usage["cached"] == len(ids)


def test_a_parallel_artifact_that_cannot_run_a_model_is_refused(service, registry):
    class Splits(ParallelArtifact):
        """Takes a tensor alone."""

        def process_parallel(self, tensor):
            return [tensor]

    registry.register_artifact("splits", Splits(), "parallel")
    with pytest.raises(InvalidInput, match="cannot run a model"):
        service.use_artifact("splits")
