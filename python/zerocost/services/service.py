"""The base class of the services: the artifacts in use."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.limits import Limits
from zerocost.services.active_artifacts import ARTIFACT_NAME, ActiveArtifact, ActiveArtifacts
from zerocost.services.endpoints import Endpoint

__all__ = ["Service"]

_IN_USE = {
    "type": "object",
    "properties": {"artifact": ARTIFACT_NAME, "params": {"type": "object"}},
    "required": ["artifact", "params"],
    "additionalProperties": False,
}
ArtifactsInUse = Annotated[dict[str, Any], {"additionalProperties": _IN_USE}]
"""What a request gets: the artifacts by interface."""


class Service:
    """Uses artifacts of a registry, one for each interface.

    Args:
        artifact_registry: where :meth:`use_artifact` looks up names.
    """

    interfaces: ClassVar[tuple[str, ...]] = ("memory",)
    """The interfaces of the artifacts that the service uses."""

    def __init__(self, artifact_registry: ArtifactRegistry) -> None:
        self.registry = artifact_registry
        self._active = ActiveArtifacts(artifact_registry, self.interfaces, self._check_artifact)

    def use_artifact(self, artifact_name: Annotated[str, ARTIFACT_NAME], **params: Any) -> None:
        """Uses an artifact for its interface from now on, in place of the one in use.

        Raises:
            UnknownArtifact: there is no artifact of that name.
            RangeError: the service does not use artifacts of its interface.
            InvalidInput: the artifact refuses the parameters.
        """
        self._active.put(self._active.find(artifact_name, params))

    def stop_artifact(self, interface: str) -> None:
        """Uses no artifact for an interface from now on.

        Raises:
            RangeError: the service does not use artifacts of that interface.
        """
        self._active.stop(interface)

    @property
    def active_artifacts(self) -> dict[str, dict[str, Any]]:
        """The artifacts in use, with their parameters, by interface.

        Each has ``artifact`` (the object), ``name`` and ``params``. A request gets the name as ``artifact``.
        """
        return {
            interface: {"artifact": active.spec.implementation, "name": active.spec.name, "params": dict(active.params)}
            for interface, active in self._active.snapshot().items()
        }

    @Endpoint.of(use_artifact, output=ArtifactsInUse, is_administrative=True)
    async def post_use_artifact(self, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """Calls :meth:`use_artifact` for a request: ``artifact_name`` and ``params`` in, the artifacts in use out."""
        self._active.put(self._active.find(data["artifact_name"], data.get("params", {}), limits, "params"))
        return await self.post_active_artifacts({})

    @Endpoint.of(stop_artifact, output=ArtifactsInUse, is_administrative=True)
    async def post_stop_artifact(self, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """Calls :meth:`stop_artifact` for a request: ``interface`` in, the artifacts in use out."""
        self.stop_artifact(data["interface"])
        return await self.post_active_artifacts({})

    post_active_artifacts = Endpoint(
        active_artifacts,
        lambda active: {name: {"artifact": one["name"], "params": one["params"]} for name, one in active.items()},
        output=ArtifactsInUse,
    )

    @classmethod
    def endpoints(cls) -> dict[str, Endpoint]:
        """The endpoints, by the name of their method."""
        attributes = [getattr(cls, name) for name in dir(cls)]
        return {attribute.name: attribute for attribute in attributes if isinstance(attribute, Endpoint)}

    def _check_artifact(self, active: ActiveArtifact) -> None:
        """Raises InvalidInput if the service cannot use an artifact of its interfaces."""
