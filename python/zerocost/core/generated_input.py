"""Inputs generated from a schema: for the validator, and for examples of a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zerocost.core.datatypes import dtype_of
from zerocost.core.ports import Ports
from zerocost.errors import InvalidInput, unescaped

__all__ = ["generated_input"]

_DEEPEST = 20
"""How deep references to references are followed."""


def generated_input(schema: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """An input that fits ``schema``: its first example, otherwise its required properties with seeded values.

    Tensors are random; equal symbols get equal sizes. Enumerations, constants, bounds, lengths, nested objects and
    arrays are respected. A string with a pattern or a format needs an example in the schema.

    Raises:
        InvalidInput: a value that cannot be generated, by name.
    """
    ports = Ports(dict(schema))
    generator = np.random.default_rng(seed)
    examples = schema.get("examples")
    if isinstance(examples, list) and examples and isinstance(examples[0], dict):
        return {name: _arrays_of(ports, name, value) for name, value in examples[0].items()}
    sizes: dict[str, int] = {}
    return {
        name: _generate(_dereferenced(ports.inputs.get(name, {}), schema), generator, sizes, name)
        for name in ports.required
    }


def _arrays_of(ports: Ports, name: str, value: Any) -> Any:
    """An example's nested list as the array that a caller would pass."""
    if not ports.is_tensor(name) or not isinstance(value, list):
        return value
    datatypes = ports.datatypes(name)
    return np.asarray(value) if datatypes is None else np.asarray(value, dtype=dtype_of(datatypes[0]))


def _generate(subschema: Any, generator: np.random.Generator, sizes: dict[str, int], name: str) -> Any:
    if not isinstance(subschema, dict):
        return 1
    if "x-tensor" in subschema:
        return _generate_tensor(subschema["x-tensor"], generator, sizes)
    for key in ("examples", "enum"):
        if subschema.get(key):
            return subschema[key][0]
    for key in ("const", "default"):
        if key in subschema:
            return subschema[key]
    for key in ("anyOf", "oneOf"):
        if subschema.get(key):
            return _generate({**_without(subschema, key), **subschema[key][0]}, generator, sizes, name)
    if "allOf" in subschema:
        merged = _without(subschema, "allOf")
        for part in subschema["allOf"]:
            merged = {**merged, **part}
        return _generate(merged, generator, sizes, name)
    kind = subschema.get("type", "object" if "properties" in subschema else "number")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = subschema.get("properties", {})
        return {
            key: _generate(properties.get(key, {}), generator, sizes, f"{name}.{key}")
            for key in subschema.get("required", [])
        }
    if kind == "array":
        return _generate_list(subschema, generator, sizes, name)
    if kind == "string":
        return _generate_text(subschema, name)
    if kind in ("number", "integer"):
        return _generate_number(subschema, kind, name)
    return {"boolean": True, "null": None}.get(kind)


def _dereferenced(subschema: Any, root: Any, depth: int = 0) -> Any:
    """The subschema with its local references (``#/$defs/…``) resolved; recursion is cut off."""
    if isinstance(subschema, list):
        return [_dereferenced(item, root, depth) for item in subschema]
    if not isinstance(subschema, dict) or depth > _DEEPEST:
        return {} if depth > _DEEPEST else subschema
    reference = subschema.get("$ref")
    if isinstance(reference, str):
        target = root
        for part in reference.removeprefix("#").split("/")[1:]:
            key = unescaped(part)
            target = target[int(key)] if isinstance(target, list) else target[key]
        return _dereferenced({**target, **_without(subschema, "$ref")}, root, depth + 1)
    return {key: _dereferenced(value, root, depth) for key, value in subschema.items()}


def _without(subschema: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in subschema.items() if name != key}


def _generate_tensor(tensor: dict[str, Any], generator: np.random.Generator, sizes: dict[str, int]) -> Any:
    datatypes = tensor.get("datatypes") or ["FP32"]
    declared = [axis for axis in tensor.get("shape") or ["rows", "columns"] if axis != "..."]
    # Different symbols get different sizes, so an artifact that confuses them fails.
    shape = [
        (axis if axis >= 0 else 3) if isinstance(axis, int) else sizes.setdefault(axis, 4 + len(sizes))
        for axis in declared
    ]
    datatype = "FP32" if "FP32" in datatypes else datatypes[0]
    if datatype == "BOOL":
        return generator.random(shape) < 0.5
    if datatype == "BYTES":
        return np.full(shape, b"text", dtype=object)
    dtype = dtype_of(datatype)
    if dtype.kind in "iu":
        return generator.integers(0, 8, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


def _generate_list(
    subschema: dict[str, Any], generator: np.random.Generator, sizes: dict[str, int], name: str
) -> list[Any]:
    prefix = subschema.get("prefixItems", [])
    items = subschema.get("items", {})
    length = max(subschema.get("minItems", 0), min(len(prefix), subschema.get("maxItems", len(prefix))))
    return [
        _generate(prefix[index] if index < len(prefix) else items, generator, sizes, f"{name}[{index}]")
        for index in range(length)
    ]


def _generate_text(subschema: dict[str, Any], name: str) -> str:
    if "pattern" in subschema or "format" in subschema:
        raise InvalidInput(f"{name}: text with a pattern or a format needs 'examples' in the schema", name)
    text = "text"
    text = text.ljust(subschema.get("minLength", 0), "t")
    return text[: subschema.get("maxLength", len(text))]


def _generate_number(subschema: dict[str, Any], kind: str, name: str) -> float | int:
    whole = kind == "integer"
    low: float | None = subschema.get("minimum", subschema.get("exclusiveMinimum"))
    high: float | None = subschema.get("maximum", subschema.get("exclusiveMaximum"))
    step = subschema.get("multipleOf", 1 if whole else None)
    value: float = step or 1
    if low is not None and high is not None:
        value = (low + high) / 2
    elif low is not None:
        value = low + (step or 1)
    elif high is not None:
        value = high - (step or 1)
    if step:
        value = round(value / step) * step
        if low is not None and (value < low or (value == low and "exclusiveMinimum" in subschema)):
            value += step
    if high is not None and (value > high or (value == high and "exclusiveMaximum" in subschema)):
        raise InvalidInput(f"{name}: no number fits {subschema}", name)
    return int(value) if whole else value
