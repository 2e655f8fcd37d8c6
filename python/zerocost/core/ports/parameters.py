"""What JSON Schema says about parameters: the slow way, which finds words for what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from zerocost.core.ports.schema import Declaration, Schema, compiled, is_unconstrained
from zerocost.core.ports.violations import BEYOND, violation
from zerocost.errors import DatatypeError, InvalidInput

__all__ = ["Parameters", "from_text", "unboxed"]

_FEW_VALUES = 1000
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Parameters:
    """The inputs of a declaration that are no tensors, as JSON Schema sees them.

    Raises:
        InvalidSchema: the schema cannot be compiled.
    """

    def __init__(self, declaration: Declaration) -> None:
        self._inputs = declaration.inputs
        schema = declaration.schema
        additional = schema.get("additionalProperties")
        self._undeclared: Any = additional if isinstance(additional, dict) else {}
        self._constrained = {
            name: subschema
            for name, subschema in schema.get("properties", {}).items()
            if not is_unconstrained(subschema) and not declaration.is_looked_at(name)
        }
        self._whole = {name for name, subschema in self._constrained.items() if "integer" in str(subschema)}
        # `required` and undeclared names are checked elsewhere, with messages that name them.
        alone: Schema = {key: schema[key] for key in ("$id", "$defs", "definitions", "type") if key in schema}
        alone["properties"] = {name: self._constrained.get(name, True) for name in schema.get("properties", {})}
        if self._undeclared:
            alone["additionalProperties"] = self._undeclared
        self._validator = compiled({**alone, **declaration.joint})
        self._partial = compiled(alone)

    def problems(self, values: Mapping[str, Any], *, partial: bool) -> list[InvalidInput]:
        """Every way in which the parameters among ``values`` break the schema.

        Args:
            values: inputs by name.
            partial: whether others may still come.
        """
        problems: list[InvalidInput] = []
        parameters: dict[str, Any] = {}
        unsigned: list[float] = []
        for name, value in values.items():
            if not isinstance(name, str):
                continue  # as above
            subschema = self._constrained.get(name) if name in self._inputs else self._undeclared
            if subschema is None or is_unconstrained(subschema):
                parameters[name] = True  # that it is there may matter; what it is may not even be JSON
                continue
            try:
                parameters[name] = _as_json(value, unsigned)
            except TypeError as error:
                problems.append(DatatypeError(f"{name}: {error}", name))
                continue
            may_differ = name not in self._inputs or name in self._whole
            if may_differ and _is_fraction_for_integer(parameters[name], subschema):
                # JSON Schema takes 2.0 for an integer; a signature that says int does not.
                problems.append(DatatypeError(f"{name}: {value!r} was given, a whole number is needed", name))
        validator = self._partial if partial else self._validator
        if any(number != number for number in unsigned):
            # It is within no bound: what both ends of the line fit has none.
            return problems + (
                self._found(validator, _finite(parameters, -BEYOND), "nan")
                or self._found(validator, _finite(parameters, BEYOND), "nan")
            )
        return problems + self._found(validator, _finite(parameters, 0) if unsigned else parameters, None)

    def _found(self, validator: Any, parameters: Schema, shown: str | None) -> list[InvalidInput]:
        if validator.is_valid(parameters):
            return []
        return [violation(error, parameters, self._inputs, shown) for error in _violations(validator, parameters)]


def from_text(value: Any, subschema: Any) -> Any:
    """``"NaN"``, ``"Infinity"`` and ``"-Infinity"`` as numbers where a number is declared and text is not.

    So they travel in JSON. What holds none of them is returned as it is.
    """
    if not isinstance(subschema, Mapping) or not isinstance(value, str | list):
        return value
    options = [option for option in subschema.get("anyOf", [subschema]) if isinstance(option, Mapping)]
    if isinstance(value, str):
        kinds = {kind for option in options for kind in _kinds(option)}
        return _NON_FINITE.get(value, value) if "number" in kinds and "string" not in kinds else value
    for option in options:
        if "items" in option or "prefixItems" in option:
            first = option.get("prefixItems", [])
            rest = option.get("items", {})
            return [from_text(item, first[index] if index < len(first) else rest) for index, item in enumerate(value)]
    return value


def unboxed(value: Any) -> Any:
    """A NumPy scalar as the number that it prints as, so that it means the same here and behind a network."""
    if not isinstance(value, np.generic):
        return value
    kind = value.dtype.kind
    return (
        float(str(value))
        if kind == "f" or value.dtype.name == "bfloat16"
        else value.item()
        if kind in "biuU"
        else value
    )


def _violations(validator: Any, parameters: Schema) -> list[Any]:
    """What JSON Schema finds: everything where there is little, else the first thing, for each takes 30 µs."""
    import jsonschema_rs

    if _count(parameters) <= _FEW_VALUES:
        return list(validator.iter_errors(parameters))
    try:
        validator.validate(parameters)
    except jsonschema_rs.ValidationError as first:
        return [first]
    return []


def _count(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_count, value.values()))
    return 1 + sum(map(_count, value)) if isinstance(value, list) else 1


def _as_json(value: Any, unsigned: list[float]) -> Any:
    """The value as JSON Schema can look at it: NumPy scalars and arrays unwrapped, tuples as arrays.

    ``unsigned`` gets the numbers in it that JSON has no signs for.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            unsigned.append(value)
        return value
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, np.generic) and unboxed(value) is not value:
        return _as_json(unboxed(value), unsigned)
    if isinstance(value, np.ndarray):
        return _as_json(value.tolist(), unsigned)
    if isinstance(value, list | tuple):
        return [_as_json(item, unsigned) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _as_json(item, unsigned) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} was given, which is no JSON value")


def _finite(value: Any, nan: float) -> Any:
    """The value with infinity, which JSON does not have, as a number beyond all floats."""
    if isinstance(value, dict):
        return {key: _finite(item, nan) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item, nan) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return nan if value != value else BEYOND if value > 0 else -BEYOND
    return value


def _is_fraction_for_integer(value: Any, subschema: Schema) -> bool:
    """Whether a float stands where only an integer, or a list of them, is meant."""
    options = subschema.get("anyOf", [subschema])
    kinds = {kind for option in options for kind in _kinds(option)}
    if isinstance(value, float):
        return _is_whole(value) and "integer" in kinds and "number" not in kinds
    if isinstance(value, list):
        items = [item for option in options for item in (*option.get("prefixItems", ()), option.get("items"))]
        elements = {kind for item in items if isinstance(item, dict) for kind in _kinds(item)}
        return (
            float in set(map(type, value))
            and any(map(_is_whole, value))
            and "integer" in elements
            and "number" not in elements
        )
    return False


def _is_whole(value: Any) -> bool:
    """Whether it is a float that JSON Schema would take for an integer."""
    return isinstance(value, float) and (value.is_integer() or not math.isfinite(value))


def _kinds(subschema: Any) -> list[str]:
    kinds = subschema.get("type", []) if isinstance(subschema, Mapping) else []
    return [kinds] if isinstance(kinds, str) else list(kinds)
