"""The schema of a method's signature, so that an artifact can be twenty lines long.

Annotations become types (``float`` → number, ``int`` → integer, ``Literal`` → enum, ``X | None`` → nullable, …),
defaults become defaults, the ``Args:`` section of the docstring becomes descriptions.
``Annotated[float, {"minimum": 0}]`` adds any keywords. NumPy arrays and the main input become tensors. An argument
named ``out`` is for callers in the same process only.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zerocost.core.ports.checks import plain_check

__all__ = ["annotation_schema", "hints_of", "schema_of"]

Schema = dict[str, Any]

_SCALARS: dict[Any, Schema] = {
    float: {"type": "number"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    str: {"type": "string"},
    type(None): {"type": "null"},
    dict: {"type": "object"},
    list: {"type": "array"},
    tuple: {"type": "array"},
}


def schema_of(method: Callable[..., Any], main_input: str) -> Schema:
    """The schema of the inputs of ``method``.

    Args:
        method: a bound method. Its first parameter is the main input, under any name.
        main_input: the name of the main input in the dict.

    Returns:
        A JSON Schema 2020-12 with one property for each parameter. ``**kwargs`` opens it to any further key.
    """
    hints = hints_of(method)
    descriptions = _descriptions(inspect.getdoc(method) or "")
    properties: dict[str, Schema] = {}
    required: list[str] = []
    is_open = False
    for index, parameter in enumerate(inspect.signature(method).parameters.values()):
        if parameter.kind is parameter.VAR_KEYWORD:
            is_open = True
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        name = main_input if index == 0 else parameter.name
        schema = annotation_schema(hints.get(parameter.name, parameter.annotation))
        if index == 0 and not schema:
            schema = {"x-tensor": {}}
        if name == "out":
            schema = {"x-in-process": True}
        if parameter.default is parameter.empty:
            required.append(name)
        elif parameter.default is None or isinstance(parameter.default, str | bool | int | float | list | dict | tuple):
            default = parameter.default
            if default is None:
                schema = _or_none(schema)
            schema = {**schema, "default": list(default) if isinstance(default, tuple) else default}
        if parameter.name in descriptions:
            schema = {"description": descriptions[parameter.name], **schema}
        properties[name] = schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": is_open,
    }


def hints_of(method: Any) -> dict[str, Any]:
    """The types of a function's parameters and result, or of a class's fields, as far as they exist at run time."""
    try:
        return typing.get_type_hints(method, include_extras=True)
    except Exception:
        function: Any = inspect.unwrap(getattr(method, "__func__", method))
        hints: dict[str, Any] = {}
        for name, annotation in getattr(function, "__annotations__", {}).items():
            alone = types.SimpleNamespace(__annotations__={name: annotation})
            with contextlib.suppress(Exception):
                hints |= typing.get_type_hints(alone, function.__globals__, include_extras=True)
        return hints


def annotation_schema(annotation: Any) -> Schema:
    """The schema of a type; an empty one, which any value fits, if JSON Schema has no word for it."""
    if annotation is inspect.Parameter.empty or annotation is Any or isinstance(annotation, str):
        return {}
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        keywords = [extra for extra in arguments[1:] if isinstance(extra, Mapping)]
        schema = annotation_schema(arguments[0])
        if any("x-tensor" in extra for extra in keywords):
            schema = {}
        for extra in keywords:
            schema = {**schema, **extra}
        return schema
    if (isinstance(annotation, type) and issubclass(annotation, np.ndarray)) or origin is np.ndarray:
        return {"x-tensor": {}}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return _of_union(arguments)
    if isinstance(origin, type):
        return _of_container(origin, arguments)
    return dict(_SCALARS.get(annotation, {}))


def _or_none(schema: Schema) -> Schema:
    """The schema with null allowed: ``x: int = None`` takes None."""
    check = plain_check(schema)
    has_null = schema.keys() == {"anyOf"} and {"type": "null"} in schema["anyOf"]
    if "x-tensor" in schema or has_null or (check is not None and check(None)):
        return schema
    if schema.keys() == {"type"} and isinstance(schema["type"], str):
        return {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _of_union(arguments: Sequence[Any]) -> Schema:
    if any("x-tensor" in annotation_schema(argument) for argument in arguments):
        # An optional tensor is a tensor that may be left out.
        return next(schema for argument in arguments if "x-tensor" in (schema := annotation_schema(argument)))
    members = [annotation_schema(argument) for argument in arguments]
    members = [member for index, member in enumerate(members) if member not in members[:index]]
    if not all(members):
        return {}
    if all(set(member) == {"type"} for member in members):
        return {"type": [member["type"] for member in members]}
    return {"anyOf": members}


def _of_container(origin: type, arguments: Sequence[Any]) -> Schema:
    if issubclass(origin, tuple) and arguments and arguments[-1] is not Ellipsis:
        items = [annotation_schema(argument) for argument in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if issubclass(origin, str) or not issubclass(origin, Sequence | Mapping):
        return {}
    if issubclass(origin, Mapping):
        values = annotation_schema(arguments[1]) if len(arguments) == 2 else {}
        return {"type": "object", "additionalProperties": values} if values else {"type": "object"}
    element = annotation_schema(arguments[0]) if arguments else {}
    return {"type": "array", "items": element} if element else {"type": "array"}


def _descriptions(docstring: str) -> dict[str, str]:
    """The entries of a Google-style ``Args:`` section."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", docstring, re.MULTILINE)
    if section is None:
        return {}
    found: dict[str, str] = {}
    name = None
    lines = section[1].splitlines()
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    for line in lines:
        entry = re.match(r"(\*{0,2}\w+)(?: \(.*?\))?: (.*)", line[indent:])
        if entry:
            name = entry[1]
            found[name] = entry[2].strip()
        elif name is not None and line.strip():
            found[name] += " " + line.strip()
    return found
