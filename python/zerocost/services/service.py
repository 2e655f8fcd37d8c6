"""What every service has: artifacts in use, for callers in the process and for requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.ports import pointer
from zerocost.errors import DatatypeError, InvalidInput, MissingInput, UndeclaredInput, merged
from zerocost.services.active import Active, ActiveArtifacts

__all__ = ["Service", "check_fields", "located"]

_NAMED = 20
"""Unknown fields that are named; a request may have a million."""


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

    async def post_use_artifact(self, data: dict[str, Any]) -> dict[str, Any]:
        """The twin of :meth:`use_artifact` for requests: ``artifact_name`` and ``params`` in, what is in use out."""
        check_fields(data, "use_artifact", "artifact_name", optional=("params",))
        name, params = data["artifact_name"], data.get("params", {})
        if not isinstance(name, str):
            raise DatatypeError("artifact_name: text is needed", "artifact_name")
        if not isinstance(params, dict):
            raise InvalidInput("params: an object is needed", "params")
        with located("params"):
            active = self._find(name, params)
        self._active.put(active)
        return self._in_use()

    async def post_stop_artifact(self, data: dict[str, Any]) -> dict[str, Any]:
        """The twin of :meth:`stop_artifact` for requests: ``interface`` in, what is in use out."""
        check_fields(data, "stop_artifact", "interface")
        if not isinstance(data["interface"], str):
            raise DatatypeError("interface: text is needed", "interface")
        self.stop_artifact(data["interface"])
        return self._in_use()

    async def post_active_artifacts(self, data: dict[str, Any]) -> dict[str, Any]:
        """The twin of :attr:`active_artifacts` for requests: ``artifact``, the name, and ``params`` by interface."""
        check_fields(data, "active_artifacts")
        return self._in_use()

    def _find(self, name: str, params: dict[str, Any]) -> Active:
        return self._active.find(name, params)

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


def check_fields(data: Mapping[str, Any], call: str, *required: str, optional: tuple[str, ...] = ()) -> None:
    """Checks the names in a request.

    Args:
        data: what the request holds.
        call: what it calls, for messages.
        required: the names that must be there.
        optional: those that may be.

    Raises:
        MissingInput: a required one is not there.
        UndeclaredInput: there are others.
    """
    for name in required:
        if name not in data:
            raise MissingInput(f"{name} required", name)
    undeclared = sorted(data.keys() - {*required, *optional})
    if undeclared:
        raise merged([UndeclaredInput(f"{name}: not an input of {call}", name) for name in undeclared[:_NAMED]])
