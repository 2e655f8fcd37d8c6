"""The memory service: ``get``, ``put``, ``delete``, ``clear`` and ``stats`` on any memory artifact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from zerocost.core.artifact_base import ABSENT, MemoryArtifact
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.entry import Entry
from zerocost.core.safetensors import MEDIA_TYPE
from zerocost.errors import DatatypeError, InvalidInput, UnknownKey
from zerocost.services.active_artifacts import ActiveArtifact
from zerocost.services.endpoints import Endpoint
from zerocost.services.service import Service

__all__ = ["ABSENT", "ENTRY_TYPES", "Entry", "MemoryService"]

ENTRY_TYPES = ("application/octet-stream", "application/json", MEDIA_TYPE)
"""The media types of raw entries."""

When = Annotated[Callable[[Any], bool] | None, {"x-in-process": True}]


class MemoryService(Service):
    """Objects by key, in the memory artifact in use.

    Keys are text. Other services keep their results in the same artifact under keys of another kind, so no caller of
    this service and no request reaches those. Only ``clear`` removes them too.

    Args:
        artifact_registry: where :meth:`use_artifact` looks up names.
        memory: the name of the first artifact.

    Raises:
        UnknownArtifact: there is no artifact of that name.
    """

    def __init__(self, artifact_registry: ArtifactRegistry, memory: str = "lru_cache") -> None:
        super().__init__(artifact_registry)
        self._first = self._active.find(memory, {})
        self._active.put(self._first)

    def stop_artifact(self, interface: str) -> None:
        """Returns to the first artifact of the service; no entries are carried over.

        Raises:
            RangeError: an interface other than ``"memory"``.
        """
        self._active.stop(interface, fallback=self._first)

    def get(self, key: str) -> Any:
        """The object that is stored under a key.

        Raises:
            UnknownKey: nothing is stored there.
        """
        result = self._execute({"operation": "get", "key": _checked(key)})
        if not result.get("found", result.get("result") is not None):
            raise UnknownKey(f"nothing is stored under {key!r}", "key")
        return Entry.unpack(result["result"])

    def put(
        self, key: str, value: Any, *, ttl: Annotated[float | None, {"exclusiveMinimum": 0}] = None, when: When = None
    ) -> bool:
        """Stores a value. False means that it was not stored because it is too large.

        The object itself is held, not a copy.

        Args:
            key: text.
            value: any object that the artifact takes.
            ttl: seconds to live, if the artifact takes a ``ttl``.
            when: called with the stored value, or :data:`ABSENT`; stores only if it returns True. No other change comes
                in between.

        Raises:
            RangeError: ``ttl`` is not above 0.
            InvalidInput: the artifact takes no ``ttl``.
            PreconditionFailed: ``when`` returned False.
            Unsupported: ``when`` was given, and the artifact cannot compare and store in one step.
        """
        stored = value.pack() if isinstance(value, Entry) else value
        inputs = {"operation": "put", "key": _checked(key), "value": stored}
        if ttl is not None:
            spec = self._memory.spec
            if "ttl" not in spec.ports.inputs:
                raise InvalidInput(f"ttl: the artifact {spec.name!r} takes none", "ttl")
            inputs["ttl"] = ttl
        return self._exchange(inputs, when) if when is not None else bool(self._execute(inputs)["result"])

    def delete(self, key: str, *, when: When = None) -> bool:
        """Removes a key and tells whether it was there.

        Args:
            key: text.
            when: as in :meth:`put`.
        """
        if when is not None:
            return self._exchange({"key": _checked(key), "value": ABSENT}, when)
        return bool(self._execute({"operation": "delete", "key": _checked(key)})["result"])

    def clear(self) -> bool:
        """Removes everything, including the results that other services keep in this artifact."""
        return bool(self._execute({"operation": "clear"})["result"])

    def stats(self) -> dict[str, Any]:
        """The artifact's counters, by name."""
        return dict(self._execute({"operation": "stats"})["result"])

    post_get = Endpoint(get, lambda value: value.open() if isinstance(value, Entry) else value)
    post_put = Endpoint(put)
    post_delete = Endpoint(delete)
    post_clear = Endpoint(clear)
    post_stats = Endpoint(stats)

    @property
    def _memory(self) -> ActiveArtifact:
        active = self._active.get("memory")
        assert active is not None  # noqa: S101 - set when the service is made, and never removed
        return active

    def _exchange(self, inputs: dict[str, Any], when: Callable[[Any], bool]) -> bool:
        spec = self._memory.spec
        artifact: Any = spec.implementation
        exchange = getattr(type(artifact), "exchange", MemoryArtifact.exchange)
        if inputs["value"] is not ABSENT:
            spec.ports.bind(inputs)
        options = {"ttl": inputs["ttl"]} if "ttl" in inputs else {}
        return bool(
            exchange(artifact, inputs["key"], inputs["value"], lambda stored: when(Entry.unpack(stored)), **options)
        )

    def _execute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        # Entries of raw bytes are returned as such.
        return self._memory.execute(inputs, {"packed": True})


def _checked(key: Any) -> str:
    if not isinstance(key, str):
        raise DatatypeError(f"key: {type(key).__name__} was given, text is needed", "key")
    return key
