"""Validation of parameters by JSON Schema: slow, with a message for every violation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zerocost.core.datatypes import FLOATING, datatype_of
from zerocost.core.ports.schema import Declaration, Schema, compiled, is_unconstrained
from zerocost.core.ports.violations import BEYOND, violation
from zerocost.errors import DatatypeError, InvalidInput

__all__ = ["Parameters", "from_text", "unboxed"]

_FEW_VALUES = 1000
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Parameters:
    """The inputs of a declaration that JSON Schema validates: all but tensors, keys and the operation.

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
        non_finite: list[float] = []

        def collect(number: float) -> float:
            non_finite.append(number)
            return number

        for name, value in values.items():
            if not isinstance(name, str):
                continue  # `undeclared` reports it
            subschema = self._constrained.get(name) if name in self._inputs else self._undeclared
            if subschema is None or is_unconstrained(subschema):
                parameters[name] = True  # only its presence may matter; it need not be JSON
                continue
            try:
                parameters[name] = _as_json(value, collect)
            except TypeError as error:
                problems.append(DatatypeError(f"{name}: {error}", name))
                continue
            if _is_float_for_integer(parameters[name], subschema):
                # JSON Schema accepts 2.0 as an integer; a signature that says int does not.
                problems.append(DatatypeError(f"{name}: {value!r} was given, a whole number is needed", name))
        validator = self._partial if partial else self._validator
        if any(number != number for number in non_finite):
            # NaN is not within any bound: it is allowed only where both infinities are.
            return problems + (
                self._found(validator, _finite(parameters, -BEYOND), "nan")
                or self._found(validator, _finite(parameters, BEYOND), "nan")
            )
        return problems + self._found(validator, _finite(parameters, 0) if non_finite else parameters, None)

    def _found(self, validator: Any, parameters: Schema, shown: str | None) -> list[InvalidInput]:
        if validator.is_valid(parameters):
            return []
        return [violation(error, parameters, self._inputs, shown) for error in _violations(validator, parameters)]


def from_text(value: Any, subschema: Any) -> Any:
    """``"NaN"``, ``"Infinity"`` and ``"-Infinity"`` as numbers, where a number is declared and text is not.

    This is their form in JSON. Other values are returned as they are.
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
    """A NumPy scalar as the number that it prints as: the same number in the process and over a network."""
    if not isinstance(value, np.generic):
        return value
    if datatype_of(value.dtype) in FLOATING or value.dtype.kind == "f":
        return float(str(value))
    return value.item() if value.dtype.kind in "biuU" else value


def _violations(validator: Any, parameters: Schema) -> list[Any]:
    """The violations: all for few values, otherwise the first one, as each takes 30 µs."""
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


def _as_json(value: Any, non_finite: Callable[[float], float]) -> Any:
    """The value as JSON: NumPy's types unwrapped, tuples as lists, infinity and NaN replaced by ``non_finite``."""
    if isinstance(value, float):
        return value if math.isfinite(value) else non_finite(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, np.generic) and unboxed(value) is not value:
        return _as_json(unboxed(value), non_finite)
    if isinstance(value, np.ndarray):
        return _as_json(value.tolist(), non_finite)
    if isinstance(value, list | tuple):
        return [_as_json(item, non_finite) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _as_json(item, non_finite) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} was given, which is not a JSON value")


def _finite(parameters: Schema, nan: float) -> Any:
    """The parameters with infinity as a number beyond all floats, and NaN as ``nan``: JSON has neither."""
    return _as_json(parameters, lambda number: nan if number != number else BEYOND if number > 0 else -BEYOND)


def _is_float_for_integer(value: Any, subschema: Any) -> bool:
    """Whether a whole float is given where only an integer, or a list of them, is allowed."""
    if not isinstance(subschema, dict):
        return False
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
    """Whether it is a float that JSON Schema accepts as an integer."""
    return isinstance(value, float) and (value.is_integer() or not math.isfinite(value))


def _kinds(subschema: Any) -> list[str]:
    kinds = subschema.get("type", []) if isinstance(subschema, Mapping) else []
    return [kinds] if isinstance(kinds, str) else list(kinds)
