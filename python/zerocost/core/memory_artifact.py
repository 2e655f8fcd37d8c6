"""The base class of artifacts that store objects by key."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from types import CoroutineType
from typing import Any, ClassVar

from zerocost.core.artifact import Artifact, TransientProperty
from zerocost.core.entry import Entry
from zerocost.core.execution_context import ExecutionContext
from zerocost.core.ports.schema import requirements
from zerocost.core.results import coroutine_error
from zerocost.errors import UnknownOperation, Unsupported

__all__ = ["ABSENT", "MemoryArtifact"]

ABSENT: Any = object()
"""Stands for a key that is not there; see :meth:`MemoryArtifact.exchange`."""


class MemoryArtifact(Artifact):
    """Base for memory management artifacts: ``operation``, ``key`` and ``value`` in, ``result`` out.

    A subclass has ``retrieve``, ``store`` and ``clear``, and may have ``delete``, ``contains``, ``stats`` and ``keys``.
    Each is called with those of the given inputs that its signature takes.
    """

    interface: ClassVar[str] = "memory"
    OPERATIONS: ClassVar[dict[str, tuple[str, ...]]] = {
        "get": ("key",),
        "put": ("key", "value"),
        "clear": (),
        "delete": ("key",),
        "contains": ("key",),
        "stats": (),
        "keys": (),
    }
    """Every operation with the inputs that it requires."""
    _optional: ClassVar[tuple[str, ...]] = ("delete", "contains", "stats", "keys")
    _synchronous = (*Artifact._synchronous, "retrieve", "lookup", "store", "clear", "exchange", *_optional)

    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """Runs one operation; ``"get"`` where none is named.

        Returns:
            ``result`` and ``artifact_used``; for ``get`` also ``found``, which tells a stored None from a miss. For an
            entry that was put as a raw body of JSON or safetensors, ``result`` is the value that it encodes.

        Raises:
            UnknownOperation: the operation does not exist, or this artifact does not have it.
            MissingInput: the operation needs a key or a value.
            UndeclaredInput: a key that the schema does not declare.
        """
        bound = self._ports.bind(input_data)
        operation = bound.get("operation", "get")
        if operation not in self._bound_methods:
            raise UnknownOperation(
                f"Unknown operation: {operation}; there are {', '.join(self._bound_methods)}", "operation"
            )
        call, taken = self._bound_methods[operation]
        answer = call(**{name: value for name, value in bound.items() if name in taken})
        if type(answer) is CoroutineType:
            raise coroutine_error(answer, f"{type(self).__name__}.{call.__name__}")
        if operation == "get":
            found, result = answer
            if type(result) is bytes and "packed" not in context.metadata:
                entry = Entry.unpack(result)
                if entry is not result and entry.has_value:
                    result = entry.open()
            return {"result": result, "found": found, "artifact_used": context.artifact_name}
        return {"result": answer, "artifact_used": context.artifact_name}

    def get_schema(self) -> dict[str, Any]:
        """The schema that all memory artifacts share. The required inputs depend on the operation."""
        operations = {name: needed for name, needed in self.OPERATIONS.items() if name in self._bound_methods}
        properties = {
            "operation": {"enum": list(operations), "default": "get", "description": "What to do."},
            "key": {"type": "string", "x-hashable": True, "description": "The key; in process any hashable object."},
            "value": {"description": "What to store: any object. It is held, not copied."},
        }
        if "ttl" in self._bound_methods["put"][1]:
            properties["ttl"] = {
                "type": ["number", "null"],
                "exclusiveMinimum": 0,
                "default": None,
                "description": "Seconds that what is put may live; null for the artifact's own.",
            }
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": properties,
            "x-operations": {name: list(needed) for name, needed in operations.items()},
            "allOf": requirements(operations, "get"),
            "additionalProperties": False,
            "examples": [{"operation": "get", "key": "example"}],
            "x-outputs": {
                "result": {"description": "The stored object, or what the operation answers."},
                "found": {"type": "boolean", "description": "Whether the key was there (get only)."},
                "artifact_used": {"type": "string", "description": "The name that the artifact was called by."},
            },
            "x-main": {"input": "value", "output": "result"},
        }

    @abstractmethod
    def retrieve(self, key: str, *args: Any, **kwargs: Any) -> Any:
        """The object stored under ``key``, None if there is none."""

    @abstractmethod
    def store(self, key: str, value: Any, *args: Any, **kwargs: Any) -> bool:
        """Stores ``value`` under ``key``; whether it was stored."""

    @abstractmethod
    def clear(self, *args: Any, **kwargs: Any) -> bool:
        """Removes everything."""

    def lookup(self, key: str, *args: Any, **kwargs: Any) -> tuple[bool, Any]:
        """Whether ``key`` is there, and the object stored under it.

        Override it where None can be stored. By default a None from ``retrieve`` counts as a miss.
        """
        value = self.retrieve(key, **kwargs)
        return value is not None, value

    def delete(self, key: str, *args: Any, **kwargs: Any) -> bool:
        """Removes ``key``; whether it was there."""
        raise NotImplementedError

    def contains(self, key: str, *args: Any, **kwargs: Any) -> bool:
        """Whether ``key`` is there."""
        raise NotImplementedError

    def exchange(self, key: str, value: Any, when: Callable[[Any], bool], *args: Any, **kwargs: Any) -> bool:
        """Compares and sets: stores ``value`` under ``key`` if ``when`` is true. :data:`ABSENT` removes the key.

        ``when`` is called with the stored object, or :data:`ABSENT`, perhaps more than once. No other change comes
        between its last call and the exchange.

        Returns:
            As :meth:`store`, or as :meth:`delete`.

        Raises:
            PreconditionFailed: ``when`` was false; nothing is changed.
            Unsupported: an artifact that does not override this.
        """
        raise Unsupported(f"{type(self).__name__} cannot compare and change an entry in one step")

    def stats(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Counters, by name."""
        raise NotImplementedError

    def keys(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Every key."""
        raise NotImplementedError

    @TransientProperty
    def _bound_methods(self) -> dict[str, tuple[Any, frozenset[str]]]:
        """The operations of this artifact: the method of each, and the inputs that it takes."""
        methods = {"get": "lookup", "put": "store"}
        calls = {}
        for operation in self.OPERATIONS:
            name = methods.get(operation, operation)
            if operation in self._optional and getattr(type(self), name) is getattr(MemoryArtifact, name):
                continue
            calls[operation] = (getattr(self, name), _accepted(getattr(self, name)))
        return calls


def _accepted(method: Any) -> frozenset[str]:
    """The inputs besides ``operation`` that a memory method takes."""
    parameters = inspect.signature(method).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return frozenset({"key", "value"} | {parameter.name for parameter in parameters})
    return frozenset(parameter.name for parameter in parameters)
