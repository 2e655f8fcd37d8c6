"""The artifact: one interface for a unit of computation.

The contract:

- ``execute(input_data, context) -> dict`` is the only way in, called directly and over HTTP alike.
- ``get_schema()`` says what goes in and what comes out; it is read once, when the artifact is registered.
- Inputs are never changed: not the dict, not the arrays in it, except an ``out`` array that the caller passes.
- What the caller puts in is what the artifact gets (``is``), but for declared tensors that are no arrays yet.
- Every way in goes through one door, :meth:`zerocost.core.ports.Ports.bind`: whoever calls an artifact by name, in a
  chain or over a network binds its inputs first, and so does ``execute`` of the category base classes. What is bound
  already passes at once. A plain :class:`Artifact` whose ``execute`` is called directly gets what it is given.

:class:`AttentionArtifact` and :class:`ParallelArtifact` derive the schema from the signature of ``process_attention``
and ``process_parallel``; :class:`MemoryArtifact` has a fixed one.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from types import CoroutineType
from typing import Any, ClassVar, TypeVar

from zerocost.core.entry import Entry
from zerocost.core.execution_context import ExecutionContext
from zerocost.core.ports import Bound, Ports
from zerocost.core.ports.schema import requirements
from zerocost.core.results import no_coroutine
from zerocost.core.signature import schema_of
from zerocost.errors import InvalidInput, UnknownOperation

__all__ = [
    "ABSENT",
    "Artifact",
    "AttentionArtifact",
    "ExecutionContext",
    "MemoryArtifact",
    "ParallelArtifact",
    "coroutine_methods",
]

_Value = TypeVar("_Value")

ABSENT: Any = object()
"""Where :meth:`MemoryArtifact.exchange` speaks of a key that is not there."""


class _Derived(cached_property[_Value]):
    """What follows from an instance, and is not copied with it."""


class Artifact(ABC):
    """A unit of computation. Subclass it, or one of the categories below, and register an instance.

    Attributes:
        interface: the category that a plug-in is registered under.
        is_quick: whether a call with little input takes less than handing it to a thread, whatever it is asked, so that
            a server makes it on its event loop. Not inherited.
        waits: whether a call mostly waits for something outside of this process, so that a server makes it on a thread
            that is kept for that, not on one of the few that compute.
        uses: names of artifacts in the same registry that this one calls; the registry refuses cycles.
    """

    interface: ClassVar[str] = "custom"
    is_quick: bool = False
    waits: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # What a subclass adds may take any time: it says so itself, or it is not.
        cls.is_quick = cls.__dict__.get("is_quick", False)
        cls._asks_more = (
            cls.input_errors is not Artifact.input_errors or cls.validate_input is not Artifact.validate_input
        )

    uses: tuple[str, ...] = ()
    _asks_more: bool = False

    @abstractmethod
    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """Runs the artifact.

        Args:
            input_data: every input by name. Neither the dict nor its arrays are changed.
            context: who calls, and how.

        Returns:
            Every output by name.
        """

    @abstractmethod
    def get_schema(self) -> dict[str, Any]:
        """The JSON Schema 2020-12 of the inputs, with ``x-tensor``, ``x-outputs`` and ``x-main``."""

    def get_description(self) -> str:
        """What the artifact does, for people: the class's docstring."""
        return inspect.cleandoc(type(self).__doc__ or "No description provided")

    def validate_input(self, input_data: dict[str, Any]) -> bool:
        """Whether ``input_data`` is taken. An override is asked at every door, with inputs that fit the schema."""
        return not self.input_errors(input_data)

    def input_errors(self, input_data: dict[str, Any]) -> list[tuple[str, str]]:
        """Every way in which ``input_data`` breaks the schema, as (JSON pointer, message).

        An override is asked at every door, with inputs that fit the schema.
        """
        return self._ports.errors(input_data)

    def output_elements(self, input_data: dict[str, Any]) -> int | None:
        """An upper bound for the elements of all outputs together, each array counting at least one; None: not known.

        Servers refuse by it, before anything is computed, what would not fit. Override it where the outputs can be
        larger than the inputs. It must be cheap; it is called with inputs that fit the schema.
        """
        return None

    def operations(self, input_data: dict[str, Any]) -> int | None:
        """An upper bound for the multiplications and additions, None where it follows from the sizes of the arrays.

        Servers refuse by it what would keep a core busy for too long. Override it where the work grows faster than
        inputs and outputs do, as attention's does. It must be cheap; it is called with inputs that fit the schema.
        """
        return None

    @_Derived
    def _ports(self) -> Ports:
        return Ports(self.get_schema(), self)

    def _check_bound(self, bound: Bound) -> None:
        """Raises InvalidInput if an override of :meth:`input_errors` or :meth:`validate_input` refuses the inputs."""
        errors = self.input_errors(bound)
        if errors:
            raise InvalidInput("; ".join(message for _, message in errors), errors=errors)
        if not self.validate_input(bound):
            raise InvalidInput(f"{type(self).__name__} does not take this input")

    def __getstate__(self) -> object:
        """What is copied and pickled: not what was derived from this instance, and is bound to it."""
        state = super().__getstate__()
        if isinstance(state, dict):
            kind = type(self)
            state = {k: v for k, v in state.items() if not isinstance(getattr(kind, k, None), _Derived)}
        return state


