"""Binding: from the values that a caller gives to the inputs that an artifact gets.

Every call of an artifact goes through :meth:`Ports.bind`. Checks that are compiled from the schema once accept values
that fit as they are. Values that they do not accept are converted (lists to arrays, for one) and checked again. Values
that still do not fit are refused, with a message that says what was given, what is allowed and where. The artifact gets
the very arrays that were checked.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from zerocost.core.arrays import as_tensor
from zerocost.core.limits import Limits
from zerocost.core.ports.bound import Bound, ChecksWithDefault, Condition, acceptor
from zerocost.core.ports.checks import Check, anything, hashable, plain_check
from zerocost.core.ports.parameters import Parameters, from_text, unboxed
from zerocost.core.ports.schema import Declaration, Errors, Schema, is_unconstrained
from zerocost.core.ports.tensors import Sizes, agreement, match_shape, tensor_check
from zerocost.errors import (
    DatatypeError,
    InvalidInput,
    InvalidSchema,
    LimitExceeded,
    MissingInput,
    RangeError,
    ShapeError,
    UndeclaredInput,
    UnknownOperation,
    merged,
)

__all__ = ["Ports"]


class Ports(Declaration):
    """An artifact's inputs and outputs, and the binding of its inputs.

    Args:
        schema: the artifact's.
        owner: the artifact. It is asked for its own checks beyond the schema, and for the bounds that limits need.

    Raises:
        InvalidSchema: an invalid ``x-`` keyword.
    """

    def __init__(self, schema: Schema, owner: Any = None) -> None:
        super().__init__(schema)
        self._set_owner(owner)

    def _set_owner(self, owner: Any) -> None:
        self._accepts: Condition = self._compile_and_accept
        # A weak reference: the artifact holds its ports.
        self._owner = None if owner is None else weakref.ref(owner)
        self._has_more = owner is not None and owner._asks_more

    def __getstate__(self) -> dict[str, Any]:
        """The schema and the owner; everything else is made again from them."""
        return {"schema": self.schema, "owner": None if self._owner is None else self._owner()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Declaration.__init__(self, state["schema"])
        self._set_owner(state["owner"])

    def bind(self, values: Mapping[str, Any], limits: Limits | None = None) -> Bound:
        """The inputs of one call, as the artifact gets them. The caller's dict and arrays stay unchanged.

        Declared tensors become arrays, from nested lists, the buffer protocol, DLPack and ``__array__``; nothing is
        copied where NumPy needs no copy. Everything else is passed on, the same objects.

        Args:
            values: inputs by name. Inputs that were bound here before are returned as they are.
            limits: of a server, for a call over a network. Then inputs that have a meaning in the process only are
                refused, keys must be text, and ``"NaN"`` and ``"Infinity"`` are numbers.

        Raises:
            UndeclaredInput: a name that the schema does not declare; the message suggests the nearest one.
            MissingInput: a required input is missing.
            DatatypeError, ShapeError, RangeError, InvalidInput: an input that does not fit.
            LimitExceeded: the outputs would exceed the limits. Nothing has been computed.
        """
        kind = type(values)
        if kind is dict:
            bound = Bound(values)
        elif kind is Bound and getattr(values, "ports", None) is self:
            return values  # type: ignore[return-value]  # mypy does not see what kind is
        else:
            bound = Bound(_as_dict(values))
        if not self._accepts(bound):
            self._convert(bound, partial=False, is_remote=limits is not None)
        bound.ports = self
        if self._has_more:
            self._ask_owner(bound)
        if limits is not None:
            self._check_remote(bound)
            self.check_limits(bound, limits)
        return bound

    def bind_partial(self, values: Mapping[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """As :meth:`bind`, for some of the inputs: the parameters of a chain's step or of a service's artifact."""
        some = Bound(_as_dict(values))
        if not self._accepts_some(some):
            self._convert(some, partial=True, is_remote=limits is not None)
        if limits is not None:
            self._check_remote(some)
        return dict(some)

    def errors(self, values: Mapping[str, Any]) -> Errors:
        """Every way in which inputs break the schema, as (JSON pointer, message). The owner's checks are not run."""
        if type(values) is Bound and getattr(values, "ports", None) is self:
            return []
        try:
            bound = Bound(_as_dict(values))
            if not self._accepts(bound):
                self._convert(bound, partial=False, is_remote=False)
        except InvalidInput as error:
            return error.errors
        return []

    def check_schema(self) -> None:
        """Raises InvalidSchema if this is not a valid JSON Schema 2020-12, or if a default breaks it."""
        super().check_schema()
        _ = self._parameters  # patterns and references are checked when they are compiled
        for name, subschema in self.inputs.items():
            if "default" in subschema and name not in self.in_process:
                try:
                    self.bind_partial({name: subschema["default"]})
                except InvalidInput as error:
                    raise InvalidSchema(f"the default of {error}") from error

    @cached_property
    def _tensors(self) -> dict[str, dict[str, Any]]:
        return {name: subschema["x-tensor"] for name, subschema in self.inputs.items() if "x-tensor" in subschema}

    @cached_property
    def _parameters(self) -> Parameters:
        return Parameters(self)

    def _compile_and_accept(self, values: Mapping[str, Any]) -> bool:
        """Is ``_accepts`` until its first call: a plain attribute is found faster than a cached property."""
        checks, is_complete = self._checks
        conditions: list[Condition | None] = [agreement(self._tensors)]
        if self.operations:
            conditions.append(self._operation_check())
        if self.joint or not is_complete:
            conditions.append(lambda values: not self._parameters.problems(values, partial=False))
        self._accepts = acceptor(checks, self.required, tuple(filter(None, conditions)))
        return self._accepts(values)

    @cached_property
    def _accepts_some(self) -> Condition:
        return acceptor(self._checks[0], (), ())

    @cached_property
    def _checks(self) -> tuple[Mapping[str, Check], bool]:
        """The check of each input, and whether these checks cover all that the schema says about single inputs."""
        checks: dict[str, Check | None] = {}
        for name, subschema in self.schema.get("properties", {}).items():
            if self.is_tensor(name):
                checks[name] = tensor_check(subschema["x-tensor"], is_required=name in self.required)
            elif self.is_looked_at(name):
                checks[name] = hashable if name in self.keys else anything
            else:
                checks[name] = plain_check(subschema)
        declared = {name: check or anything for name, check in checks.items()}
        if not self.is_open:
            return declared, None not in checks.values()
        additional = self.schema.get("additionalProperties")
        others = plain_check(additional) if isinstance(additional, dict) else anything
        return ChecksWithDefault(declared, others or anything), others is not None and None not in checks.values()

    def _convert(self, bound: Bound, *, partial: bool, is_remote: bool) -> None:
        """Converts tensors to arrays and text to numbers; raises InvalidInput if the inputs do not fit even then."""
        problems: list[InvalidInput] = []
        declared = bound.keys() & self.inputs.keys()
        if isinstance(self.schema.get("additionalProperties"), dict):
            for name in bound.keys() - declared:
                bound[name] = unboxed(bound[name])
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for name in [name for name in bound if name in declared]:
            value = bound[name]
            if name not in self._tensors:
                if isinstance(value, np.generic) and not is_unconstrained(self.inputs[name]):
                    bound[name] = unboxed(value)
                elif is_remote:
                    bound[name] = from_text(value, self.inputs[name])
            elif value is not None:
                try:
                    bound[name] = arrays[name] = self._array(name, value)
                except InvalidInput as error:
                    problems.append(error)
        if not problems and not partial and self._accepts(bound):
            return
        undeclared = self.undeclared(bound)
        problems[:0] = [UndeclaredInput(message, errors=[(where, message)]) for where, message in undeclared]
        if not partial:
            problems += [
                MissingInput(f"{name} required", name)
                for name in self.required
                if name not in bound or (bound[name] is None and name in self._tensors)
            ]
        sizes: Sizes = {}
        for name in (name for name in self._tensors if name in arrays):  # in the order of the schema
            try:
                match_shape(name, arrays[name].shape, self._tensors[name].get("shape"), sizes)
            except ShapeError as error:
                problems.append(error)
        if self.operations and not (partial and "operation" not in bound):
            problems += self._operation_problems(bound, partial=partial)
        problems += [
            DatatypeError(f"{name}: {type(bound[name]).__name__} was given, a hashable object is needed", name)
            for name in self.keys
            if name in bound and not hashable(bound[name])
        ]
        problems += self._parameters.problems(bound, partial=partial)
        if problems:
            raise merged(problems)

    def _array(self, name: str, value: Any) -> np.ndarray[Any, Any]:
        tensor = self._tensors[name]
        array = as_tensor(value, name, self.datatypes(name))
        return array if type(array) is np.ndarray or not tensor else np.asarray(array)

    def _operation_check(self) -> Condition:
        default, operations = self.inputs.get("operation", {}).get("default"), self.operations

        def is_complete(values: Mapping[str, Any]) -> bool:
            operation = values.get("operation", default)
            needed = operations.get(operation) if type(operation) is str else None
            return needed is not None and all(name in values for name in needed)

        return is_complete

    def _operation_problems(self, values: Mapping[str, Any], *, partial: bool = False) -> list[InvalidInput]:
        operation = values.get("operation", self.inputs.get("operation", {}).get("default"))
        if not isinstance(operation, str) or operation not in self.operations:
            known = ", ".join(self.operations)
            return [UnknownOperation(f"Unknown operation: {operation}; there are {known}", "operation")]
        if partial:
            return []
        return [
            MissingInput(f"{name} required for {operation!r}", name)
            for name in self.operations[operation]
            if name not in values
        ]

    def _ask_owner(self, bound: Bound) -> None:
        owner = None if self._owner is None else self._owner()
        if owner is not None:
            owner._check_bound(bound)

    def _check_remote(self, values: Mapping[str, Any]) -> None:
        """Raises UndeclaredInput for inputs of the process only, DatatypeError for keys that are not text."""
        if not self.in_process.isdisjoint(values):
            raise merged(
                [
                    UndeclaredInput(f"{name!r} is for callers in the same process only", name)
                    for name in values
                    if name in self.in_process
                ]
            )
        for name in self.keys:
            if not isinstance(values.get(name, ""), str):
                kind = type(values[name]).__name__
                raise DatatypeError(f"{name}: {kind} was given, text is needed", name)

    def check_limits(self, bound: Bound, limits: Limits) -> None:
        """Checks limits as :meth:`bind` does, for inputs that a server's request caused but did not carry.

        Raises:
            RangeError: an input that sets the number of output arrays is too large.
            LimitExceeded: the outputs or the work would exceed the limits.
        """
        for name in self.parts:
            parts = bound.get(name)
            if isinstance(parts, int) and parts > limits.parts:
                raise RangeError(f"{name}: {parts} was given, at most {limits.parts} is allowed here", name)
        owner = None if self._owner is None else self._owner()
        if owner is None:
            return
        operations = owner.operations(bound)
        if operations is not None and operations > limits.operations:
            raise LimitExceeded(f"this would take {operations} operations, {limits.operations} are allowed")
        elements = owner.output_elements(bound)
        if elements is not None and elements > limits.elements:
            raise LimitExceeded(f"the outputs would have {elements} elements, {limits.elements} are allowed")


def _as_dict(values: Any) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        message = f"input_data: {type(values).__name__} was given, a dict is needed"
        raise DatatypeError(message, "input_data", [("", message)])
    return values
