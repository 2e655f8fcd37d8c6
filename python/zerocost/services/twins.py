"""A service's methods as requests call them: their fields by name, and a coroutine for each, its *twin*.

The signature of a method says which fields there are; ``**params`` is a field that holds an object. What a twin does,
it does where :func:`working_on` says, in a thread of asyncio's by default: a server has threads of its own.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any

from zerocost.core.limits import Limits
from zerocost.core.ports import Ports
from zerocost.core.signature import schema_of

__all__ = ["Fields", "Post", "Run", "apart", "fields_of", "twin", "twin_of", "working_on"]

Run = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a job somewhere else; its result."""

Method = Callable[..., Any] | property
Post = Callable[..., Coroutine[Any, Any, dict[str, Any]]]

_run: ContextVar[Run] = ContextVar("zerocost_run", default=asyncio.to_thread)


@contextmanager
def working_on(run: Run) -> Iterator[None]:
    """Twins that begin inside do their work through ``run``."""
    token = _run.set(run)
    try:
        yield
    finally:
        _run.reset(token)


async def apart(job: Callable[[], Any]) -> Any:
    """The result of ``job``, which runs where :func:`working_on` says."""
    return await _run.get()(job)


class Fields:
    """What a request to a method holds.

    Args:
        method: a method of a service, or a property, as its class has it.
    """

    def __init__(self, method: Method) -> None:
        function: Any = method.fget if isinstance(method, property) else method
        self._method = function
        self.name: str = function.__name__

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The schema of the fields."""
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
    def _ports(self) -> Ports:
        return Ports(self.schema)

    def read(self, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """The fields of a request; ``limits`` where it came over a network, see :meth:`zerocost.core.ports.Ports.bind`.

        Raises:
            InvalidInput: a field that is missing, that the method does not have, or of another type.
        """
        return self._ports.bind(data, limits)


def twin(method: Callable[..., Any], answer: Callable[[Any], Any] | None = None) -> Post:
    """The twin of a method: its arguments by name in, ``{"output": result}`` out.

    Args:
        method: the method.
        answer: makes of its result what the answer holds.
    """
    fields = Fields(method)

    async def post(self: Any, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        def call() -> Any:
            result = method(self, **fields.read(data, limits))
            return result if answer is None else answer(result)

        return {"output": await apart(call)}

    return _described(post, fields)


def twin_of(method: Method) -> Callable[[Post], Post]:
    """Makes a coroutine function the twin of ``method``: it gets the fields, looked at, and the limits of a server."""
    fields = Fields(method)

    def decorate(function: Post) -> Post:
        async def post(self: Any, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
            return await function(self, fields.read(data, limits), limits)

        post.__doc__ = function.__doc__
        return _described(post, fields)

    return decorate


def fields_of(post: Post) -> Fields:
    """The fields of a twin."""
    fields: Fields = post.fields  # type: ignore[attr-defined]  # a function may have any
    return fields


def _described(post: Post, fields: Fields) -> Post:
    post.__name__ = f"post_{fields.name}"
    post.__doc__ = post.__doc__ or (
        f"The twin of :meth:`{fields.name}` for requests: its arguments by name in, ``output`` out."
    )
    post.fields = fields  # type: ignore[attr-defined]  # as above, where it is put
    return post
