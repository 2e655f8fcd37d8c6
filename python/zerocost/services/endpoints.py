"""Service methods as a server calls them: each has a ``post_*`` coroutine, described by the method's signature.

The signature is the only description of a method's fields: requests are checked against it, and OpenAPI prints it.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Coroutine
from functools import cached_property, partial
from typing import Any, overload

from zerocost.core.limits import Limits
from zerocost.core.ports import Ports
from zerocost.core.signature import annotation_schema, hints_of, schema_of
from zerocost.services.request_context import to_thread

__all__ = ["Endpoint"]

Post = Callable[..., Coroutine[Any, Any, dict[str, Any]]]
"""``async def post_method(self, data, limits=None) -> dict``."""


class Endpoint:
    """The ``post_*`` coroutine of a service's method: the arguments by name in, ``{"output": result}`` out.

    It is a class attribute. On the class it is the description; on an instance it is the coroutine function
    ``(data, limits=None)``, where ``limits`` are those of a server.

    Args:
        method: a method of the service, or a property. ``**params`` becomes a field that holds an object.
        answer: converts the result to the output.
        output: the type of the output, if it is not that of the method's result.
        unchecked: fields that the method checks itself. They are described, but passed on unchanged.
        is_administrative: whether the method changes the service for all callers.

    Attributes:
        name: the method's name.
    """

    def __init__(
        self,
        method: Callable[..., Any] | property,
        answer: Callable[[Any], Any] | None = None,
        *,
        output: Any = None,
        unchecked: tuple[str, ...] = (),
        is_administrative: bool = False,
    ) -> None:
        function: Any = method.fget if isinstance(method, property) else method
        self._method = function
        self._answer = answer
        self._output = output
        self._unchecked = unchecked
        self.is_administrative = is_administrative
        self._post: Post | None = None
        self.name: str = function.__name__
        self.__name__ = f"post_{self.name}"
        self.__doc__ = f"Calls :meth:`{self.name}` for a request: its arguments by name in, ``output`` out."

    @classmethod
    def of(cls, method: Callable[..., Any] | property, **options: Any) -> Callable[[Post], Endpoint]:
        """Makes a coroutine function the endpoint of ``method``. It gets the checked fields and the limits."""

        def decorate(post: Post) -> Endpoint:
            endpoint = cls(method, **options)
            endpoint._post = post
            endpoint.__doc__ = post.__doc__
            return endpoint

        return decorate

    @overload
    def __get__(self, service: None, owner: type) -> Endpoint: ...
    @overload
    def __get__(self, service: object, owner: type) -> Post: ...
    def __get__(self, service: object | None, owner: type) -> Endpoint | Post:
        return self if service is None else partial(Endpoint.__call__, self, service)

    async def __call__(self, service: Any, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """Calls the method of ``service`` with the fields of a request.

        Raises:
            InvalidInput: a field is missing, unknown, or of another type or range.
        """
        if self._post is not None:
            return await self._post(service, self._ports.bind(data, limits), limits)

        def call() -> Any:
            result = self._method(service, **self._ports.bind(data, limits))
            return result if self._answer is None else self._answer(result)

        return {"output": await to_thread(call)}

    def summary(self, kind: type) -> str:
        """The first line of the method's docstring in the service class ``kind``, which may override the method."""
        return (inspect.getdoc(getattr(kind, self.name, self._method)) or "").partition("\n")[0]

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the fields."""
        schema = schema_of(self._method, "self")
        del schema["properties"]["self"]
        # Arrays are for callers in the process: over a network they are lists.
        fields = {
            name: {key: value for key, value in field.items() if key != "x-tensor"}
            for name, field in schema["properties"].items()
            if not field.get("x-in-process")
        }
        for parameter in inspect.signature(self._method).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                fields[parameter.name] = {"type": "object"}
        required = [name for name in schema["required"] if name in fields]
        return {**schema, "properties": fields, "required": required, "additionalProperties": False}

    @cached_property
    def output_schema(self) -> dict[str, Any]:
        """The JSON Schema of the output; ``x-tensor`` stands for an array."""
        return _output_schema(self._output or hints_of(self._method).get("return", Any))

    @cached_property
    def _ports(self) -> Ports:
        fields = self.schema["properties"]
        return Ports({**self.schema, "properties": {**fields, **{name: {} for name in self._unchecked}}})


def _output_schema(annotation: Any) -> dict[str, Any]:
    """The schema of a type; a dataclass is an object of its fields and properties, without fields that are None."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_output_schema(argument) for argument in arguments]}
    if origin is list:
        return {"type": "array", "items": _output_schema(arguments[0])}
    if not dataclasses.is_dataclass(annotation):
        return annotation_schema(annotation)
    hints = hints_of(annotation)
    properties = {name: part.fget for name, part in vars(annotation).items() if isinstance(part, property)}
    hints |= {name: hints_of(read).get("return", Any) for name, read in properties.items()}
    optional = {field.name for field in dataclasses.fields(annotation) if field.default is None}
    return {
        "type": "object",
        "properties": {name: _output_schema(hint) for name, hint in hints.items()},
        "required": [name for name in hints if name not in optional],
    }
