"""Violations of a JSON Schema as exceptions that name the input, what was given and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from zerocost.core.ports.checks import plain_check
from zerocost.errors import DatatypeError, InvalidInput, MissingInput, RangeError, pointer

__all__ = ["BEYOND", "violation"]

BEYOND = 1 << 1024
"""Stands for infinity, which JSON does not have: an integer larger than every float."""

_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "enum", "const"})


def violation(
    error: Any, values: Mapping[str, Any], inputs: Mapping[str, Any], shown: str | None = None
) -> InvalidInput:
    """The exception for an error of jsonschema-rs.

    Args:
        error: the validation error.
        values: the validated inputs, with :data:`BEYOND` for infinity.
        inputs: the subschema of every input.
        shown: what :data:`BEYOND` stands for, if not for infinity.
    """
    path = list(error.instance_path)
    keyword = next((part for part in reversed(list(error.schema_path)) if isinstance(part, str)), "")
    message = str(error.message)
    if keyword == "required" and not path:
        return MissingInput(f"{error.kind.property} required", error.kind.property)
    name = str(path[0]) if path and path[0] in values else ""
    if keyword in ("enum", "anyOf", "oneOf") and len(path) == 1:
        message = _alternatives(values[name], inputs.get(name, {}), shown) or message
    text = _with_infinity(f"{name}: {message}" if name else message, shown)
    where = pointer(*path)
    kind = DatatypeError if keyword == "type" else RangeError if keyword in _BOUNDS else InvalidInput
    if keyword in ("anyOf", "oneOf", "enum", "const"):
        kind = RangeError if _is_of_kind(error.instance, _failed(error, inputs)) else DatatypeError
    return kind(text, name or None, errors=[(where, text)])


def _failed(error: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The subschema that the value of an error breaks; an empty one if it is not found."""
    found: Any = inputs
    for part in list(error.schema_path)[1:-1]:
        try:
            found = found[part]
        except (KeyError, IndexError, TypeError):  # behind a reference
            return {}
    return found if isinstance(found, Mapping) else {}


def _is_of_kind(value: Any, subschema: Mapping[str, Any]) -> bool:
    """Whether a value has an allowed type, so that only its value is wrong."""
    for keyword in ("anyOf", "oneOf"):
        if keyword in subschema:
            return any(_is_of_kind(value, option) for option in subschema[keyword])
    options = subschema.get("enum", [subschema["const"]] if "const" in subschema else [])
    if options:
        return any(_same_kind(value, option) for option in options)
    check = plain_check(_without_bounds(subschema))
    return check is None or check(value)


def _same_kind(value: Any, option: Any) -> bool:
    if isinstance(value, bool) or isinstance(option, bool):
        return isinstance(value, bool) and isinstance(option, bool)
    return isinstance(value, int | float) if isinstance(option, int | float) else type(value) is type(option)


def _without_bounds(subschema: Any) -> Any:
    if isinstance(subschema, list):
        return [_without_bounds(item) for item in subschema]
    if not isinstance(subschema, Mapping):
        return subschema
    return {key: _without_bounds(value) for key, value in subschema.items() if key not in _BOUNDS}


def _with_infinity(text: str, shown: str | None) -> str:
    return text.replace(str(-BEYOND), shown or "-inf").replace(str(BEYOND), shown or "inf")


def _alternatives(value: Any, subschema: Mapping[str, Any], shown: str | None) -> str | None:
    """What was given, and everything that is allowed; None if the schema cannot be put into words."""
    given = _with_infinity(json.dumps(value, ensure_ascii=False, default=str), shown)
    given = given if len(given) <= 100 else f"{given[:99]}…"
    options = subschema.get("anyOf") or subschema.get("oneOf") or [subschema]
    words = [_in_words(option) for option in options]
    if not all(words):
        return None
    return f"{given} was given, {' or '.join(str(word) for word in words)} is allowed"


def _in_words(subschema: Mapping[str, Any]) -> str | None:
    if "enum" in subschema:
        return ", ".join(json.dumps(option, ensure_ascii=False) for option in subschema["enum"])
    if "const" in subschema:
        return json.dumps(subschema["const"], ensure_ascii=False)
    kinds = subschema.get("type")
    if not isinstance(kinds, str):
        return None
    bounds = [
        f"{word} {subschema[keyword]}"
        for keyword, word in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if keyword in subschema
    ]
    noun = {"integer": "a whole number", "number": "a number", "null": "null", "string": "text", "boolean": "a boolean"}
    if kinds == "array":
        length = subschema.get("minItems")
        item = subschema.get("items")
        inner = _in_words(item) if isinstance(item, dict) else None
        exactly = length if length == subschema.get("maxItems") else None
        if inner == "text" and not exactly:
            return "a list of text"
        return "a list" + (f" of {exactly}" if exactly else "") + (f", each {inner}" if inner else "")
    return " ".join([noun.get(kinds, f"an {kinds}"), *bounds])
