"""The base class of every artifact."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from zerocost.core.execution_context import ExecutionContext
from zerocost.core.ports import Bound, Ports
from zerocost.errors import InvalidInput

__all__ = ["Artifact", "TransientProperty", "coroutine_methods"]

_Value = TypeVar("_Value")


class TransientProperty(cached_property[_Value]):
    """A cached property that is bound to its instance: copies and pickles of the instance do not have its value."""


class Artifact(ABC):
    """A unit of computation. Subclass it, or one of its categories, and register an instance.

    Attributes:
        interface: the category that a plug-in is registered under.
        is_quick: whether any call with little input takes less time than handing it to a thread. A server makes such
            calls on its event loop. Not inherited.
        waits: whether a call mostly waits for something outside of this process. A server makes such calls on separate
            threads, so that they do not hold the few that compute.
        uses: names of artifacts in the same registry that this one calls; the registry refuses cycles.
    """

    interface: ClassVar[str] = "custom"
    is_quick: bool = False
    waits: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Code that a subclass adds may take any time, so a subclass must say again that it is quick.
        cls.is_quick = cls.__dict__.get("is_quick", False)
        cls._is_built_in = cls.__dict__.get("_is_built_in", False)
        cls._asks_more = (
            cls.input_errors is not Artifact.input_errors or cls.validate_input is not Artifact.validate_input
        )

    uses: tuple[str, ...] = ()
    _asks_more: bool = False
    _is_built_in: bool = False
    """Whether only this package's kernels compute, from the inputs alone. Not inherited."""
    _synchronous: ClassVar[tuple[str, ...]] = (
        "execute",
        "get_schema",
        "validate_input",
        "input_errors",
        "output_elements",
        "operations",
    )
    """The methods that callers call without awaiting them."""

    @abstractmethod
    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """Runs the artifact.

        Args:
            input_data: every input by name. Neither the dict nor its arrays are changed.
            context: the caller and the mode of the call.

        Returns:
            Every output by name.
        """

    @abstractmethod
    def get_schema(self) -> dict[str, Any]:
        """The JSON Schema 2020-12 of the inputs, with ``x-tensor``, ``x-outputs`` and ``x-main``."""

    def get_description(self) -> str:
        """What the artifact does, in words: the class's docstring."""
        return inspect.cleandoc(type(self).__doc__ or "No description provided")

    def validate_input(self, input_data: dict[str, Any]) -> bool:
        """Whether ``input_data`` is valid. An override is asked at every call, with inputs that fit the schema."""
        return not self.input_errors(input_data)

    def input_errors(self, input_data: dict[str, Any]) -> list[tuple[str, str]]:
        """Every way in which ``input_data`` breaks the schema, as (JSON pointer, message).

        An override is asked at every call, with inputs that fit the schema.
        """
        return self._ports.errors(input_data)

    def output_elements(self, input_data: dict[str, Any]) -> int | None:
        """An upper bound for the elements of all outputs together, each array counting at least one; None: unknown.

        Servers use it to refuse a call before anything is computed. Override it where the outputs can be larger than
        the inputs. It must be cheap; it is called with inputs that fit the schema.
        """
        return None

    def operations(self, input_data: dict[str, Any]) -> int | None:
        """An upper bound for the multiplications and additions; None where the sizes of the arrays bound them.

        Servers use it to refuse calls that would keep a core busy for too long. Override it where the work grows faster
        than inputs and outputs, as attention's does. It must be cheap; it is called with inputs that fit the schema.
        """
        return None

    def here(self) -> Artifact:
        """The same artifact with all of its work in this process; itself, unless it hands work to an executor."""
        return self

    @TransientProperty
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
        """What is copied and pickled: everything but transient properties."""
        state = super().__getstate__()
        if isinstance(state, dict):
            kind = type(self)
            state = {k: v for k, v in state.items() if not isinstance(getattr(kind, k, None), TransientProperty)}
        return state


def coroutine_methods(artifact: Any) -> list[str]:
    """The methods of an artifact that must be plain functions and are coroutine functions."""
    return [
        name
        for name in getattr(artifact, "_synchronous", Artifact._synchronous)
        if inspect.iscoroutinefunction(getattr(artifact, name)) or inspect.isasyncgenfunction(getattr(artifact, name))
    ]
