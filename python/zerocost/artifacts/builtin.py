"""The artifacts that come with zerocost."""

from __future__ import annotations

from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.executor import Executor

__all__ = ["default_registry"]


def default_registry(executor: Executor | None = None) -> ArtifactRegistry:
    """A new registry of the built-in artifacts. Registries share nothing.

    Args:
        executor: where the parallel artifacts run shards and stages; None: on threads of this process. See
            :func:`zerocost.engine.executor`.
    """
    from zerocost.artifacts.attention.scaled_dot_product_attention import ScaledDotProductAttentionArtifact
    from zerocost.artifacts.attention.sliding_window import SlidingWindowAttentionArtifact
    from zerocost.artifacts.attention.sparse_attention import SparseAttentionArtifact
    from zerocost.artifacts.memory.lru_cache import cache_from_environment
    from zerocost.artifacts.parallel.pipeline_parallel import PipelineParallelArtifact
    from zerocost.artifacts.parallel.tensor_parallel import TensorParallelArtifact

    registry = ArtifactRegistry()
    registry.register_artifact("sparse_attention", SparseAttentionArtifact(), "attention")
    registry.register_artifact("sliding_window_attention", SlidingWindowAttentionArtifact(), "attention")
    registry.register_artifact("scaled_dot_product_attention", ScaledDotProductAttentionArtifact(), "attention")
    registry.register_artifact("tensor_parallel", TensorParallelArtifact(executor), "parallel")
    registry.register_artifact("pipeline_parallel", PipelineParallelArtifact(registry, executor), "parallel")
    registry.register_artifact("lru_cache", cache_from_environment(), "memory")
    return registry