class _TensorArtifact(Artifact):
    """Binds the declared inputs to the parameters of one method. The schema is the method's signature.

    Not for subclassing outside this module: the categories below name the method and the ports.
    """

    main_input: ClassVar[str]
    main_output: ClassVar[str]
    _method: ClassVar[str]

    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """Binds the inputs to the method's parameters and calls it.

        Raises:
            InvalidInput: whatever :meth:`zerocost.core.ports.Ports.bind` refuses.
        """
        processed = self._bound_method(**self._ports.bind(input_data))
        if type(processed) is CoroutineType:
            raise no_coroutine(processed, f"{type(self).__name__}.{self._method}")
        return {self.main_output: processed, "artifact_used": context.artifact_name}

    def get_schema(self) -> dict[str, Any]:
        """The schema that the method's signature, annotations, defaults and docstring give."""
        schema = schema_of(getattr(self, self._method), self.main_input)
        return {
            **schema,
            "x-outputs": {
                self.main_output: self.output_schema(),
                "artifact_used": {"type": "string", "description": "The name that the artifact was called by."},
            },
            "x-main": {"input": self.main_input, "output": self.main_output},
        }

    def output_schema(self) -> dict[str, Any]:
        """The subschema of the main output; a tensor for attention, unconstrained for parallel artifacts."""
        return {}

    @_Derived
    def _bound_method(self) -> Callable[..., Any]:
        """The method, called with every input by its name in the dict."""
        method: Callable[..., Any] = getattr(self, self._method)
        first = next(iter(inspect.signature(method).parameters.values()), None)
        if first is not None and first.name == self.main_input and first.kind is first.POSITIONAL_OR_KEYWORD:
            return method
        # Whatever the method calls its first parameter, it is the main input.
        main_input = self.main_input
        return lambda **inputs: method(inputs.pop(main_input), **inputs)


class AttentionArtifact(_TensorArtifact):
    """Base for attention processing artifacts: ``attention_matrix`` in, ``processed_attention`` out.

    A subclass has one method, ``process_attention``; its parameters after the matrix are the artifact's parameters.
    """

    interface: ClassVar[str] = "attention"
    main_input: ClassVar[str] = "attention_matrix"
    main_output: ClassVar[str] = "processed_attention"
    _method: ClassVar[str] = "process_attention"

    @abstractmethod
    def process_attention(self, attention_matrix: Any, *args: Any, **kwargs: Any) -> Any:
        """Core attention processing logic."""

    def output_schema(self) -> dict[str, Any]:
        """A tensor of any dtype and shape."""
        return {"x-tensor": {}}


