"""The registry: artifacts by name, and where third-party ones come from.

Reading takes no lock: every change replaces the dict, so a look-up during a change sees the old or the new one.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from zerocost.core.artifact import Artifact, coroutine_methods
from zerocost.core.ports import Ports, closest
from zerocost.errors import (
    DatatypeError,
    DuplicateArtifact,
    InvalidSchema,
    PlanError,
    PluginError,
    RangeError,
    UnknownArtifact,
)

__all__ = ["ENTRY_POINT_GROUP", "ArtifactRegistry", "ArtifactSpec", "load_artifact"]

ENTRY_POINT_GROUP = "zerocost.artifacts"
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LONGEST_NAME = 200


@dataclass(frozen=True)
class ArtifactSpec:
    """A registered artifact. ``ports`` are the artifact's own; its schema was read and checked once."""

    name: str
    implementation: Artifact
    interface: str
    metadata: Mapping[str, Any]
    ports: Ports = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            ports = self.implementation._ports
            ports.check_schema()
        except InvalidSchema as error:
            raise InvalidSchema(f"artifact {self.name!r}: {error}") from error
        object.__setattr__(self, "ports", ports)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "ports"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The copied artifact's own ports, so that its inputs are bound only once.
        for name, value in {**state, "ports": state["implementation"]._ports}.items():
            object.__setattr__(self, name, value)


class ArtifactRegistry:
    """Artifacts by name. Thread-safe."""

    def __init__(self) -> None:
        self._specs: dict[str, ArtifactSpec] = {}
        self._lock = threading.Lock()
        self.version = 0
        """Grows with every change, so that anything derived from the registry can tell that it is stale."""

    def register_artifact(
        self,
        name: str,
        implementation: Artifact,
        interface: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        replace: bool = False,
    ) -> ArtifactSpec:
        """Adds an artifact. Its ``get_schema()`` is called once, now.

        Args:
            name: ``[A-Za-z0-9._-]+``, at most 200 characters, not ``.`` or ``..``.
            implementation: an instance of a subclass of :class:`Artifact`.
            interface: its category: ``"attention"``, ``"parallel"``, ``"memory"`` or any other word.
            metadata: anything that describes it.
            replace: whether an artifact of that name may be replaced.

        Raises:
            RangeError: a name that is not allowed.
            DatatypeError: the implementation is not an artifact, or one of its methods is a coroutine function.
            InvalidSchema: its schema is not valid.
            DuplicateArtifact: the name is taken.
            PlanError: the artifact would call itself through others.
        """
        check_name(name)
        if isinstance(implementation, type):
            raise DatatypeError(f"implementation: the class {implementation.__name__} was given, an instance is needed")
        if not isinstance(implementation, Artifact):
            kind = type(implementation).__name__
            raise DatatypeError(f"implementation: {kind} was given, an instance of a subclass of Artifact is needed")
        awaited = coroutine_methods(implementation)
        if awaited:
            raise DatatypeError(
                f"implementation: {type(implementation).__name__}.{awaited[0]} is a coroutine function; artifacts are "
                "called, not awaited: write def, not async def"
            )
        if not isinstance(interface, str) or not interface:
            raise DatatypeError(f"interface: {interface!r} was given, a word such as 'attention' is needed")
        if metadata is not None and not isinstance(metadata, Mapping):
            raise DatatypeError(f"metadata: {type(metadata).__name__} was given, a dict is needed", "metadata")
        spec = ArtifactSpec(name, implementation, interface, dict(metadata or {}))
        with self._lock:
            if name in self._specs and not replace:
                raise DuplicateArtifact(f"an artifact named {name!r} is registered; replace=True replaces it")
            specs = {**self._specs, name: spec}
            _refuse_cycle(name, specs)
            self._specs = specs
            self.version += 1
        return spec

    def unregister_artifact(self, name: str) -> ArtifactSpec:
        """Removes an artifact and returns what it was; raises UnknownArtifact if there is none."""
        with self._lock:
            spec = self[name]
            self._specs = {key: value for key, value in self._specs.items() if key != name}
            self.version += 1
        return spec

    def get_artifact(self, name: str) -> ArtifactSpec | None:
        """The artifact of that name, None if there is none."""
        return self._specs.get(name)

    def __getitem__(self, name: str) -> ArtifactSpec:
        """The artifact of that name; raises UnknownArtifact."""
        spec = self._specs.get(name)
        if spec is None:
            raise self.unknown(name)
        return spec

    def unknown(self, name: object) -> UnknownArtifact:
        """The error for an unknown name; it suggests similar ones."""
        return UnknownArtifact(f"Artifact {name} not found; {closest(str(name), self._specs)}")

    def list_artifacts(self, interface: str | None = None) -> list[ArtifactSpec]:
        """Every artifact, or those of one interface, in order of registration."""
        return [spec for spec in self._specs.values() if interface is None or spec.interface == interface]

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def __len__(self) -> int:
        return len(self._specs)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._specs))

    def __repr__(self) -> str:
        return f"ArtifactRegistry({', '.join(self._specs)})"

    def load_plugins(self) -> dict[str, PluginError]:
        """Adds the artifacts that installed packages declare in the entry point group ``zerocost.artifacts``.

        The entry point's name is the artifact's name. It resolves to a class that takes no argument; the class's
        ``interface`` is the artifact's.

        Returns:
            The entry points that could not be added, by name, with the reason. The others are added.
        """
        failures: dict[str, PluginError] = {}
        for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
            try:
                artifact = _make(entry_point.load(), entry_point.value)
                self.register_artifact(
                    entry_point.name, artifact, _interface(artifact), {"entry_point": entry_point.value}
                )
            except (Exception, SystemExit) as error:  # anything may happen when a plug-in is imported
                failures[entry_point.name] = PluginError(
                    f"plug-in {entry_point.name!r} ({entry_point.value}) was not loaded: "
                    f"{type(error).__name__}: {error}"
                )
        return failures

    def register_from(self, text: str) -> ArtifactSpec:
        """Adds an artifact from ``NAME=MODULE:CLASS``, as ``--artifact`` of the command line takes it.

        Raises:
            PluginError: the text has another form, or the class cannot be imported or instantiated.
        """
        name, separator, path = text.partition("=")
        if not separator:
            raise PluginError(f"{text!r} was given, NAME=MODULE:CLASS is needed")
        artifact = load_artifact(path)
        return self.register_artifact(name, artifact, _interface(artifact), {"loaded_from": path})


