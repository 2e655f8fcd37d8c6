"""The artifacts that a service uses, one for each interface."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zerocost.core.artifact_base import ExecutionContext
from zerocost.core.artifact_registry import ArtifactRegistry, ArtifactSpec
from zerocost.core.limits import Limits
from zerocost.core.ports import pointer
from zerocost.errors import InvalidInput, RangeError
from zerocost.services.request_context import current_deadline

__all__ = ["ARTIFACT_NAME", "ActiveArtifact", "ActiveArtifacts", "Artifacts", "artifacts_schema"]

ARTIFACT_NAME = {"type": "string", "x-artifact-name": True}
"""The schema of an artifact's name: a description may list the names that there are."""

Artifacts = Mapping[str, Mapping[str, Any] | None] | None
"""``{interface: {"artifact": name, "params": {…}}}``; None for a value means no artifact."""


def artifacts_schema(interfaces: tuple[str, ...]) -> dict[str, Any]:
    """The JSON Schema of what :meth:`ActiveArtifacts.select` takes."""
    choice = {
        "type": ["object", "null"],
        "properties": {"artifact": ARTIFACT_NAME, "params": {"type": ["object", "null"]}},
        "required": ["artifact"],
        "additionalProperties": False,
    }
    artifacts = {"type": "object", "properties": dict.fromkeys(interfaces, choice), "additionalProperties": False}
    return {"anyOf": [artifacts, {"type": "null"}]}