class ParallelArtifact(_TensorArtifact):
    """Base for parallelism artifacts: ``tensor`` in, ``result`` out.

    A subclass has one method, ``process_parallel``; its parameters after the tensor are the artifact's parameters.
    """

    interface: ClassVar[str] = "parallel"
    main_input: ClassVar[str] = "tensor"
    main_output: ClassVar[str] = "result"
    _method: ClassVar[str] = "process_parallel"

    @abstractmethod
    def process_parallel(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        """Core parallel processing logic."""


class MemoryArtifact(Artifact):
    """Base for memory management artifacts: ``operation``, ``key`` and ``value`` in, ``result`` out.

    A subclass has ``retrieve``, ``store`` and ``clear``; ``delete``, ``contains``, ``stats`` and ``keys`` where it can.
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

    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """Runs one operation; ``"get"`` where none is named.

        Returns:
            ``result`` and ``artifact_used``; for ``get`` also ``found``, so that a stored None can be told apart. Of
            an entry that was put as a raw body of JSON or safetensors, ``result`` is what that stands for.

        Raises:
            UnknownOperation: the operation is not one of those above, or this artifact does not have it.
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
            raise no_coroutine(answer, f"{type(self).__name__}.{call.__name__}")
        if operation == "get":
            found, result = answer
            if type(result) is bytes and "packed" not in context.metadata:
                entry = Entry.unpack(result)
                if entry is not result and entry.has_value:
                    result = entry.open()
            return {"result": result, "found": found, "artifact_used": context.artifact_name}
        return {"result": answer, "artifact_used": context.artifact_name}

    def get_schema(self) -> dict[str, Any]:
        """The schema that all memory artifacts share; which inputs are required depends on the operation."""
        operations = {name: needed for name, needed in self.OPERATIONS.items() if name in self._bound_methods}
        properties = {
            "operation": {"enum": list(operations), "default": "get", "description": "What to do."},
            "key": {
                "type": "string",
                "x-hashable": True,
                "description": "The key; in process any hashable object.",
            },
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
        """Whether ``key`` is there, and what is stored under it.

        Override it where None can be stored; by default a None from ``retrieve`` counts as absent.
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
        """Stores ``value`` under ``key``, or removes the key if it is :data:`ABSENT`, where ``when`` agrees.

        ``when`` is called with what is stored, or :data:`ABSENT`, perhaps more than once. What it agreed to is what is
        exchanged: nobody else's change comes in between.

        Returns:
            As :meth:`store`, or as :meth:`delete`.

        Raises:
            PreconditionFailed: ``when`` did not agree; nothing is changed.
        """
        raise NotImplementedError

    def stats(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Counters, by name."""
        raise NotImplementedError

    def keys(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Every key."""
        raise NotImplementedError

    @_Derived
    def _bound_methods(self) -> dict[str, tuple[Any, frozenset[str]]]:
        """Every operation that this artifact has, with the inputs that its method takes."""
        methods = {"get": "lookup", "put": "store"}
        calls = {}
        for operation in self.OPERATIONS:
            name = methods.get(operation, operation)
            if operation in _OPTIONAL and getattr(type(self), name) is getattr(MemoryArtifact, name):
                continue
            calls[operation] = (getattr(self, name), _accepted(getattr(self, name)))
        return calls


_OPTIONAL = ("delete", "contains", "stats", "keys")


def _accepted(method: Any) -> frozenset[str]:
    """The inputs besides ``operation`` that a memory method takes."""
    parameters = inspect.signature(method).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return frozenset({"key", "value"} | {parameter.name for parameter in parameters})
    return frozenset(parameter.name for parameter in parameters)


def coroutine_methods(artifact: Any) -> list[str]:
    """The methods of an artifact that must be plain functions and are coroutine functions."""
    names = ["execute", "get_schema", "validate_input", "input_errors", "output_elements", "operations"]
    if isinstance(artifact, _TensorArtifact):
        names.append(artifact._method)
    if isinstance(artifact, MemoryArtifact):
        names += ["retrieve", "lookup", "store", "clear", "exchange", *_OPTIONAL]
    return [
        name
        for name in names
        if inspect.iscoroutinefunction(getattr(artifact, name)) or inspect.isasyncgenfunction(getattr(artifact, name))
    ]
