"""Reading a schema: what it declares, and whether it is valid.

One schema describes an artifact completely: JSON Schema 2020-12 for its parameters, ``x-tensor`` for its array inputs,
``x-outputs`` for its outputs, and ``x-main`` for the input and output that a chain connects by default.
``x-operations`` names the inputs that each value of ``operation`` requires. ``x-hashable`` marks an input that is any
hashable object in the process and text over a network.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from zerocost.core.datatypes import DATATYPES, list_datatype
from zerocost.errors import InvalidSchema, closest, pointer, shortened

__all__ = ["ANNOTATIONS", "Declaration", "Errors", "Schema", "compiled", "is_unconstrained", "requirements"]

Schema = dict[str, Any]
Errors = list[tuple[str, str]]

ANNOTATIONS = frozenset({"title", "description", "default", "examples", "deprecated", "$comment"})
"""Keywords that do not constrain values."""

_ALONE = frozenset({"$schema", "$id", "$defs", "definitions", "type", "properties", "required", "additionalProperties"})
"""Keywords of a schema that do not relate several inputs."""

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_MOST_ERRORS = 20


class Declaration:
    """What a schema declares.

    Attributes:
        schema: a copy of the artifact's schema, so that later changes of that have no effect.
        inputs: every declared input with its subschema.
        required: the inputs that must be given.
        outputs: every declared output with its subschema; None if the schema has no ``x-outputs``.
        main_input: the input that a chain binds to the main output of the step before.
        main_output: None if it is unknown before the first run (then it is the first key of the result).
        is_open: whether undeclared keys are accepted.
        parts: the inputs (``x-parts``) that set the number of output arrays; servers bound them.
        operations: the inputs that each ``operation`` requires; empty if the schema has no ``x-operations``.
        keys: the inputs that are any hashable object in the process, and text over a network (``x-hashable``).
        in_process: the inputs that have no meaning over a network (``x-in-process``).
        is_deterministic: whether equal inputs give equal outputs; False for ``"x-deterministic": false``.

    Raises:
        InvalidSchema: an invalid ``x-`` keyword.
    """

    def __init__(self, schema: Schema) -> None:
        if not isinstance(schema, dict):
            raise InvalidSchema(f"get_schema returned {type(schema).__name__}, a dict is needed")
        schema = _copied(schema)
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
        self.schema = schema
        self.inputs: dict[str, Schema] = {name: sub if isinstance(sub, dict) else {} for name, sub in inputs.items()}
        self.required = tuple(required)
        self.outputs = outputs
        self.main_input: str | None = main.get("input", next(iter(required), None))
        self.main_output: str | None = main.get("output", next(iter(outputs), None) if outputs else None)
        self.is_open = "properties" not in schema or schema.get("additionalProperties") not in (None, False)
        self.parts = tuple(name for name, sub in self.inputs.items() if sub.get("x-parts"))
        self.operations = _operations(schema, self.inputs)
        self.keys = tuple(name for name, sub in self.inputs.items() if sub.get("x-hashable"))
        self.in_process = frozenset(name for name, sub in self.inputs.items() if sub.get("x-in-process"))
        self.is_deterministic = schema.get("x-deterministic") is not False
        if self.main_input is not None and self.main_input not in inputs and not self.is_open:
            raise InvalidSchema(f"x-main names the input {self.main_input!r}; {closest(self.main_input, inputs)}")
        if self.main_output is not None and outputs is not None and self.main_output not in outputs:
            raise InvalidSchema(f"x-main names the output {self.main_output!r}; {closest(self.main_output, outputs)}")
        for name, subschema in (*inputs.items(), *(outputs or {}).items()):
            _check_tensor_keyword(name, subschema)

    def check_schema(self) -> None:
        """Raises InvalidSchema if this is not a valid JSON Schema 2020-12."""
        import jsonschema_rs  # 10 ms that `import zerocost` does not pay

        try:
            jsonschema_rs.meta.validate({"$schema": _DRAFT, **self.schema})
        except jsonschema_rs.ValidationError as error:
            raise _invalid_schema(error) from error
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise InvalidSchema(str(error)) from error
        if self.schema.get("$schema", _DRAFT) != _DRAFT:
            raise InvalidSchema(f"$schema: {self.schema['$schema']!r} was given, {_DRAFT!r} is needed")

    @property
    def published(self) -> Schema:
        """The schema for callers on a network: without the inputs that have no meaning there (``x-in-process``)."""
        if not self.in_process:
            return self.schema
        return {**self.schema, "properties": {k: v for k, v in self.inputs.items() if k not in self.in_process}}

    def is_tensor(self, name: str) -> bool:
        """Whether the input is declared with ``x-tensor``."""
        return "x-tensor" in self.inputs.get(name, {})

    def datatypes(self, name: str) -> tuple[str, ...] | None:
        """The declared datatypes of a tensor input; None for any."""
        declared = self.inputs[name]["x-tensor"].get("datatypes")
        return None if declared is None else tuple(declared)

    def is_looked_at(self, name: str) -> bool:
        """Whether JSON Schema does not validate the input: tensors, keys, the operation."""
        return self.is_tensor(name) or name in self.keys or (name == "operation" and bool(self.operations))

    @cached_property
    def joint(self) -> Schema:
        """The keywords that relate several inputs, except conditions that ``x-operations`` expresses too."""
        joint = {
            key: value for key, value in self.schema.items() if key not in _ALONE and not is_unconstrained({key: 0})
        }
        if self.operations and "allOf" in joint:
            said = requirements(self.operations, self.inputs.get("operation", {}).get("default"))
            joint["allOf"] = [condition for condition in joint["allOf"] if condition not in said]
            if not joint["allOf"]:
                del joint["allOf"]
        return joint

    @cached_property
    def lists(self) -> dict[str, tuple[str, bool, bool]]:
        """What lists become for each tensor input; see :func:`zerocost.core.datatypes.list_datatype`."""
        return {name: list_datatype(self.datatypes(name)) for name in self.inputs if self.is_tensor(name)}

    def undeclared(self, names: Iterable[object]) -> Errors:
        """One error for each name that is not an input; it suggests the nearest one."""
        unknown = [
            name for name in names if not isinstance(name, str) or (not self.is_open and name not in self.inputs)
        ]
        errors = [
            (pointer(str(name)), f"{shortened(str(name))!r} is not an input; {closest(str(name), self.inputs)}")
            for name in unknown[:_MOST_ERRORS]
        ]
        if len(unknown) > _MOST_ERRORS:
            errors.append(("", f"{len(unknown) - _MOST_ERRORS} more names are not inputs"))
        return errors


def requirements(operations: dict[str, tuple[str, ...]], default: str | None) -> list[Schema]:
    """``x-operations`` as standard JSON Schema: the members of ``allOf``."""
    conditions: list[Schema] = [
        {
            "if": {"properties": {"operation": {"const": operation}}, "required": ["operation"]},
            "then": {"required": list(needed)},
        }
        for operation, needed in operations.items()
        if needed
    ]
    if default is not None and operations.get(default):
        needed = list(operations[default])
        conditions.append({"if": {"not": {"required": ["operation"]}}, "then": {"required": needed}})
    return conditions


def compiled(schema: Schema) -> Any:
    """The validator of a schema; raises InvalidSchema for invalid patterns and references."""
    import jsonschema_rs  # 10 ms that `import zerocost` does not pay

    try:
        return jsonschema_rs.Draft202012Validator(schema)
    except jsonschema_rs.ValidationError as error:
        raise _invalid_schema(error) from error
    except jsonschema_rs.ReferencingError as error:
        raise InvalidSchema(str(error)) from error


def is_unconstrained(subschema: Any) -> bool:
    """Whether every value fits a subschema."""
    return subschema is True or (
        isinstance(subschema, dict) and all(key in ANNOTATIONS or key.startswith("x-") for key in subschema)
    )


def _mapping(schema: Schema, key: str) -> dict[str, Any]:
    value = schema.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InvalidSchema(f"{key!r} must be an object")
    return value


def _operations(schema: Schema, inputs: dict[str, Schema]) -> dict[str, tuple[str, ...]]:
    operations = _mapping(schema, "x-operations")
    for operation, needed in operations.items():
        if not isinstance(needed, list | tuple) or not all(isinstance(name, str) for name in needed):
            raise InvalidSchema(f"x-operations: {operation!r} must have a list of the inputs that it requires")
        for name in needed:
            if name not in inputs:
                raise InvalidSchema(f"x-operations: {operation!r} requires {name!r}; {closest(name, inputs)}")
    return {name: tuple(needed) for name, needed in operations.items()}


def _copied(value: Any) -> Any:
    """A copy of the objects and lists; other values of a schema are immutable."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


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
    extra = set(subschema) - {"x-tensor", "x-in-process"} - ANNOTATIONS
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


def _invalid_schema(error: Any) -> InvalidSchema:
    return InvalidSchema(f"{pointer(*error.instance_path) or 'the schema'}: {error.message}")
