"""Fast checks, compiled from a subschema once. A value that they refuse is validated again by JSON Schema.

A check never accepts what JSON Schema refuses. It may refuse what JSON Schema accepts (a NumPy scalar, a list that is
an enumerated value). Two rules go beyond JSON Schema: 2.0 is not an integer, and infinity and NaN are numbers, NaN
within no bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from zerocost.core.ports.schema import ANNOTATIONS

__all__ = ["Check", "anything", "hashable", "plain_check"]

Check = Callable[[Any], bool]

_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_KNOWN = {
    "number": _BOUNDS,
    "integer": _BOUNDS,
    "string": frozenset({"minLength", "maxLength"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "object": frozenset[str](),
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}
"""The keywords that the check of each type covers."""


def anything(value: Any) -> bool:
    """Accepts every value."""
    return True


def hashable(value: Any) -> bool:
    """Accepts what can be hashed."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def plain_check(subschema: Any) -> Check | None:
    """The check of a subschema; None if it has a keyword that plain checks do not cover."""
    if subschema is True:
        return anything
    if not isinstance(subschema, Mapping):
        return None
    keywords = {key for key in subschema if key not in ANNOTATIONS and not key.startswith("x-")}
    if not keywords:
        return anything
    if keywords & {"enum", "const"}:
        return _enumerated(subschema)
    if keywords == {"anyOf"}:
        return _any([plain_check(option) for option in subschema["anyOf"]])
    kinds = subschema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not kinds or not keywords - {"type"} <= frozenset().union(*_KNOWN.values()):
        return None
    return _any([_of_type(kind, subschema) for kind in kinds])


def _any(checks: list[Check | None]) -> Check | None:
    known = [check for check in checks if check is not None]
    if len(known) < len(checks):
        return None
    if len(known) == 1:
        return known[0]
    if len(known) == 2:
        first, second = known
        return lambda value: first(value) or second(value)
    return lambda value: any(check(value) for check in known)


def _enumerated(subschema: Mapping[str, Any]) -> Check | None:
    options = subschema["enum"] if "enum" in subschema else [subschema["const"]]
    others = {key: value for key, value in subschema.items() if key not in ("enum", "const")}
    rest = None if {"enum", "const"} <= subschema.keys() else plain_check(others)
    if rest is None or rest is anything:
        return None if rest is None else _one_of(options)
    is_one = _one_of(options)
    return lambda value: is_one(value) and rest(value)


def _one_of(options: list[Any]) -> Check:
    # In Python 1, 1.0 and True are equal; in JSON Schema True is not.
    texts = frozenset(option for option in options if isinstance(option, str))
    numbers = frozenset(
        option for option in options if isinstance(option, int | float) and not isinstance(option, bool)
    )
    others = tuple(option for option in options if option is None or isinstance(option, bool))
    if not numbers and not others:
        return lambda value: type(value) is str and value in texts

    def is_one(value: Any) -> bool:
        kind = type(value)
        if kind is str:
            return value in texts
        if kind is int or kind is float:
            return value in numbers
        return any(value is other for other in others)

    return is_one


def _of_type(kind: str, subschema: Mapping[str, Any]) -> Check | None:
    if kind == "null":
        return lambda value: value is None
    if kind == "boolean":
        return lambda value: value is True or value is False
    if kind == "object":
        return lambda value: type(value) is dict
    if kind == "string":
        return _text(subschema)
    if kind == "array":
        return _list(subschema)
    return _number(subschema, is_integer=kind == "integer")


def _number(subschema: Mapping[str, Any], *, is_integer: bool) -> Check | None:
    if not _BOUNDS & subschema.keys():
        return (lambda value: type(value) is int) if is_integer else lambda value: type(value) in (float, int)
    try:
        low, high = _within(subschema, is_integer=is_integer)
    except OverflowError:  # a bound beyond float64
        return None
    if is_integer:
        return lambda value: type(value) is int and low <= value <= high
    return lambda value: (type(value) is float or type(value) is int) and low <= value <= high


def _as_float(bound: float) -> float:
    """The bound as a float, which compares faster than an int, if that is exact."""
    return float(bound) if float(bound) == bound else bound


def _within(subschema: Mapping[str, Any], *, is_integer: bool) -> tuple[float, float]:
    """The bounds of a number, both inclusive; floats where possible, which compare fastest."""
    low, high = subschema.get("minimum", -math.inf), subschema.get("maximum", math.inf)
    above, below = subschema.get("exclusiveMinimum"), subschema.get("exclusiveMaximum")
    if above is not None:
        low = max(low, math.floor(above) + 1 if is_integer else math.nextafter(above, math.inf))
    if below is not None:
        high = min(high, math.ceil(below) - 1 if is_integer else math.nextafter(below, -math.inf))
    if is_integer:
        return low, high
    return _as_float(low), _as_float(high)


def _text(subschema: Mapping[str, Any]) -> Check:
    shortest, longest = subschema.get("minLength", 0), subschema.get("maxLength", math.inf)
    if not shortest and longest == math.inf:
        return lambda value: type(value) is str
    return lambda value: type(value) is str and shortest <= len(value) <= longest


def _list(subschema: Mapping[str, Any]) -> Check | None:
    shortest, longest = subschema.get("minItems", 0), subschema.get("maxItems", math.inf)
    first = [plain_check(item) for item in subschema.get("prefixItems", ())]
    rest = plain_check(subschema.get("items", True))
    if rest is None or None in first:
        return None
    leading = [check for check in first if check is not None]
    count = len(leading)

    def fits(value: Any) -> bool:
        if not isinstance(value, list | tuple) or not shortest <= len(value) <= longest:
            return False
        if leading and not all(check(item) for check, item in zip(leading, value, strict=False)):
            return False
        return rest is anything or all(map(rest, value[count:] if count else value))

    return fits
