"""The artifact: one interface for a unit of computation.

The contract:

- ``execute(input_data, context) -> dict`` is the only entry point, for direct calls and over HTTP alike.
- ``get_schema()`` describes inputs and outputs. It is read once, when the artifact is registered.
- Inputs are never changed: not the dict, not the arrays in it, except an ``out`` array that the caller passes.
- The artifact gets the very objects that the caller passes (``is``), except that a declared tensor becomes an array if
  it is not one yet.
- Every call goes through :meth:`zerocost.core.ports.Ports.bind`: calls by name, chains and calls over a network bind
  their inputs first, and so does ``execute`` of the category base classes. Inputs that are bound already pass at once.
  A plain :class:`Artifact` whose ``execute`` is called directly gets its inputs as they are.

:class:`AttentionArtifact` and :class:`ParallelArtifact` derive the schema from the signature of ``process_attention``
and ``process_parallel``; :class:`MemoryArtifact` has a fixed one.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from types import CoroutineType
from typing import Any, ClassVar

from zerocost.core.artifact import Artifact, TransientProperty
from zerocost.core.execution_context import ExecutionContext
from zerocost.core.memory_artifact import ABSENT, MemoryArtifact
from zerocost.core.results import coroutine_error
from zerocost.core.signature import schema_of

__all__ = ["ABSENT", "Artifact", "AttentionArtifact", "ExecutionContext", "MemoryArtifact", "ParallelArtifact"]


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
            raise coroutine_error(processed, f"{type(self).__name__}.{self._method}")
        return {self.main_output: processed, "artifact_used": context.artifact_name}

    def get_schema(self) -> dict[str, Any]:
        """The schema of the method's signature, annotations, defaults and docstring."""
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
        """The subschema of the main output: a tensor for attention, unconstrained for parallel artifacts."""
        return {}

    @TransientProperty
    def _bound_method(self) -> Callable[..., Any]:
        """The method, taking every input by its name in the dict."""
        method: Callable[..., Any] = getattr(self, self._method)
        first = next(iter(inspect.signature(method).parameters.values()), None)
        if first is not None and first.name == self.main_input and first.kind is first.POSITIONAL_OR_KEYWORD:
            return method
        # The first parameter is the main input, under any name.
        main_input = self.main_input
        return lambda **inputs: method(inputs.pop(main_input), **inputs)


class AttentionArtifact(_TensorArtifact):
    """Base for attention processing artifacts: ``attention_matrix`` in, ``processed_attention`` out.

    A subclass has one method, ``process_attention``. Its parameters after the matrix are the artifact's parameters.
    """

    interface: ClassVar[str] = "attention"
    main_input: ClassVar[str] = "attention_matrix"
    main_output: ClassVar[str] = "processed_attention"
    _method: ClassVar[str] = "process_attention"
    _synchronous = (*Artifact._synchronous, _method)

    @abstractmethod
    def process_attention(self, attention_matrix: Any, *args: Any, **kwargs: Any) -> Any:
        """Core attention processing logic."""

    def output_schema(self) -> dict[str, Any]:
        """A tensor of any dtype and shape."""
        return {"x-tensor": {}}


class ParallelArtifact(_TensorArtifact):
    """Base for parallelism artifacts: ``tensor`` in, ``result`` out.

    A subclass has one method, ``process_parallel``. Its parameters after the tensor are the artifact's parameters.
    """

    interface: ClassVar[str] = "parallel"
    main_input: ClassVar[str] = "tensor"
    main_output: ClassVar[str] = "result"
    _method: ClassVar[str] = "process_parallel"
    _synchronous = (*Artifact._synchronous, _method)

    @abstractmethod
    def process_parallel(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        """Core parallel processing logic."""
