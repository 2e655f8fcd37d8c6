"""Chains as artifacts."""

import numpy as np
import pytest

import zerocost
from support.chain_steps import Cut, Function, Scale
from support.contract import ArtifactContract
from support.equality import same
from zerocost import (
    ArtifactRegistry,
    ChainArtifact,
    ExecutionContext,
)


class TestChainArtifact(ArtifactContract):
    def make(self):
        registry = ArtifactRegistry()
        registry.register_artifact("scale", Scale(), "attention")
        registry.register_artifact("cut", Cut(), "parallel")
        return ChainArtifact([{"artifact": "scale", "params": {"factor": 3.0}}, {"artifact": "cut"}], registry)

    used = "cut"  # the outputs are the last step's, its name among them


def test_a_chain_is_an_artifact_in_other_chains(registry, service, matrix):
    registry.register_artifact("both", ChainArtifact([{"artifact": "scale"}, {"artifact": "cut"}], registry), "chain")
    schema = registry["both"].implementation.get_schema()
    assert list(schema["properties"]) == ["attention_matrix", "factor", "bias"]
    assert schema["required"] == ["attention_matrix"]
    assert schema["x-main"] == {"input": "attention_matrix", "output": "result"}
    chain = [{"artifact": "both"}, {"artifact": "scale", "each": True}]
    result = service.chain_artifacts(chain, {"attention_matrix": matrix, "factor": 3.0})
    assert same(result["processed_attention"], [part * 2 for part in np.array_split(matrix * 3.0, 2, axis=-1)])


def test_a_chain_follows_the_registry(registry, matrix):
    chain = ChainArtifact([{"artifact": "scale"}], registry)
    spec = registry.register_artifact("chain", chain, "chain")
    context = ExecutionContext("c", "chain", "zero_cost", {})

    class Negate(Scale):
        def process_attention(self, attention_matrix, factor: float = 2.0, bias: np.ndarray | None = None):
            return -attention_matrix

    registry.register_artifact("scale", Negate(), "attention", replace=True)
    assert same(chain.execute({"attention_matrix": matrix}, context)["processed_attention"], -matrix)
    registry.unregister_artifact("scale")
    with pytest.raises(zerocost.UnknownArtifact):
        chain.execute({"attention_matrix": matrix}, context)
    assert spec.ports is chain._ports


def test_a_chain_whose_inputs_would_be_others_says_so(registry, service, matrix):
    chain = ChainArtifact([{"artifact": "scale"}], registry)
    spec = registry.register_artifact("chain", chain, "chain")
    schema = chain.get_schema()

    class Narrow(Scale):
        def process_attention(self, attention_matrix):
            return -attention_matrix

    registry.register_artifact("scale", Narrow(), "attention", replace=True)
    context = ExecutionContext("c", "chain", "zero_cost", {})
    for call in (
        lambda: chain.execute({"attention_matrix": matrix}, context),
        lambda: service.call_artifact("chain", {"attention_matrix": matrix}, context),
        lambda: service.chain_artifacts([{"artifact": "chain"}], {"attention_matrix": matrix}),
    ):
        with pytest.raises(zerocost.PlanError, match="make the chain anew"):
            call()
    assert chain.get_schema() == schema
    assert spec.ports is chain._ports
    assert ChainArtifact([{"artifact": "scale"}], registry).get_schema() != schema


def test_unbound_ports_of_later_steps_become_inputs(registry, matrix):
    registry.register_artifact("add", Function(lambda x, context: x), "custom")
    chain = ChainArtifact([{"artifact": "scale"}, {"artifact": "add", "inputs": {}}], registry)
    assert chain.get_schema()["required"] == ["attention_matrix", "x"]
    context = ExecutionContext("c", "chain", "zero_cost", {})
    assert chain.execute({"attention_matrix": matrix, "x": 5}, context) == {"y": 5}
