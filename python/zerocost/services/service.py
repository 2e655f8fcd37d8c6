"""The base class of the services: the artifacts in use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.limits import Limits
from zerocost.core.ports import pointer
from zerocost.errors import InvalidInput
from zerocost.services.active_artifacts import ActiveArtifact, ActiveArtifacts
from zerocost.services.endpoints import Endpoint

__all__ = ["ARTIFACT_NAME", "Service", "pointers_below"]

ARTIFACT_NAME = {"type": "string", "x-artifact-name": True}
"""The schema of an artifact's name: a description may list the names that there are."""


class Service:
    """Uses artifacts of a registry, one for each interface.

    Args:
        artifact_registry: where :meth:`use_artifact` looks up names.
    """

    interfaces: ClassVar[tuple[str, ...]] = ("memory",)
    """The interfaces of the artifacts that the service uses."""

    def __init__(self, artifact_registry: ArtifactRegistry) -> None:
        self.registry = artifact_registry
        self._active = ActiveArtifacts(artifact_registry, self.interfaces)

    def use_artifact(self, artifact_name: Annotated[str, ARTIFACT_NAME], **params: Any) -> None:
        """Uses an artifact for its interface from now on, in place of the one in use.

        Raises:
            UnknownArtifact: there is no artifact of that name.
            RangeError: the service does not use artifacts of its interface.
            InvalidInput: the artifact refuses the parameters.
        """
        self._active.put(self._find(artifact_name, params))

    def stop_artifact(self, interface: str) -> None:
        """Uses no artifact for an interface from now on.

        Raises:
            RangeError: the service does not use artifacts of that interface.
        """
        self._active.stop(interface)

    @property
    def active_artifacts(self) -> dict[str, dict[str, Any]]:
        """The artifacts in use, by interface: ``artifact`` (the object), ``name`` and ``params``."""
        return {
            interface: {"artifact": active.spec.implementation, "name": active.spec.name, "params": dict(active.params)}
            for interface, active in self._active.snapshot().items()
        }

    @Endpoint.of(use_artifact)
    async def post_use_artifact(self, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """Calls :meth:`use_artifact` for a request: ``artifact_name`` and ``params`` in, the artifacts in use out."""
        with pointers_below("params"):
            active = self._find(data["artifact_name"], data.get("params", {}), limits)
        self._active.put(active)
        return self._in_use()

    @Endpoint.of(stop_artifact)
    async def post_stop_artifact(self, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """Calls :meth:`stop_artifact` for a request: ``interface`` in, the artifacts in use out."""
        self.stop_artifact(data["interface"])
        return self._in_use()

    @Endpoint.of(active_artifacts)
    async def post_active_artifacts(self, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """:attr:`active_artifacts` for a request; ``artifact`` is the name."""
        return self._in_use()

    @classmethod
    def endpoints(cls) -> dict[str, Endpoint]:
        """The endpoints, by the name of their method."""
        attributes = [getattr(cls, name) for name in dir(cls)]
        return {attribute.name: attribute for attribute in attributes if isinstance(attribute, Endpoint)}

    def _find(self, name: str, params: dict[str, Any], limits: Limits | None = None) -> ActiveArtifact:
        return self._active.find(name, params, limits)

    def _in_use(self) -> dict[str, Any]:
        return {
            "output": {
                interface: {"artifact": active.spec.name, "params": dict(active.params)}
                for interface, active in self._active.snapshot().items()
            }
        }


@contextmanager
def pointers_below(*path: str) -> Iterator[None]:
    """The JSON pointers of an error that is raised inside begin with ``path``."""
    try:
        yield
    except InvalidInput as error:
        error.errors = [(pointer(*path) + where, message) for where, message in error.errors]
        raise
