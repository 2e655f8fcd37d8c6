"""One unit of computation that is a plain function call and a served model, proven equal.

``import zerocost`` loads NumPy and the compiled kernels, nothing else: what needs more is imported when it is first
used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zerocost._kernels import __version__, num_threads, set_num_threads
from zerocost.artifacts.builtin import default_registry
from zerocost.core.artifact_base import (
    Artifact,
    AttentionArtifact,
    ExecutionContext,
    MemoryArtifact,
    ParallelArtifact,
)
from zerocost.core.artifact_communication import ArtifactCommunicationService
from zerocost.core.artifact_registry import ArtifactRegistry, ArtifactSpec
from zerocost.core.chain_artifact import ChainArtifact
from zerocost.errors import (
    DatatypeError,
    DeadlineExceeded,
    DuplicateArtifact,
    FileError,
    InvalidInput,
    InvalidModel,
    InvalidOutput,
    InvalidSchema,
    KernelPanic,
    LimitExceeded,
    MalformedJSON,
    MissingInput,
    NotAcceptable,
    OutOfMemory,
    OverlapError,
    PlanError,
    PluginError,
    PreconditionFailed,
    RangeError,
    ServiceUnavailable,
    ShapeError,
    UndeclaredInput,
    UnknownArtifact,
    UnknownKey,
    UnknownOperation,
    Unsupported,
    ZerocostError,
)

if TYPE_CHECKING:
    from zerocost._kernels import LRUCache
    from zerocost.api.application import create_app
    from zerocost.api.artifact_api import ArtifactRESTAPI
    from zerocost.artifacts.attention.scaled_dot_product_attention import ScaledDotProductAttentionArtifact
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
    "PipelineParallelArtifact": "zerocost.artifacts.parallel.pipeline_parallel",
    "MemoryService": "zerocost.services.memory_service",
    "ModelOutput": "zerocost.services.model_service",
    "SimplifiedModelService": "zerocost.services.model_service",
    "TokenizerService": "zerocost.services.tokenizer_service",
    "ScaledDotProductAttentionArtifact": "zerocost.artifacts.attention.scaled_dot_product_attention",
    "RayArtifact": "zerocost.engine.ray_artifact",
    "TensorParallelArtifact": "zerocost.artifacts.parallel.tensor_parallel",
    "gather": "zerocost.artifacts.parallel.gather",
    "pipeline_schedule": "zerocost.artifacts.parallel.schedule",
    "LRUCache": "zerocost._kernels",
    "memoize": "zerocost.artifacts.memory.memoize",
    "create_app": "zerocost.api.application",
    "RemoteArtifact": "zerocost.client",
}
"""Public names whose modules are imported when the name is first used."""

for _module in ("flights", "views"):
    # What a cache calls. Before there is one: a destructor that asks it in the middle of an import finds half a module.
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
    "DatatypeError",
    "DeadlineExceeded",
    "DuplicateArtifact",
    "ExecutionContext",
    "FileError",
    "InvalidInput",
    "InvalidModel",
    "InvalidOutput",
    "InvalidSchema",
    "KernelPanic",
    "LRUCache",
    "LimitExceeded",
    "MalformedJSON",
    "MemoryArtifact",
    "MemoryService",
    "MissingInput",
    "ModelOutput",
    "NotAcceptable",
    "OutOfMemory",
    "OverlapError",
    "ParallelArtifact",
    "PipelineParallelArtifact",
    "PlanError",
    "PluginError",
    "PreconditionFailed",
    "RangeError",
    "RayArtifact",
    "RemoteArtifact",
    "ScaledDotProductAttentionArtifact",
    "ServiceUnavailable",
    "ShapeError",
    "SimplifiedModelService",
    "TensorParallelArtifact",
    "TokenizerService",
    "UndeclaredInput",
    "UnknownArtifact",
    "UnknownKey",
    "UnknownOperation",
    "Unsupported",
    "ZerocostError",
    "__version__",
    "create_app",
    "default_registry",
    "gather",
    "memoize",
    "num_threads",
    "pipeline_schedule",
    "set_num_threads",
]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
