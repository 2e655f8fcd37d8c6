"""Reading a schema: its ports, and what breaks it.

One schema says everything about an artifact: JSON Schema 2020-12 for its parameters, ``x-tensor`` on its array inputs,
``x-outputs`` and ``x-main`` for what comes out and what a chain connects by default. Array inputs are never run through
JSON Schema: they are checked by dtype and shape.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from zerocost.core.arrays import DATATYPES, as_tensor
from zerocost.core.violations import violation
from zerocost.errors import DatatypeError, InvalidInput, InvalidSchema, MissingInput, ShapeError, UndeclaredInput

__all__ = ["Ports", "closest", "pointer", "shortened"]

Schema = dict[str, Any]
Errors = list[tuple[str, str]]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_LONGEST_NAME = 100
_MOST_ERRORS = 20
_FEW_VALUES = 1000
_SCALARS = (str, bool, int, float)
_ANNOTATIONS = frozenset({"title", "description", "default", "examples", "deprecated", "$comment"})


def pointer(*path: str | int) -> str:
    """The JSON pointer (RFC 6901) of a path."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def shortened(name: str) -> str:
    """A name that a caller gave, as much of it as a message needs."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def closest(name: str, names: Iterable[str]) -> str:
    """What a message about an unknown name ends with: the nearest known one, or all of them where they are few."""
    known = sorted(names)
    # Comparing takes the product of the lengths.
    near = difflib.get_close_matches(name[:_LONGEST_NAME], known, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(candidate) for candidate in near)}?"
    if not known:
        return "there are none"
    if len(known) <= 12:
        return f"there are {', '.join(repr(candidate) for candidate in known)}"
    return f"there are {len(known)} others"


@dataclass(frozen=True)
class Ports:
    """What goes into an artifact and what comes out, read from its schema.

    Attributes:
        schema: the schema as the artifact gave it.
        inputs: every declared input with its subschema.
        required: the inputs that must be given.
        outputs: every declared output with its subschema; None where the schema declares none.
        main_input: the input that a chain binds to the main output of the step before.
        main_output: None where it is not known before the first run (then it is the first key of the result).
        is_open: whether undeclared keys are received as well.
        parts: the inputs (``x-parts``) that say how many arrays the outputs have; servers bound them.
    """

    schema: Schema
    inputs: dict[str, Schema] = field(init=False)
    required: tuple[str, ...] = field(init=False)
    outputs: dict[str, Schema] | None = field(init=False)
    main_input: str | None = field(init=False)
    main_output: str | None = field(init=False)
    is_open: bool = field(init=False)
    parts: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        schema = self.schema
        if not isinstance(schema, dict):
            raise InvalidSchema(f"get_schema returned {type(schema).__name__}, a dict is needed")
        _refuse_remote_references(schema)
        inputs = _mapping(schema, "properties")
        outputs = _mapping(schema, "x-outputs") if "x-outputs" in schema else None
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise InvalidSchema("'required' must be a list of names")
        main = _mapping(schema, "x-main")
        unknown = set(main) - {"input", "output"}
        if unknown:
            raise InvalidSchema(f"x-main has {sorted(unknown)}, only 'input' and 'output' are known")
        main_input = main.get("input", next(iter(required), None))
        main_output = main.get("output", next(iter(outputs), None) if outputs else None)
        is_open = "properties" not in schema or schema.get("additionalProperties") not in (None, False)
        if main_input is not None and main_input not in inputs and not is_open:
            raise InvalidSchema(f"x-main names the input {main_input!r}; {closest(main_input, inputs)}")
        if main_output is not None and outputs is not None and main_output not in outputs:
            raise InvalidSchema(f"x-main names the output {main_output!r}; {closest(main_output, outputs)}")
        for name, subschema in (*inputs.items(), *(outputs or {}).items()):
            _check_tensor_keyword(name, subschema)
        for name, value in (
            ("inputs", {key: value if isinstance(value, dict) else {} for key, value in inputs.items()}),
            ("outputs", outputs),
            ("required", tuple(required)),
            ("main_input", main_input),
            ("main_output", main_output),
            ("is_open", is_open),
            ("parts", tuple(name for name, sub in inputs.items() if isinstance(sub, dict) and sub.get("x-parts"))),
        ):
            object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: everything but the compiled validators, which are made again there."""
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def check_schema(self) -> None:
        """Raises InvalidSchema if this is no valid JSON Schema 2020-12."""
        import jsonschema_rs  # 10 ms that `import zerocost` does not pay

        try:
            jsonschema_rs.meta.validate({"$schema": _DRAFT, **self.schema})
        except jsonschema_rs.ValidationError as error:
            raise _invalid_schema(error) from error
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise InvalidSchema(str(error)) from error
        if self.schema.get("$schema", _DRAFT) != _DRAFT:
            raise InvalidSchema(f"$schema: {self.schema['$schema']!r} was given, {_DRAFT!r} is needed")
        _ = self._validator  # patterns and references are checked when it is compiled

    @property
    def published(self) -> Schema:
        """The schema for callers on a network: without the inputs that mean nothing there (``x-in-process``)."""
        kept = {name: sub for name, sub in self.inputs.items() if not sub.get("x-in-process")}
        if len(kept) == len(self.inputs):
            return self.schema
        return {**self.schema, "properties": kept}

    def is_tensor(self, name: str) -> bool:
        """Whether the input is declared with ``x-tensor``."""
        return "x-tensor" in self.inputs.get(name, {})

    @cached_property
    def in_process(self) -> frozenset[str]:
        """The inputs that have no meaning over a network (``x-in-process``)."""
        return frozenset(name for name, subschema in self.inputs.items() if subschema.get("x-in-process"))

    def datatypes(self, name: str) -> tuple[str, ...] | None:
        """The datatypes that a tensor input declares; None for any."""
        declared = self.inputs[name]["x-tensor"].get("datatypes")
        return None if declared is None else tuple(declared)

    def undeclared(self, names: Iterable[str]) -> Errors:
        """One error for each name that is not an input, with the nearest one that is."""
        if self.is_open:
            return []
        unknown = [name for name in names if name not in self.inputs]
        errors = [
            (pointer(name), f"{shortened(str(name))!r} is not an input; {closest(str(name), self.inputs)}")
            for name in unknown[:_MOST_ERRORS]
        ]
        if len(unknown) > _MOST_ERRORS:
            errors.append(("", f"{len(unknown) - _MOST_ERRORS} more names are not inputs"))
        return errors

    def errors(self, values: Mapping[str, Any], *, partial: bool = False) -> Errors:
        """Every way in which ``values`` break the schema, as (JSON pointer, message).

        Args:
            values: inputs by name.
            partial: whether required inputs may still be missing (the parameters of a chain's step).
        """
        return [error for problem in self.problems(values, partial=partial) for error in problem.errors]

    def problems(self, values: Mapping[str, Any], *, partial: bool = False) -> list[InvalidInput]:
        """As :meth:`errors`, each as the exception that a caller in the process would see."""
        problems: list[InvalidInput] = []
        if not values.keys() <= self.inputs.keys():
            problems += [
                UndeclaredInput(message, errors=[(where, message)]) for where, message in self.undeclared(values)
            ]
        if not partial:
            problems += [
                MissingInput(f"{name} required", name)
                for name in self.required
                if values.get(name) is None and not (name in values and not self.is_tensor(name))
            ]
        problems += self._tensor_problems(values)
        parameters: dict[str, Any] = {}
        constrained = self._constrained
        for name, value in values.items():
            subschema = constrained.get(name) if name in self.inputs else self._undeclared_schema
            if subschema is None or (name not in self.inputs and _is_unconstrained(subschema)):
                parameters[name] = True  # that it is there may matter; what it is may not even be JSON
                continue
            try:
                parameters[name] = _as_json(value)
            except TypeError as error:
                problems.append(DatatypeError(f"{name}: {error}", name))
                continue
            may_differ = name not in self.inputs or name in self._whole
            if may_differ and _is_fraction_for_integer(parameters[name], subschema):
                # JSON Schema takes 2.0 for an integer; a signature that says int does not.
                problems.append(DatatypeError(f"{name}: {value!r} was given, a whole number is needed", name))
        validator = self._partial_validator if partial else self._validator
        if not validator.is_valid(parameters):
            problems += [violation(error, parameters, self.inputs) for error in _violations(validator, parameters)]
        return problems

    @cached_property
    def _constrained(self) -> dict[str, Schema]:
        """The inputs that JSON Schema has something to say about."""
        return {
            name: subschema
            for name, subschema in self.inputs.items()
            if "x-tensor" not in subschema and not _is_unconstrained(subschema)
        }

    @cached_property
    def _whole(self) -> frozenset[str]:
        """The inputs that may have to be whole numbers, or lists of them."""
        return frozenset(name for name, subschema in self._constrained.items() if "integer" in str(subschema))

    @cached_property
    def _tensors(self) -> dict[str, tuple[tuple[str, ...] | None, list[str | int] | None]]:
        """Datatypes and shape of each tensor."""
        return {
            name: (self.datatypes(name), self.inputs[name]["x-tensor"].get("shape"))
            for name in self.inputs
            if self.is_tensor(name)
        }

    @property
    def _undeclared_schema(self) -> Schema:
        schema = self.schema.get("additionalProperties")
        return schema if isinstance(schema, dict) else {}

    @cached_property
    def _validator(self) -> Any:
        return _compile(self._reduced())

    @cached_property
    def _partial_validator(self) -> Any:
        # What depends on several inputs at once cannot be judged before all of them are there.
        keywords = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas")
        return _compile({key: value for key, value in self._reduced().items() if key not in keywords})

    def _reduced(self) -> Schema:
        """The schema as JSON Schema sees it.

        Tensors, `required` and undeclared names at the top are checked in :meth:`errors`, whose messages name them.
        """
        reduced = {key: value for key, value in self.schema.items() if key != "required"}
        if not isinstance(reduced.get("additionalProperties"), dict):
            reduced.pop("additionalProperties", None)
        if "properties" in reduced:
            reduced["properties"] = {
                name: True if self.is_tensor(name) or _is_unconstrained(sub) else sub
                for name, sub in self.schema["properties"].items()
            }
        return reduced

    def _tensor_problems(self, values: Mapping[str, Any]) -> list[InvalidInput]:
        problems: list[InvalidInput] = []
        sizes: dict[str, tuple[int, str]] = {}
        tensors = self._tensors
        for name, value in values.items():
            if value is None or name not in tensors:
                continue
            datatypes, shape = tensors[name]
            try:
                array = as_tensor(value, name, datatypes)
                match_shape(name, array.shape, shape, sizes)
            except (DatatypeError, ShapeError) as error:
                problems.append(error)
        return problems


