"""Whether an artifact keeps the contract: signatures, schema, a run on generated input, and what it must refuse."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from zerocost.core.arrays import datatype_of, dtype_of
from zerocost.core.artifact_base import Artifact, ExecutionContext
from zerocost.core.ports import Ports, match_shape
from zerocost.errors import InvalidInput, InvalidSchema

__all__ = ["ArtifactValidator"]

_DEEPEST = 20
"""How many references are followed one into the other."""


class ArtifactValidator:
    """Validates artifact implementations."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def validate_artifact(self, artifact: Artifact) -> tuple[bool, str]:
        """Checks that ``artifact`` keeps the contract.

        In this order: the methods and their signatures, the schema (valid JSON Schema 2020-12 with valid ``x-``
        keywords), generated input against the schema, a run on it (a dict with the declared outputs; the input dict and
        its arrays come back unchanged), and that ``validate_input`` refuses what breaks the schema.

        Returns:
            Whether it does, and ``"Valid artifact"`` or the first thing that is wrong.
        """
        for method in ("execute", "get_schema"):
            if not callable(getattr(artifact, method, None)):
                return False, f"Missing {method} method"
        problem = _signature_problem(artifact)
        if problem:
            return False, problem
        try:
            ports = Ports(artifact.get_schema())
            ports.check_schema()
        except InvalidSchema as error:
            return False, f"Invalid schema: {error}"
        except (Exception, SystemExit) as error:  # whatever a stranger's get_schema does
            return False, f"get_schema failed: {error}"
        try:
            test_input = self.generate_test_input(ports.schema)
            broken = ports.errors(test_input)
            if broken:
                return False, f"No valid input could be generated, give 'examples' in the schema: {broken[0][1]}"
            problem = _run_problem(artifact, ports, test_input)
        except (Exception, SystemExit) as error:  # whatever a stranger's execute does
            return False, f"Execution failed: {error}"
        if problem:
            return False, problem
        for breaking, what in _breaking_inputs(ports, test_input):
            try:
                accepted = artifact.validate_input(breaking)
            except (Exception, SystemExit) as error:  # a stranger's validate_input must answer, not raise
                return False, f"validate_input raised {type(error).__name__} for {what}: {error}"
            if accepted:
                return False, f"validate_input accepts {what}"
        return True, "Valid artifact"

    def generate_test_input(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """An input that fits ``schema``: its first example, otherwise its required properties with seeded values.

        Tensors are random, with equal sizes for equal symbols. Enumerations, constants, bounds, lengths, nested objects
        and arrays are respected; for a string with a pattern or a format the schema must give an example.

        Raises:
            InvalidInput: a value that cannot be generated, by name.
        """
        ports = Ports(dict(schema))
        generator = np.random.default_rng(self.seed)
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
    """The subschema with what its local references (``#/$defs/…``) point at; a recursive one ends somewhere."""
    if isinstance(subschema, list):
        return [_dereferenced(item, root, depth) for item in subschema]
    if not isinstance(subschema, dict) or depth > _DEEPEST:
        return {} if depth > _DEEPEST else subschema
    reference = subschema.get("$ref")
    if isinstance(reference, str):
        target = root
        for part in reference.removeprefix("#").split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            target = target[int(key)] if isinstance(target, list) else target[key]
        return _dereferenced({**target, **_without(subschema, "$ref")}, root, depth + 1)
    return {key: _dereferenced(value, root, depth) for key, value in subschema.items()}


def _without(subschema: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in subschema.items() if name != key}


def _generate_tensor(tensor: dict[str, Any], generator: np.random.Generator, sizes: dict[str, int]) -> Any:
    datatypes = tensor.get("datatypes") or ["FP32"]
    declared = [axis for axis in tensor.get("shape") or ["rows", "columns"] if axis != "..."]
    # Different symbols get different sizes, so that an artifact that mixes them up fails.
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


def _signature_problem(artifact: Artifact) -> str | None:
    try:
        inspect.signature(artifact.execute).bind({}, None)
    except TypeError:
        return f"execute{inspect.signature(artifact.execute)} must take (input_data, context)"
    try:
        inspect.signature(artifact.get_schema).bind()
    except TypeError:
        return f"get_schema{inspect.signature(artifact.get_schema)} must take no argument"
    if inspect.iscoroutinefunction(artifact.execute):
        return "execute must not be a coroutine function"
    return None


def _run_problem(artifact: Artifact, ports: Ports, test_input: dict[str, Any]) -> str | None:
    before = {name: _copied(value) for name, value in test_input.items()}
    result = artifact.execute(test_input, ExecutionContext("test", "test", "zero_cost", {}))
    if not isinstance(result, dict):
        return "execute must return dict"
    changed = sorted(
        str(name)
        for name in before.keys() | test_input.keys()
        if name not in before or name not in test_input or not _same(before[name], test_input[name])
    )
    if changed:
        return f"execute changes its input: {', '.join(changed)}"
    return _output_problem(ports, test_input, result)


def _output_problem(ports: Ports, test_input: dict[str, Any], result: dict[str, Any]) -> str | None:
    for name, value in result.items():
        stranger = _without_form(value)
        if stranger:
            return f"output {name!r} holds {stranger}, which has no form outside the process"
    sizes: dict[str, tuple[int, str]] = {}
    for name, value in test_input.items():
        if isinstance(value, np.ndarray) and ports.is_tensor(name):
            match_shape(name, value.shape, ports.inputs[name]["x-tensor"].get("shape"), sizes)
    for name, subschema in (ports.outputs or {}).items():
        optional = name == "found" and ports.main_input == "value"
        if name not in result and not optional:
            return f"execute does not return the declared output {name!r}"
        tensor = subschema.get("x-tensor") if isinstance(subschema, dict) else None
        if tensor is None:
            continue
        value = result[name]
        if not isinstance(value, np.ndarray):
            return f"output {name!r} is declared as a tensor, execute returns {type(value).__name__}"
        output_ports = Ports({"properties": {name: subschema}})
        problems = output_ports.errors({name: value})
        if problems:
            return f"output {problems[0][1]}"
        match_shape(name, value.shape, tensor.get("shape"), sizes)
    return None


def _without_form(value: Any) -> str | None:
    """The type of something in ``value`` that neither JSON nor a tensor of any datatype can carry; None if all can."""
    if value is None or isinstance(value, str | bool | int | float | np.bool_ | np.integer | np.floating):
        return None
    if isinstance(value, np.ndarray):
        return None if datatype_of(value.dtype) else f"an array of {value.dtype}"
    if isinstance(value, list | tuple):
        return next(filter(None, map(_without_form, value)), None)
    if isinstance(value, dict):
        return next(filter(None, map(_without_form, value.values())), None)
    return type(value).__name__


def _breaking_inputs(ports: Ports, test_input: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Inputs that the schema refuses, with a description: each must be refused by ``validate_input`` too."""
    candidates: list[tuple[dict[str, Any], str]] = [
        ({key: value for key, value in test_input.items() if key != name}, f"input without the required {name!r}")
        for name in ports.required
        if name in test_input
    ]
    if not ports.is_open:
        candidates.append(({**test_input, "undeclared_input": 1}, "an undeclared input"))
    for name in ports.inputs:
        wrong = {"not": ["what", "is"], "declared": None}
        candidates.append(({**test_input, name: wrong}, f"an object as {name!r}"))
    for candidate, what in candidates:
        if ports.errors(candidate):
            yield candidate, what


def _copied(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return value


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, np.ndarray):
        return (
            isinstance(after, np.ndarray)
            and before.dtype == after.dtype
            and before.shape == after.shape
            and before.tobytes() == after.tobytes()
        )
    if isinstance(before, list | tuple):
        return (
            type(before) is type(after)
            and len(before) == len(after)
            and all(_same(*pair) for pair in zip(before, after, strict=True))
        )
    if isinstance(before, dict):
        return (
            isinstance(after, dict)
            and before.keys() == after.keys()
            and all(_same(value, after[key]) for key, value in before.items())
        )
    return before is after or bool(before == after)
