"""The artifact: one interface for a unit of computation.

The contract:

- ``execute(input_data, context) -> dict`` is the only way in, called directly and over HTTP alike.
- ``get_schema()`` says what goes in and what comes out; it is read once, when the artifact is registered.
- Inputs are never changed: not the dict, not the arrays in it, except an ``out`` array that the caller passes.
- What the caller puts in is what the artifact gets (``is``): nothing is copied or converted on the way.
- ``execute`` runs no JSON Schema. The category base classes refuse undeclared keys, kernels check dtype, rank and
  shape; ``input_errors`` is for the doors to the outside (REST, command line, plans, the validator).

:class:`AttentionArtifact` and :class:`ParallelArtifact` derive the schema from the signature of ``process_attention``
and ``process_parallel``; :class:`MemoryArtifact` has a fixed one.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from zerocost.core.ports import Ports
from zerocost.core.signature import schema_of
from zerocost.errors import DatatypeError, InvalidInput, MissingInput, RangeError, UndeclaredInput, UnknownOperation

__all__ = ["Artifact", "AttentionArtifact", "ExecutionContext", "MemoryArtifact", "ParallelArtifact"]

MODES = ("zero_cost", "restful")


@dataclass
class ExecutionContext:
    """Where and how an artifact is being executed.

    Attributes:
        artifact_name: the name that the caller used.
        interface: ``"attention"``, ``"parallel"``, ``"memory"``, a plug-in's own, or ``"chain"`` for a chain's step.
        mode: ``"zero_cost"`` in the same process, ``"restful"`` on behalf of an HTTP request.
        metadata: anything. Reserved keys: ``request_id``, ``deadline`` (seconds on ``time.monotonic()``),
            ``traceparent``, ``span`` (a callable that takes a name and attributes, and returns a context manager that
            yields a ``traceparent``: the span of a step), ``step``, ``steps``, ``chain_id``, ``limits``
            (:class:`zerocost.core.limits.Limits`).

    Raises:
        RangeError: any other mode.
    """

    artifact_name: str
    interface: str
    mode: str
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise RangeError(f"mode: {self.mode!r} was given, 'zero_cost' or 'restful' is allowed", "mode")


class Artifact(ABC):
    """A unit of computation. Subclass it, or one of the categories below, and register an instance.

    Attributes:
        interface: the category that a plug-in is registered under.
        is_quick: whether a call with little input takes less than handing it to a thread, whatever it is asked, so that
            a server makes it on its event loop. Not inherited.
        uses: names of artifacts in the same registry that this one calls; the registry refuses cycles.
    """

    interface: ClassVar[str] = "custom"
    is_quick: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # What a subclass adds may take any time: it says so itself, or it is not.
        cls.is_quick = cls.__dict__.get("is_quick", False)

    uses: tuple[str, ...] = ()

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
        """Whether ``input_data`` fits the schema."""
        return not self.input_errors(input_data)

    def input_errors(self, input_data: dict[str, Any]) -> list[tuple[str, str]]:
        """Every way in which ``input_data`` breaks the schema, as (JSON pointer, message)."""
        return [error for problem in self.input_problems(input_data) for error in problem.errors]

    def input_problems(self, input_data: dict[str, Any]) -> list[InvalidInput]:
        """As :meth:`input_errors`, each as the exception that :meth:`execute` would raise for it."""
        return self._ports.problems(input_data)

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

    @cached_property
    def _ports(self) -> Ports:
        return Ports(self.get_schema())


class _TensorArtifact(Artifact):
    """Binds the declared inputs to the parameters of one method. The schema is the method's signature.

    Not for subclassing outside this module: the categories below name the method and the ports.
    """

    main_input: ClassVar[str]
    main_output: ClassVar[str]
    _method: ClassVar[str]

    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """Binds the main input and the declared parameters, and processes them.

        Raises:
            MissingInput: there is no main input.
            UndeclaredInput: a key that the schema does not declare.
        """
        try:
            main = input_data.get(self.main_input)
        except AttributeError:
            raise _no_dict(input_data) from None
        if main is None:
            raise MissingInput(f"{self.main_input} required", self.main_input)
        parameters = dict(input_data)
        del parameters[self.main_input]
        for name in self._required:
            if name not in parameters:
                raise MissingInput(f"{name} required", name)
        declared = self._declared
        if declared is not None and not parameters.keys() <= declared:
            raise _undeclared(self._ports, parameters)
        return {self.main_output: self._process(main, **parameters), "artifact_used": context.artifact_name}

    def get_schema(self) -> dict[str, Any]:
        """The schema that the method's signature, annotations, defaults and docstring give."""
        schema = schema_of(self._process, self.main_input)
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

    @cached_property
    def _process(self) -> Any:
        return getattr(self, self._method)

    @cached_property
    def _required(self) -> tuple[str, ...]:
        return tuple(name for name in self._ports.required if name != self.main_input)

    @cached_property
    def _declared(self) -> frozenset[str] | None:
        return None if self._ports.is_open else frozenset(self._ports.inputs)


