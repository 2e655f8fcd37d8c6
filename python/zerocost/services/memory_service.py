"""The memory service: get, put, delete, clear and stats over any memory artifact."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.errors import DatatypeError, InvalidInput, UnknownKey
from zerocost.services.active import Active
from zerocost.services.service import Service, check_fields

__all__ = ["Entry", "MemoryService"]

_MARK = b"\0zerocost entry\0"


@dataclass(frozen=True)
class Entry:
    """Bytes with the media type that they were put with."""

    media_type: str
    body: bytes

    @cached_property
    def tag(self) -> str:
        """Changes whenever the bytes or the media type do."""
        return hashlib.sha256(self._packed).hexdigest()[:32]

    @property
    def _packed(self) -> bytes:
        # One object of bytes, which every memory artifact can hold and weigh.
        return b"".join([_MARK, self.media_type.encode(), b"\0", self.body])

    def pack(self) -> bytes:
        """The entry as bytes."""
        return self._packed

    @classmethod
    def unpack(cls, value: Any) -> Any:
        """The entry that :meth:`pack` made bytes of; any other value as it is."""
        if not isinstance(value, bytes) or not value.startswith(_MARK):
            return value
        media_type, _, body = value[len(_MARK) :].partition(b"\0")
        return cls(media_type.decode(), body)


class MemoryService(Service):
    """Objects by key, in the memory artifact in use.

    Keys are text. What other services remember in the same artifact has keys of another kind, so nothing that comes in
    here, or over the network, reaches it; ``clear`` removes it too. The twins for requests wait in another thread: the
    artifact may be a server.

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

    def put(self, key: str, value: Any, *, ttl: float | None = None) -> bool:
        """Stores ``value``; whether it was stored (it may be too large).

        Args:
            key: text.
            value: any object that the artifact takes; it is held, not copied.
            ttl: seconds to live, where the artifact's ``store`` takes a ``ttl``.

        Raises:
            RangeError: a ``ttl`` that is not above 0.
            InvalidInput: a ``ttl`` for an artifact that takes none.
        """
        stored = value.pack() if isinstance(value, Entry) else value
        inputs = {"operation": "put", "key": _checked(key), "value": stored}
        if ttl is not None:
            spec = self._memory.spec
            if "ttl" not in spec.ports.inputs:
                raise InvalidInput(f"ttl: the artifact {spec.name!r} takes none", "ttl")
            inputs["ttl"] = ttl
        return bool(self._execute(inputs)["result"])

    def delete(self, key: str) -> bool:
        """Removes ``key``; whether it was there."""
        return bool(self._execute({"operation": "delete", "key": _checked(key)})["result"])

    def clear(self) -> bool:
        """Removes everything, what other services remember in this artifact included."""
        return bool(self._execute({"operation": "clear"})["result"])

    def stats(self) -> dict[str, Any]:
        """The artifact's counters, by name."""
        return dict(self._execute({"operation": "stats"})["result"])

    async def post_get(self, data: dict[str, Any]) -> dict[str, Any]:
        """The twin of :meth:`get` for requests: ``key`` in, ``output`` out."""
        check_fields(data, "get", "key")
        value = await asyncio.to_thread(self.get, data["key"])
        if isinstance(value, Entry):
            raise InvalidInput(f"key: {data['key']!r} holds {value.media_type}; get it from /services/memory/entries/")
        return {"output": value}

    async def post_put(self, data: dict[str, Any]) -> dict[str, Any]:
        """The twin of :meth:`put` for requests: ``key``, ``value`` and ``ttl`` in, ``output`` out."""
        check_fields(data, "put", "key", "value", optional=("ttl",))
        return {"output": await asyncio.to_thread(self.put, data["key"], data["value"], ttl=data.get("ttl"))}

    async def post_delete(self, data: dict[str, Any]) -> dict[str, Any]:
        """The twin of :meth:`delete` for requests: ``key`` in, ``output`` out."""
        check_fields(data, "delete", "key")
        return {"output": await asyncio.to_thread(self.delete, data["key"])}

    async def post_clear(self, data: dict[str, Any]) -> dict[str, Any]:
        """The twin of :meth:`clear` for requests: ``output`` out."""
        check_fields(data, "clear")
        return {"output": await asyncio.to_thread(self.clear)}

    async def post_stats(self, data: dict[str, Any]) -> dict[str, Any]:
        """The twin of :meth:`stats` for requests: ``output`` out."""
        check_fields(data, "stats")
        return {"output": await asyncio.to_thread(self.stats)}

    @property
    def _memory(self) -> Active:
        active = self._active.get("memory")
        assert active is not None  # noqa: S101 - one is put in place when the service is made, and never taken away
        return active

    def _execute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return self._memory.execute(inputs)


def _checked(key: Any) -> str:
    if not isinstance(key, str):
        raise DatatypeError(f"key: {type(key).__name__} was given, text is needed", "key")
    return key
