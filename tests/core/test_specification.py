"""The specification's own code, word for word, once the names that it uses are bound."""

import ast
import inspect
import types

import numpy as np
import pytest

import zerocost
from zerocost import (
    Artifact,
    ArtifactCommunicationService,
    ArtifactRegistry,
    AttentionArtifact,
    ExecutionContext,
    MemoryArtifact,
    ParallelArtifact,
    default_registry,
)

REGISTRATION = """
# Register a new attention artifact
registry.register_artifact(
    name="custom_attention",
    implementation=CustomAttentionArtifact(),
    interface="attention",
    metadata={
        "description": "Custom attention mechanism",
        "parameters": ["sparsity_ratio", "temperature"]
    }
)
"""

ZERO_COST = """
# Direct zero-cost execution
attention_artifact = registry.get_artifact("sparse_attention")
result = attention_artifact.implementation.execute({
    "attention_matrix": attention_tensor,
    "sparsity_ratio": 0.8
}, ExecutionContext("sparse_attention", "attention", "zero_cost", {}))
"""

RESTFUL = """
# RESTful execution
await artifact_api.execute_artifact("sparse_attention", {
    "attention_matrix": [[1.0, 0.5, 0.3], [0.5, 1.0, 0.2], [0.3, 0.2, 1.0]],
    "sparsity_ratio": 0.8
})
"""

COMPOSITION = """
# Chain multiple artifacts
pipeline = [
    {"artifact": "sparse_attention", "params": {"sparsity_ratio": 0.8}},
    {"artifact": "tensor_parallel", "params": {"num_splits": 2}}
]

result = communication_service.chain_artifacts(pipeline, {
    "attention_matrix": initial_matrix
})
"""

SUBCLASSES = """
class SparseAttentionArtifact(AttentionArtifact):
    def process_attention(self, attention_matrix, sparsity_ratio: float = 0.8):
        # Implementation here
        return processed_matrix

class SlidingWindowAttentionArtifact(AttentionArtifact):
    def process_attention(self, attention_matrix, window_size: int = 128):
        # Implementation here
        return processed_matrix

class TensorParallelArtifact(ParallelArtifact):
    def process_parallel(self, tensor, num_splits: int = 2):
        # Implementation here
        return split_tensors

class PipelineParallelArtifact(ParallelArtifact):
    def process_parallel(self, tensor, num_stages: int = 4):
        # Implementation here
        return staged_result
"""


def run(code, **names):
    exec(code, names)
    return types.SimpleNamespace(**{key: value for key, value in names.items() if key != "__builtins__"})


class CustomAttentionArtifact(AttentionArtifact):
    """Custom attention mechanism."""

    def process_attention(self, attention_matrix, sparsity_ratio: float = 0.8, temperature: float = 1.0):
        return attention_matrix / temperature


MATRIX = np.array([[1.0, 0.5, 0.3], [0.5, 1.0, 0.2], [0.3, 0.2, 1.0]])
KEPT = np.diag([1.0, 1.0, 1.0])
"""Of three entries a ratio of 0.8 keeps one, the largest of each row."""


def test_1_basic_artifact_registration():
    registry = ArtifactRegistry()
    run(REGISTRATION, registry=registry, CustomAttentionArtifact=CustomAttentionArtifact)
    spec = registry.get_artifact("custom_attention")
    assert spec.interface == "attention"
    assert spec.metadata["parameters"] == ["sparsity_ratio", "temperature"]


def test_2_zero_cost_execution():
    names = run(ZERO_COST, registry=default_registry(), attention_tensor=MATRIX, ExecutionContext=ExecutionContext)
    assert names.result["artifact_used"] == "sparse_attention"
    assert names.result["processed_attention"].tolist() == KEPT.tolist()


async def _await(code, **names):
    compiled = compile(code, "<specification>", "eval", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, names)
    return await result if inspect.isawaitable(result) else result


