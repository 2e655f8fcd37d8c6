"""One unit of computation that is a plain function call and a served model, proven equal.

``import zerocost`` loads NumPy and the compiled kernels, and nothing else. Names that need more are imported when they
are first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zerocost import errors
from zerocost._kernels import __version__, num_threads, set_num_threads
from zerocost.artifacts.builtin import default_registry
from zerocost.core.artifact_base import Artifact, AttentionArtifact, ExecutionContext, MemoryArtifact, ParallelArtifact
from zerocost.core.artifact_communication import ArtifactCommunicationService
from zerocost.core.artifact_registry import ArtifactRegistry, ArtifactSpec
from zerocost.core.chain_artifact import ChainArtifact
from zerocost.errors import *  # noqa: F403 - every exception is public

if TYPE_CHECKING:
    from zerocost._kernels import LRUCache
    from zerocost.api.application import create_app
    from zerocost.api.artifact_api import ArtifactRESTAPI
    from zerocost.api.settings import Settings
    from zerocost.artifacts.attention.scaled_dot_product_attention import ScaledDotProductAttentionArtifact
    from zerocost.artifacts.attention.sliding_window import SlidingWindowAttentionArtifact
    from zerocost.artifacts.attention.sparse_attention import SparseAttentionArtifact
    from zerocost.artifacts.memory.lru_cache import LRUCacheArtifact
    from zerocost.artifacts.memory.memoize import memoize
    from zerocost.artifacts.parallel.gather import gather
    from zerocost.artifacts.parallel.pipeline_parallel import PipelineParallelArtifact
    from zerocost.artifacts.parallel.schedule import pipeline_schedule
    from zerocost.artifacts.parallel.tensor_parallel import TensorParallelArtifact
    from zerocost.client import RemoteArtifact
    from zerocost.core.artifact_validation import ArtifactValidator
    from zerocost.engine.ray_artifact import RayArtifact
    from zerocost.services.memory_service import MemoryService
    from zerocost.services.model_service import ModelOutput, SimplifiedModelService
    from zerocost.services.tokenizer_service import TokenizerService

_LAZY = {
    "ArtifactRESTAPI": "zerocost.api.artifact_api",
    "ArtifactValidator": "zerocost.core.artifact_validation",
    "LRUCache": "zerocost._kernels",
    "LRUCacheArtifact": "zerocost.artifacts.memory.lru_cache",
    "MemoryService": "zerocost.services.memory_service",
    "ModelOutput": "zerocost.services.model_service",
    "PipelineParallelArtifact": "zerocost.artifacts.parallel.pipeline_parallel",
    "RayArtifact": "zerocost.engine.ray_artifact",
    "RemoteArtifact": "zerocost.client",
    "ScaledDotProductAttentionArtifact": "zerocost.artifacts.attention.scaled_dot_product_attention",
    "Settings": "zerocost.api.settings",
    "SimplifiedModelService": "zerocost.services.model_service",
    "SlidingWindowAttentionArtifact": "zerocost.artifacts.attention.sliding_window",
    "SparseAttentionArtifact": "zerocost.artifacts.attention.sparse_attention",
    "TensorParallelArtifact": "zerocost.artifacts.parallel.tensor_parallel",
    "TokenizerService": "zerocost.services.tokenizer_service",
    "create_app": "zerocost.api.application",
    "gather": "zerocost.artifacts.parallel.gather",
    "memoize": "zerocost.artifacts.memory.memoize",
    "pipeline_schedule": "zerocost.artifacts.parallel.schedule",
}
"""Public names whose modules are imported when the name is first used."""

for _module in ("flights", "views"):
    # A cache calls these modules. They are loaded before any cache exists, so that a destructor that calls a cache
    # during some other import does not find half a module.
    importlib.import_module(f"zerocost.artifacts.memory.{_module}")

__all__ = [
    "Artifact",
    "ArtifactCommunicationService",
    "ArtifactRESTAPI",
    "ArtifactRegistry",
    "ArtifactSpec",
    "ArtifactValidator",
    "AttentionArtifact",
    "ChainArtifact",
    "ExecutionContext",
    "LRUCache",
    "LRUCacheArtifact",
    "MemoryArtifact",
    "MemoryService",
    "ModelOutput",
    "ParallelArtifact",
    "PipelineParallelArtifact",
    "RayArtifact",
    "RemoteArtifact",
    "ScaledDotProductAttentionArtifact",
    "Settings",
    "SimplifiedModelService",
    "SlidingWindowAttentionArtifact",
    "SparseAttentionArtifact",
    "TensorParallelArtifact",
    "TokenizerService",
    "__version__",
    "create_app",
    "default_registry",
    "gather",
    "memoize",
    "num_threads",
    "pipeline_schedule",
    "set_num_threads",
]
__all__ += errors.__all__


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
