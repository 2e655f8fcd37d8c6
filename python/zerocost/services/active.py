"""The artifacts that a service uses, one for each interface."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from zerocost.core.artifact_base import ExecutionContext
from zerocost.core.artifact_registry import ArtifactRegistry, ArtifactSpec
from zerocost.core.limits import Limits
from zerocost.errors import InvalidInput, RangeError

__all__ = ["Active", "ActiveArtifacts", "deadline_now", "own_key", "recall", "remember", "until"]

_deadline: ContextVar[float | None] = ContextVar("zerocost_service", default=None)


@dataclass(frozen=True)
class Active:
    """An artifact in use, with its parameters."""

    spec: ArtifactSpec
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def is_built_in(self) -> bool:
        """Whether the artifact comes with this package."""
        return type(self.spec.implementation).__module__.startswith("zerocost.artifacts.")

    def execute(self, inputs: dict[str, Any], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Executes the artifact on ``inputs`` and its parameters, until the deadline that holds here.

        Args:
            inputs: by name.
            more: for the metadata of the execution context.
        """
        deadline = deadline_now()
        metadata = {**(more or {}), **({} if deadline is None else {"deadline": deadline})}
        context = ExecutionContext(self.spec.name, self.spec.interface, "zero_cost", metadata)
        bound = self.spec.ports.bind({**self.params, **inputs})
        result = self.spec.implementation.execute(bound, context)
        if not isinstance(result, dict):
            raise InvalidInput(f"artifact {self.spec.name!r} returned {type(result).__name__}, a dict is needed")
        return result

    def call(self, main: Any, **inputs: Any) -> Any:
        """Executes the artifact on its main input; its main output."""
        ports = self.spec.ports
        if ports.main_input is None:
            raise InvalidInput(f"artifact {self.spec.name!r} declares no main input")
        result = self.execute({ports.main_input: main, **inputs})
        output = ports.main_output or next(iter(result), None)
        if output not in result:
            raise InvalidInput(f"artifact {self.spec.name!r} returned no {output!r}")
        return result[output]


class ActiveArtifacts:
    """One artifact for each interface. Changes put a new mapping in place, so who reads one sees it whole.

    Args:
        registry: where names are looked up.
        interfaces: those that the service uses.
    """

    def __init__(self, registry: ArtifactRegistry, interfaces: tuple[str, ...]) -> None:
        self._registry = registry
        self._interfaces = interfaces
        self._active: Mapping[str, Active] = {}
        self._lock = threading.Lock()

    def find(self, name: str, params: dict[str, Any], limits: Limits | None = None) -> Active:
        """The artifact ``name`` with its parameters; ``limits`` where they came over a network.

        Raises:
            UnknownArtifact: there is none of that name.
            RangeError: its interface is not one that the service uses.
            InvalidInput: parameters that :meth:`zerocost.core.ports.Ports.bind` refuses.
        """
        spec = self._registry[name]
        if spec.interface not in self._interfaces:
            allowed = " or ".join(repr(interface) for interface in self._interfaces)
            raise RangeError(
                f"artifact {name!r} has the interface {spec.interface!r}, one of {allowed} is needed", "artifact_name"
            )
        try:
            return Active(spec, spec.ports.bind_partial(params, limits))
        except InvalidInput as error:
            raise type(error)(f"artifact {name!r}: {error}", error.argument, error.errors) from error

    def put(self, active: Active) -> None:
        """Uses the artifact for its interface from now on."""
        with self._lock:
            self._active = {**self._active, active.spec.interface: active}

    def use(self, name: str, params: dict[str, Any]) -> None:
        """:meth:`find` and :meth:`put`."""
        self.put(self.find(name, params))

    def stop(self, interface: str, instead: Active | None = None) -> None:
        """Uses no artifact for an interface from now on, or ``instead``.

        Raises:
            RangeError: the service never uses artifacts of that interface.
        """
        if interface not in self._interfaces:
            allowed = ", ".join(repr(known) for known in self._interfaces)
            raise RangeError(f"interface: {interface!r} was given, {allowed} is allowed", "interface")
        with self._lock:
            others = {key: value for key, value in self._active.items() if key != interface}
            self._active = others if instead is None else {**others, interface: instead}

    def get(self, interface: str) -> Active | None:
        """The artifact of an interface, None if there is none."""
        return self._active.get(interface)

    def snapshot(self) -> Mapping[str, Active]:
        """What is in use at this moment, by interface."""
        return self._active

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Implementation, name and parameters, by interface."""
        return {
            interface: {"artifact": active.spec.implementation, "name": active.spec.name, "params": dict(active.params)}
            for interface, active in self._active.items()
        }


@contextmanager
def until(deadline: float | None) -> Iterator[None]:
    """Artifacts that a service executes inside get this deadline, on ``time.monotonic()``; None: none."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


def deadline_now() -> float | None:
    """The deadline that holds here."""
    return _deadline.get()


def own_key(kind: str, *content: bytes) -> tuple[str, str]:
    """A service's own key in a memory artifact: the same in every process, and of any length of content.

    A tuple, which no request over the network can name: keys of requests are text.
    """
    digest = hashlib.sha256()
    for part in content:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return f"zerocost.{kind}", digest.hexdigest()


def recall(memory: Active, key: Hashable) -> Any:
    """What a memory artifact has under ``key``; None if there is nothing."""
    with _blamed(memory):
        return memory.execute({"operation": "get", "key": key}).get("result")


def remember(memory: Active, key: Hashable, value: Any) -> None:
    """Puts a value into a memory artifact, which may refuse it (it may be too large)."""
    with _blamed(memory):
        memory.execute({"operation": "put", "key": key, "value": value})


@contextmanager
def _blamed(memory: Active) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"in the memory artifact {memory.spec.name!r}")
        raise
