"""The memory service: get, put, delete, clear and stats over any memory artifact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from zerocost.core.artifact_base import ABSENT, MemoryArtifact
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.entry import Entry
from zerocost.errors import DatatypeError, InvalidInput, UnknownKey, Unsupported
from zerocost.services.active import Active
from zerocost.services.service import Service
from zerocost.services.twins import twin

__all__ = ["ABSENT", "Entry", "MemoryService"]

When = Annotated[Callable[[Any], bool] | None, {"x-in-process": True}]


class MemoryService(Service):
    """Objects by key, in the memory artifact in use.

    Keys are text. What other services remember in the same artifact has keys of another kind, so nothing that comes in
    here, or over the network, reaches it; ``clear`` removes it too.

    Args:
        artifact_registry: where :meth:`use_artifact` looks.
        memory: the artifact to begin with.

    Raises:
        UnknownArtifact: there is none of that name.
    """

    def __init__(self, artifact_registry: ArtifactRegistry, memory: str = "lru_cache") -> None:
        super().__init__(artifact_registry, ("memory",))
        self._first = self._find(memory, {})
        self._active.put(self._first)

    def stop_artifact(self, interface: str) -> None:
        """Goes back to the artifact that the service began with; nothing is carried over.

        Raises:
            RangeError: an interface other than ``"memory"``.
        """
        self._active.stop(interface, instead=self._first)

    def get(self, key: str) -> Any:
        """What is stored under ``key``: the object that was put.

        Raises:
            UnknownKey: nothing is.
        """
        result = self._execute({"operation": "get", "key": _checked(key)})
        if not result.get("found", result.get("result") is not None):
            raise UnknownKey(f"nothing is stored under {key!r}", "key")
        return Entry.unpack(result["result"])

    def put(
        self, key: str, value: Any, *, ttl: Annotated[float | None, {"exclusiveMinimum": 0}] = None, when: When = None
    ) -> bool:
        """Stores ``value``; whether it was stored (it may be too large).

        Args:
            key: text.
            value: any object that the artifact takes; it is held, not copied.
            ttl: seconds to live, where the artifact's ``store`` takes a ``ttl``.
            when: called with what is stored, or :data:`ABSENT`: whether to store. Nobody else's change comes between.

        Raises:
            RangeError: a ``ttl`` that is not above 0.
            InvalidInput: a ``ttl`` for an artifact that takes none.
            PreconditionFailed: ``when`` says no.
            Unsupported: ``when`` for an artifact that cannot decide and store in one step.
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
        """Removes ``key``; whether it was there. ``when`` as for :meth:`put`."""
        if when is not None:
            return self._exchange({"key": _checked(key), "value": ABSENT}, when)
        return bool(self._execute({"operation": "delete", "key": _checked(key)})["result"])

    def clear(self) -> bool:
        """Removes everything, what other services remember in this artifact included."""
        return bool(self._execute({"operation": "clear"})["result"])

    def stats(self) -> dict[str, Any]:
        """The artifact's counters, by name."""
        return dict(self._execute({"operation": "stats"})["result"])

    post_get = twin(get, lambda value: value.open() if isinstance(value, Entry) else value)
    post_put = twin(put)
    post_delete = twin(delete)
    post_clear = twin(clear)
    post_stats = twin(stats)

    @property
    def _memory(self) -> Active:
        active = self._active.get("memory")
        assert active is not None  # noqa: S101 - one is put in place when the service is made, and never taken away
        return active

    def _exchange(self, inputs: dict[str, Any], when: Callable[[Any], bool]) -> bool:
        spec = self._memory.spec
        exchange: Any = getattr(spec.implementation, "exchange", None)
        if exchange is None or getattr(exchange, "__func__", None) is MemoryArtifact.exchange:
            raise Unsupported(f"the artifact {spec.name!r} cannot compare what is stored and change it in one step")
        if inputs["value"] is not ABSENT:
            spec.ports.bind(inputs)
        more = {"ttl": inputs["ttl"]} if "ttl" in inputs else {}
        return bool(exchange(inputs["key"], inputs["value"], lambda stored: when(Entry.unpack(stored)), **more))

    def _execute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        # What was put as raw bytes is given back as such.
        return self._memory.execute(inputs, {"packed": True})


def _checked(key: Any) -> str:
    if not isinstance(key, str):
        raise DatatypeError(f"key: {type(key).__name__} was given, text is needed", "key")
    return key