def match_shape(
    name: str, shape: tuple[int, ...], declared: list[str | int] | None, sizes: dict[str, tuple[int, str]]
) -> None:
    """Raises ShapeError if ``shape`` does not fit ``declared``; equal symbols must agree within ``sizes``.

    Args:
        name: the tensor's name.
        shape: its shape.
        declared: a list of sizes and symbols; ``"..."`` in front stands for any leading axes, -1 for any size.
        sizes: what the symbols stand for so far, with the tensor that said so. Symbols seen here are added.
    """
    if declared is None:
        return
    axes = declared[1:] if declared[:1] == ["..."] else declared
    if len(shape) < len(axes) or (axes is declared and len(shape) != len(axes)):
        raise _wrong_shape(name, shape, declared)
    for axis, length in zip(axes, shape[len(shape) - len(axes) :], strict=True):
        if isinstance(axis, int):
            if axis not in (-1, length):
                raise _wrong_shape(name, shape, declared)
        else:
            known, origin = sizes.setdefault(axis, (length, name))
            if known != length:
                detail = "" if origin == name else f" with {axis} = {known} as in {origin}"
                raise _wrong_shape(name, shape, declared, detail)


def _wrong_shape(name: str, shape: tuple[int, ...], declared: list[str | int], detail: str = "") -> ShapeError:
    text = "[" + ", ".join(str(axis) for axis in declared) + "]"
    return ShapeError(f"{name}: shape {list(shape)} was given, {text} is needed{detail}", name)