@dataclass(frozen=True)
class ActiveArtifact:
    """An artifact in use, with its parameters."""

    spec: ArtifactSpec
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def is_built_in(self) -> bool:
        """Whether it is one of this package's own attention or parallel artifacts. Their subclasses may do anything."""
        return self.spec.implementation._is_built_in

    def here(self) -> ActiveArtifact:
        """The same artifact with all of its work in this process."""
        implementation = self.spec.implementation.here()
        if implementation is self.spec.implementation:
            return self
        return replace(self, spec=replace(self.spec, implementation=implementation))

    def execute(self, inputs: dict[str, Any], metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Executes the artifact on ``inputs`` and its parameters, under the current deadline.

        Args:
            inputs: inputs by name.
            metadata: further entries of the execution context's metadata.
        """
        deadline = current_deadline()
        more = {**(metadata or {}), **({} if deadline is None else {"deadline": deadline})}
        context = ExecutionContext(self.spec.name, self.spec.interface, "zero_cost", more)
        result = self.spec.implementation.execute(self.spec.ports.bind({**self.params, **inputs}), context)
        if not isinstance(result, dict):
            raise InvalidInput(f"artifact {self.spec.name!r} returned {type(result).__name__}, a dict is needed")
        return result

    def call(self, main: Any, **inputs: Any) -> Any:
        """Executes the artifact on its main input and returns its main output."""
        ports = self.spec.ports
        if ports.main_input is None:
            raise InvalidInput(f"artifact {self.spec.name!r} declares no main input")
        result = self.execute({ports.main_input: main, **inputs})
        output = ports.main_output or next(iter(result), None)
        if output not in result:
            raise InvalidInput(f"artifact {self.spec.name!r} returned no {output!r}")
        return result[output]


class ActiveArtifacts:
    """One artifact for each interface. A change replaces the mapping, so a reader never sees half of it.

    Args:
        registry: where names are looked up.
        interfaces: the interfaces that the service uses.
        check: raises InvalidInput if the service cannot use an artifact.
    """

    def __init__(
        self,
        registry: ArtifactRegistry,
        interfaces: tuple[str, ...],
        check: Callable[[ActiveArtifact], object] = lambda active: None,
    ) -> None:
        self._check = check
        self._registry = registry
        self._interfaces = interfaces
        self._active: Mapping[str, ActiveArtifact] = {}
        self._lock = threading.Lock()

    def find(self, name: str, params: Mapping[str, Any], limits: Limits | None = None, *path: str) -> ActiveArtifact:
        """The artifact ``name`` with its parameters.

        Args:
            name: the name of a registered artifact.
            params: its parameters.
            limits: those of a server, if the parameters came over a network.
            path: where the parameters stand in the request.

        Raises:
            UnknownArtifact: there is no artifact of that name.
            RangeError: the service does not use artifacts of its interface.
            InvalidInput: the parameters do not fit, or the service cannot use the artifact.
        """
        spec = self._registry[name]
        if spec.interface not in self._interfaces:
            allowed = " or ".join(repr(interface) for interface in self._interfaces)
            raise RangeError(
                f"artifact {name!r} has the interface {spec.interface!r}, {allowed} is needed", "artifact_name"
            )
        return self._checked(spec, params, limits, *path)

    def select(self, artifacts: Artifacts, limits: Limits | None = None) -> Mapping[str, ActiveArtifact]:
        """The artifacts for one call: those in use, with ``artifacts`` in their place.

        Raises:
            InvalidInput, RangeError: ``artifacts`` is malformed, or names an artifact of another interface.
        """
        selected = dict(self._active)
        if artifacts is None:
            return selected
        if not isinstance(artifacts, Mapping):
            raise InvalidInput("artifacts: {interface: {artifact, params}} is needed", "artifacts")
        for interface, choice in artifacts.items():
            if interface not in self._interfaces:
                allowed = ", ".join(self._interfaces)
                raise RangeError(
                    f"artifacts: the interface {interface!r} was given, {allowed} are allowed", "artifacts"
                )
            if choice is None:
                selected.pop(interface, None)
                continue
            if not isinstance(choice, Mapping) or not isinstance(choice.get("artifact"), str):
                raise InvalidInput(f"artifacts: {interface} needs the name of an artifact", "artifacts")
            name, params = choice["artifact"], choice.get("params") or {}
            if choice.keys() - {"artifact", "params"} or not isinstance(params, Mapping):
                raise InvalidInput(f"artifacts: {interface} takes 'artifact' and the object 'params'", "artifacts")
            spec = self._registry[name]
            if spec.interface != interface:
                raise RangeError(
                    f"artifacts: {name!r} has the interface {spec.interface!r}, not {interface!r}", "artifacts"
                )
            selected[interface] = self._checked(spec, params, limits, "artifacts", interface, "params")
        return selected

    def put(self, artifact: ActiveArtifact) -> None:
        """Uses the artifact for its interface from now on."""
        with self._lock:
            self._active = {**self._active, artifact.spec.interface: artifact}

    def stop(self, interface: str, fallback: ActiveArtifact | None = None) -> None:
        """Uses ``fallback``, or no artifact, for an interface from now on.

        Raises:
            RangeError: the service does not use artifacts of that interface.
        """
        if interface not in self._interfaces:
            allowed = ", ".join(repr(known) for known in self._interfaces)
            raise RangeError(f"interface: {interface!r} was given, {allowed} is allowed", "interface")
        with self._lock:
            others = {key: value for key, value in self._active.items() if key != interface}
            self._active = others if fallback is None else {**others, interface: fallback}

    def get(self, interface: str) -> ActiveArtifact | None:
        """The artifact of an interface, or None."""
        return self._active.get(interface)

    def snapshot(self) -> Mapping[str, ActiveArtifact]:
        """The artifacts in use at this moment, by interface."""
        return self._active

    def _checked(
        self, spec: ArtifactSpec, params: Mapping[str, Any], limits: Limits | None, *path: str
    ) -> ActiveArtifact:
        try:
            try:
                active = ActiveArtifact(spec, spec.ports.bind_partial(params, limits))
            except InvalidInput as error:
                raise type(error)(f"artifact {spec.name!r}: {error}", error.argument, error.errors) from error
            self._check(active)
        except InvalidInput as error:
            # What is wrong with the artifact itself is an error of the object that holds its name and parameters.
            error.errors = [
                (pointer(*path) + where if where else pointer(*path[:-1]), message) for where, message in error.errors
            ]
            raise
        return active