def test_3_restful_execution():
    import asyncio

    api = pytest.importorskip("zerocost.api.artifact_api")
    artifact_api = api.ArtifactRESTAPI(default_registry())
    answer = asyncio.run(_await(RESTFUL.strip(), artifact_api=artifact_api))
    assert answer["status"] == "success"
    assert np.asarray(answer["data"]["processed_attention"]).tolist() == KEPT.tolist()


def test_4_artifact_composition():
    registry = default_registry()
    service = ArtifactCommunicationService(registry)
    names = run(COMPOSITION, communication_service=service, initial_matrix=MATRIX)
    assert [part.tolist() for part in names.result["result"]] == [KEPT[:, :2].tolist(), KEPT[:, 2:].tolist()]


@pytest.fixture
def subclasses():
    return run(
        SUBCLASSES,
        AttentionArtifact=AttentionArtifact,
        ParallelArtifact=ParallelArtifact,
        processed_matrix=KEPT,
        split_tensors=["a", "b"],
        staged_result="staged",
    )


def test_the_subclasses_of_the_specification_work_as_they_stand(subclasses):
    context = ExecutionContext("x", "attention", "zero_cost", {})
    sparse = subclasses.SparseAttentionArtifact()
    result = sparse.execute({"attention_matrix": MATRIX, "sparsity_ratio": 0.5}, context)
    assert result["processed_attention"] is KEPT
    assert result["artifact_used"] == "x"
    assert sparse.get_schema()["properties"]["sparsity_ratio"] == {"type": "number", "default": 0.8}
    assert sparse.get_description() == "No description provided"
    window = subclasses.SlidingWindowAttentionArtifact()
    assert window.get_schema()["properties"]["window_size"] == {"type": "integer", "default": 128}
    split = subclasses.TensorParallelArtifact()
    assert split.execute({"tensor": MATRIX}, context) == {"result": ["a", "b"], "artifact_used": "x"}
    with pytest.raises(ValueError, match="attention_matrix required"):
        sparse.execute({}, context)
    with pytest.raises(ValueError, match="tensor required"):
        subclasses.PipelineParallelArtifact().execute({"num_stages": 2}, context)


def test_the_specifications_chain_over_its_own_subclasses(subclasses):
    registry = ArtifactRegistry()
    registry.register_artifact("sparse_attention", subclasses.SparseAttentionArtifact(), "attention")
    registry.register_artifact("tensor_parallel", subclasses.TensorParallelArtifact(), "parallel")
    service = ArtifactCommunicationService(registry)
    names = run(COMPOSITION, communication_service=service, initial_matrix=MATRIX)
    assert names.result == {"result": ["a", "b"], "artifact_used": "tensor_parallel"}


def test_the_errors_of_the_specification_stay_catchable():
    service = ArtifactCommunicationService(default_registry())
    with pytest.raises(ValueError, match="Artifact nothing not found"):
        service.call_artifact("nothing", {}, ExecutionContext("nothing", "", "zero_cost", {}))
    assert ArtifactRegistry().get_artifact("nothing") is None


def test_the_methods_have_the_specifications_signatures():
    assert list(inspect.signature(Artifact.execute).parameters) == ["self", "input_data", "context"]
    assert list(inspect.signature(Artifact.validate_input).parameters) == ["self", "input_data"]
    assert list(inspect.signature(MemoryArtifact.store).parameters)[:3] == ["self", "key", "value"]
    fields = ["artifact_name", "interface", "mode", "metadata"]
    assert list(inspect.signature(ExecutionContext).parameters) == fields
    assert list(inspect.signature(zerocost.ArtifactSpec).parameters) == [
        "name",
        "implementation",
        "interface",
        "metadata",
    ]
    assert {"AttentionArtifact", "ParallelArtifact", "MemoryArtifact"} <= set(zerocost.__all__)
    assert issubclass(ParallelArtifact, Artifact)