def load_artifact(path: str) -> Artifact:
    """Imports ``MODULE:CLASS`` and makes an instance of the class.

    Raises:
        PluginError: it cannot be imported or instantiated, or it is not an artifact.
    """
    module, separator, attribute = path.partition(":")
    if not separator or not module or not attribute:
        raise PluginError(f"{path!r} was given, MODULE:CLASS is needed")
    try:
        kind = importlib.import_module(module)
        for part in attribute.split("."):
            kind = getattr(kind, part)
        return _make(kind, path)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:  # anything may happen when a plug-in is imported
        raise PluginError(f"{path!r} could not be loaded: {type(error).__name__}: {error}") from error


def check_name(name: object) -> None:
    """Raises RangeError unless ``name`` may be the name of an artifact."""
    fine = isinstance(name, str) and _NAME.fullmatch(name) and name not in (".", "..") and len(name) <= _LONGEST_NAME
    if not fine:
        shown = repr(name) if len(repr(name)) < 80 else f"{repr(name)[:77]}…"
        raise RangeError(f"name: {shown} was given; letters, digits, '.', '_' and '-' are allowed", "name")


def _make(kind: Any, path: str) -> Artifact:
    artifact = kind() if isinstance(kind, type) else kind
    if not isinstance(artifact, Artifact):
        raise PluginError(f"{path!r} is {type(artifact).__name__}, a subclass of Artifact is needed")
    return artifact


def _interface(artifact: Artifact) -> str:
    interface = getattr(artifact, "interface", None)
    return interface if isinstance(interface, str) and interface else "custom"


def _refuse_cycle(name: str, specs: Mapping[str, ArtifactSpec]) -> None:
    def visit(current: str, path: tuple[str, ...]) -> None:
        spec = specs.get(current)
        for used in spec.implementation.uses if spec is not None else ():
            if used == name:
                raise PlanError(f"artifact {name!r} would reach itself: {' → '.join((*path, current, used))}")
            if used not in path:
                visit(used, (*path, current))

    visit(name, ())