def _mapping(schema: Schema, key: str) -> dict[str, Any]:
    value = schema.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InvalidSchema(f"{key!r} must be an object")
    return value


def _check_tensor_keyword(name: str, subschema: Any) -> None:
    if not isinstance(subschema, dict) or "x-tensor" not in subschema:
        return
    tensor = subschema["x-tensor"]
    if not isinstance(tensor, dict) or set(tensor) - {"datatypes", "shape"}:
        raise InvalidSchema(f"{name}: x-tensor must be an object with at most 'datatypes' and 'shape'")
    datatypes = tensor.get("datatypes")
    if datatypes is not None and (not datatypes or any(datatype not in DATATYPES for datatype in datatypes)):
        raise InvalidSchema(f"{name}: x-tensor datatypes {datatypes!r}; allowed are {', '.join(DATATYPES)}")
    shape = tensor.get("shape")
    if shape is not None and not (
        isinstance(shape, list)
        and all(
            (isinstance(axis, int) and axis >= -1 and not isinstance(axis, bool)) or (isinstance(axis, str) and axis)
            for axis in shape
        )
        and "..." not in shape[1:]
    ):
        raise InvalidSchema(f"{name}: x-tensor shape {shape!r} must list sizes and symbols, '...' only in front")
    extra = set(subschema) - {"x-tensor", "x-in-process"} - _ANNOTATIONS
    if extra:
        raise InvalidSchema(
            f"{name}: {', '.join(sorted(extra))} beside x-tensor; nothing but dtype and shape is checked"
        )