class AttentionArtifact(_TensorArtifact):
    """Base for attention processing artifacts: ``attention_matrix`` in, ``processed_attention`` out.

    A subclass has one method, ``process_attention``; its parameters after the matrix are the artifact's parameters.
    """

    interface: ClassVar[str] = "attention"
    main_input: ClassVar[str] = "attention_matrix"
    main_output: ClassVar[str] = "processed_attention"
    _method: ClassVar[str] = "process_attention"

    @abstractmethod
    def process_attention(self, attention_matrix: Any, **kwargs: Any) -> Any:
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
    def process_parallel(self, tensor: Any, **kwargs: Any) -> Any:
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
            ``result`` and ``artifact_used``; for ``get`` also ``found``, so that a stored None can be told apart.

        Raises:
            UnknownOperation: the operation is not one of those above, or this artifact does not have it.
            MissingInput: the operation needs a key or a value.
            UndeclaredInput: a key that the schema does not declare.
        """
        try:
            operation = input_data.get("operation", "get")
        except AttributeError:
            raise _no_dict(input_data) from None
        if not isinstance(operation, str) or operation not in self._calls:
            raise self._unknown(operation)
        if not input_data.keys() <= self._ports.inputs.keys():
            raise _undeclared(self._ports, input_data)
        for name in self.OPERATIONS[operation]:
            if name not in input_data:
                raise MissingInput(f"{name} required for {operation!r}", name)
        call, taken = self._calls[operation]
        arguments = {name: value for name, value in input_data.items() if name in taken}
        if operation == "get":
            found, result = call(**arguments)
            return {"result": result, "found": found, "artifact_used": context.artifact_name}
        return {"result": call(**arguments), "artifact_used": context.artifact_name}

    def get_schema(self) -> dict[str, Any]:
        """The schema that all memory artifacts share; which inputs are required depends on the operation."""
        requirements = [
            {
                "if": {"properties": {"operation": {"const": operation}}, "required": ["operation"]},
                "then": {"required": list(required)},
            }
            for operation, required in self.OPERATIONS.items()
            if required and operation in self._calls
        ]
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "operation": {"enum": list(self._calls), "default": "get", "description": "What to do."},
                "key": {"type": "string", "description": "The key; in process any hashable object."},
                "value": {"description": "What to store: any object. It is held, not copied."},
            },
            "allOf": [*requirements, {"if": {"not": {"required": ["operation"]}}, "then": {"required": ["key"]}}],
            "additionalProperties": False,
            "examples": [{"operation": "get", "key": "example"}],
            "x-outputs": {
                "result": {"description": "The stored object, or what the operation answers."},
                "found": {"type": "boolean", "description": "Whether the key was there (get only)."},
                "artifact_used": {"type": "string", "description": "The name that the artifact was called by."},
            },
            "x-main": {"input": "value", "output": "result"},
        }

    def input_problems(self, input_data: dict[str, Any]) -> list[InvalidInput]:
        """As the base class, in the words of :meth:`execute`."""
        operation = input_data.get("operation", "get")
        if not isinstance(operation, str) or operation not in self._calls:
            return [self._unknown(operation)]
        missing = [name for name in self.OPERATIONS[operation] if name not in input_data]
        problems = [MissingInput(f"{name} required for {operation!r}", name) for name in missing]
        return problems + [
            problem for problem in self._ports.problems(input_data) if not isinstance(problem, MissingInput)
        ]

    def _unknown(self, operation: Any) -> UnknownOperation:
        return UnknownOperation(f"Unknown operation: {operation}; there are {', '.join(self._calls)}", "operation")

    @abstractmethod
    def retrieve(self, key: str, **kwargs: Any) -> Any:
        """The object stored under ``key``, None if there is none."""

    @abstractmethod
    def store(self, key: str, value: Any, **kwargs: Any) -> bool:
        """Stores ``value`` under ``key``; whether it was stored."""

    @abstractmethod
    def clear(self, **kwargs: Any) -> bool:
        """Removes everything."""

    def lookup(self, key: str, **kwargs: Any) -> tuple[bool, Any]:
        """Whether ``key`` is there, and what is stored under it.

        Override it where None can be stored; by default a None from ``retrieve`` counts as absent.
        """
        value = self.retrieve(key, **kwargs)
        return value is not None, value

    def delete(self, key: str, **kwargs: Any) -> bool:
        """Removes ``key``; whether it was there."""
        raise NotImplementedError

    def contains(self, key: str, **kwargs: Any) -> bool:
        """Whether ``key`` is there."""
        raise NotImplementedError

    def stats(self, **kwargs: Any) -> dict[str, Any]:
        """Counters, by name."""
        raise NotImplementedError

    def keys(self, **kwargs: Any) -> list[Any]:
        """Every key."""
        raise NotImplementedError

    @cached_property
    def _calls(self) -> dict[str, tuple[Any, frozenset[str]]]:
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


def _no_dict(input_data: Any) -> DatatypeError:
    return DatatypeError(f"input_data: {type(input_data).__name__} was given, a dict is needed", "input_data")


def _undeclared(ports: Ports, names: Any) -> UndeclaredInput:
    errors = ports.undeclared(names)
    return UndeclaredInput("; ".join(message for _, message in errors), errors=errors)
