"""What every service has: artifacts in use, for callers in the process and for requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.limits import Limits
from zerocost.core.ports import pointer
from zerocost.errors import InvalidInput
from zerocost.services.active import Active, ActiveArtifacts
from zerocost.services.twins import Post, fields_of, twin_of

__all__ = ["Service", "located"]


class Service:
    """Uses artifacts of a registry, one for each interface.

    Args:
        artifact_registry: where :meth:`use_artifact` looks.
        interfaces: those of the artifacts that the service uses.
    """

    def __init__(self, artifact_registry: ArtifactRegistry, interfaces: tuple[str, ...]) -> None:
        self.registry = artifact_registry
        self._active = ActiveArtifacts(artifact_registry, interfaces)

    def use_artifact(self, artifact_name: str, **params: Any) -> None:
        """Uses an artifact for its interface from now on, in place of the one that was used before.

        Raises:
            UnknownArtifact: there is none of that name.
            RangeError: its interface is not one that the service uses.
            InvalidInput: parameters that it does not take.
        """
        self._active.put(self._find(artifact_name, params))

    def stop_artifact(self, interface: str) -> None:
        """Uses no artifact for ``interface`` from now on.

        Raises:
            RangeError: the service never uses artifacts of that interface.
        """
        self._active.stop(interface)

    @property
    def active_artifacts(self) -> dict[str, dict[str, Any]]:
        """The artifacts in use by interface: ``artifact``, ``name`` and ``params``."""
        return self._active.to_dict()

    @twin_of(use_artifact)
    async def post_use_artifact(self, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """The twin of :meth:`use_artifact` for requests: ``artifact_name`` and ``params`` in, what is in use out."""
        with located("params"):
            active = self._find(data["artifact_name"], data.get("params", {}), limits)
        self._active.put(active)
        return self._in_use()

    @twin_of(stop_artifact)
    async def post_stop_artifact(self, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """The twin of :meth:`stop_artifact` for requests: ``interface`` in, what is in use out."""
        self.stop_artifact(data["interface"])
        return self._in_use()

    @twin_of(active_artifacts)
    async def post_active_artifacts(self, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """The twin of :attr:`active_artifacts` for requests: ``artifact``, the name, and ``params`` by interface."""
        return self._in_use()

    @classmethod
    def twins(cls) -> dict[str, Post]:
        """The twin of each method that has one, as functions, by the method's name."""
        found = {}
        for name in dir(cls):
            post = getattr(cls, name)
            if hasattr(post, "fields"):
                found[fields_of(post).name] = post
        return found

    def _find(self, name: str, params: dict[str, Any], limits: Limits | None = None) -> Active:
        return self._active.find(name, params, limits)

    def _in_use(self) -> dict[str, Any]:
        return {
            "output": {
                interface: {"artifact": active.spec.name, "params": dict(active.params)}
                for interface, active in self._active.snapshot().items()
            }
        }


@contextmanager
def located(*path: str) -> Iterator[None]:
    """Pointers of what is refused inside begin below ``path`` of the request."""
    try:
        yield
    except InvalidInput as error:
        error.errors = [(pointer(*path) + where, message) for where, message in error.errors]
        raise
