"""Whether an artifact keeps the contract: signatures, schema, results on generated input, and refusals."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from zerocost.core.artifact import Artifact, coroutine_methods
from zerocost.core.datatypes import datatype_of
from zerocost.core.execution_context import ExecutionContext
from zerocost.core.generated_input import generated_input
from zerocost.core.ports import Ports
from zerocost.core.ports.tensors import match_shape
from zerocost.errors import InvalidInput, InvalidSchema

__all__ = ["ArtifactValidator", "Serve"]

Serve = Callable[[str, Artifact], Callable[[dict[str, Any]], dict[str, Any]]]
"""Serves an artifact under a name, and returns a function that calls it there."""

_NAME = "test"


class ArtifactValidator:
    """Validates artifact implementations.

    Args:
        seed: of generated input.
        serve: serves the artifact over a real or simulated network; then the served result is compared as well.
    """

    def __init__(self, seed: int = 0, serve: Serve | None = None) -> None:
        self.seed = seed
        self.serve = serve

    def validate_artifact(self, artifact: Artifact) -> tuple[bool, str]:
        """Checks that ``artifact`` keeps the contract.

        In this order: the methods and their signatures; the schema (valid JSON Schema 2020-12 with valid ``x-``
        keywords); generated input against the schema; two runs on it (dicts with the declared outputs, the same bits
        unless the schema says ``"x-deterministic": false``, the input dict and its arrays unchanged); one run of a
        served copy; and that ``validate_input`` refuses inputs that break the schema.

        Returns:
            Whether it does, and ``"Valid artifact"`` or the first problem.
        """
        for method in ("execute", "get_schema"):
            if not callable(getattr(artifact, method, None)):
                return False, f"Missing {method} method"
        problem = _signature_problem(artifact)
        if problem:
            return False, problem
        try:
            ports = artifact._ports if isinstance(artifact, Artifact) else Ports(artifact.get_schema())
            ports.check_schema()
        except InvalidSchema as error:
            return False, f"Invalid schema: {error}"
        except (Exception, SystemExit) as error:  # a third-party get_schema may raise anything
            return False, f"get_schema failed: {error}"
        try:
            test_input = self.generate_test_input(ports.schema)
            broken = _refusal(ports, test_input)
            if broken:
                return False, f"No valid input could be generated, give 'examples' in the schema: {broken}"
            problem = self._run_problem(artifact, ports, test_input)
        except (Exception, SystemExit) as error:  # a third-party execute may raise anything
            return False, f"Execution failed: {error}"
        if problem:
            return False, problem
        for breaking, what in _breaking_inputs(ports, test_input):
            try:
                accepted = artifact.validate_input(breaking)
            except (Exception, SystemExit) as error:  # validate_input must return, not raise
                return False, f"validate_input raised {type(error).__name__} for {what}: {error}"
            if accepted:
                return False, f"validate_input accepts {what}"
        return True, "Valid artifact"

    def generate_test_input(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """An input that fits ``schema``; see :func:`zerocost.core.generated_input.generated_input`."""
        return generated_input(schema, self.seed)

    def _run_problem(self, artifact: Artifact, ports: Ports, test_input: dict[str, Any]) -> str | None:
        bound = ports.bind(test_input)
        before = {name: _copied(value) for name, value in bound.items()}
        result = artifact.execute(bound, ExecutionContext(_NAME, "test", "zero_cost", {}))
        if not isinstance(result, dict):
            return "execute must return dict"
        changed = sorted(
            str(name)
            for name in before.keys() | bound.keys()
            if name not in before or name not in bound or not _same(before[name], bound[name])
        )
        if changed:
            return f"execute changes its input: {', '.join(changed)}"
        problem = _output_problem(ports, test_input, result)
        if problem:
            return problem
        # Copied: the artifact may keep and change what it returned.
        first = {name: _copied(value) for name, value in result.items()}
        again = artifact.execute(ports.bind(test_input), ExecutionContext(_NAME, "test", "zero_cost", {}))
        other = _other_output(first, again) if ports.is_deterministic else None
        if other:
            return (
                f"execute gives something else when it is called again with the same input: {other}; where that is "
                'meant, the schema says "x-deterministic": false'
            )
        if self.serve is None or not ports.in_process.isdisjoint(test_input):
            return None
        served = self.serve(_NAME, artifact)(test_input)
        other = _other_output(_as_sent(first), _as_sent(served)) if ports.is_deterministic else None
        return f"a served copy gives something else than a call in the process: {other}" if other else None


def _signature_problem(artifact: Artifact) -> str | None:
    try:
        inspect.signature(artifact.execute).bind({}, None)
    except TypeError:
        return f"execute{inspect.signature(artifact.execute)} must take (input_data, context)"
    try:
        inspect.signature(artifact.get_schema).bind()
    except TypeError:
        return f"get_schema{inspect.signature(artifact.get_schema)} must take no argument"
    awaited = coroutine_methods(artifact)
    if awaited:
        return f"{awaited[0]} must not be a coroutine function"
    return None


def _output_problem(ports: Ports, test_input: dict[str, Any], result: dict[str, Any]) -> str | None:
    for name, value in result.items():
        unsendable = _without_form(value)
        if unsendable:
            return f"output {name!r} holds {unsendable}, which has no form outside the process"
    sizes: dict[str, tuple[int, str]] = {}
    for name, value in test_input.items():
        if isinstance(value, np.ndarray) and ports.is_tensor(name):
            match_shape(name, value.shape, ports.inputs[name]["x-tensor"].get("shape"), sizes)
    for name, subschema in (ports.outputs or {}).items():
        if name not in result and not (name == "found" and ports.operations):  # only `get` returns it
            return f"execute does not return the declared output {name!r}"
        tensor = subschema.get("x-tensor") if isinstance(subschema, dict) else None
        if tensor is None:
            continue
        value = result[name]
        if not isinstance(value, np.ndarray):
            return f"output {name!r} is declared as a tensor, execute returns {type(value).__name__}"
        try:
            Ports({"properties": {name: subschema}}).bind({name: value})
        except InvalidInput as error:
            return f"output {error}"
        match_shape(name, value.shape, tensor.get("shape"), sizes)
    return None


def _without_form(value: Any) -> str | None:
    """The type of the first part of ``value`` that neither JSON nor a tensor can carry; None if there is none."""
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
    """Inputs that the schema refuses, with a description. ``validate_input`` must refuse them too."""
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
        if _refusal(ports, candidate) is not None:
            yield candidate, what


def _refusal(ports: Ports, values: dict[str, Any]) -> str | None:
    """Why an input is refused; None if it is valid."""
    try:
        ports.bind(values)
    except InvalidInput as error:
        return str(error)
    return None


def _other_output(first: dict[str, Any], second: Any) -> str | None:
    """The first output that differs in any bit; None if all are equal."""
    if not isinstance(second, dict) or first.keys() != second.keys():
        return "their names"
    return next((repr(name) for name in first if not _same(first[name], second[name])), None)


def _as_sent(value: Any) -> Any:
    """A value as it arrives over a network: lists, and numbers as they print."""
    if isinstance(value, np.generic):
        return value.item() if not isinstance(value, np.floating) else float(str(value))
    if isinstance(value, list | tuple):
        return [_as_sent(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _as_sent(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return value


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
    return before is after or bool(before == after) or bool(before != before and after != after)
