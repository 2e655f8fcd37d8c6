"""The adapter to the distributed engine (Ray, extra ``[ray]``), and executors by name."""

from zerocost.engine.executors import executor
from zerocost.engine.ray_artifact import RayArtifact

__all__ = ["RayArtifact", "executor"]