def _refuse_remote_references(value: Any) -> None:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            raise InvalidSchema(f"$ref {reference!r}: only references within the schema ('#…') are followed")
        for item in value.values():
            _refuse_remote_references(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_remote_references(item)


def _is_unconstrained(subschema: Schema) -> bool:
    return all(key in _ANNOTATIONS or key.startswith("x-") for key in subschema)


def _compile(schema: Schema) -> Any:
    import jsonschema_rs  # 10 ms that `import zerocost` does not pay

    try:
        return jsonschema_rs.Draft202012Validator(schema)
    except jsonschema_rs.ValidationError as error:
        raise _invalid_schema(error) from error
    except jsonschema_rs.ReferencingError as error:
        raise InvalidSchema(str(error)) from error


def _invalid_schema(error: Any) -> InvalidSchema:
    return InvalidSchema(f"{pointer(*error.instance_path) or 'the schema'}: {error.message}")


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


def _as_json(value: Any) -> Any:
    """The value as JSON Schema can look at it: NumPy scalars and arrays unwrapped, tuples as arrays."""
    if value is None or isinstance(value, _SCALARS):
        return value
    if isinstance(value, np.floating):
        return float(str(value))  # the number that it prints as
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} was given, which is no JSON value")


def _is_fraction_for_integer(value: Any, subschema: Schema) -> bool:
    """Whether a float stands where only an integer, or a list of them, is meant."""
    options = subschema.get("anyOf", [subschema])
    kinds = {kind for option in options for kind in _kinds(option)}
    if isinstance(value, float):
        return "integer" in kinds and "number" not in kinds
    if isinstance(value, list):
        items = [item for option in options for item in (*option.get("prefixItems", ()), option.get("items"))]
        elements = {kind for item in items if isinstance(item, dict) for kind in _kinds(item)}
        fractions = any(isinstance(item, float) for item in value)
        return fractions and "integer" in elements and "number" not in elements
    return False


def _kinds(subschema: Schema) -> list[str]:
    kinds = subschema.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)
