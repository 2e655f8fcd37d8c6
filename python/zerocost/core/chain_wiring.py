"""The wiring of a chain: where each input of each step comes from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from zerocost.core.artifact_registry import ArtifactSpec
from zerocost.core.ports import closest, pointer, shortened
from zerocost.errors import MissingInput, PlanError, UndeclaredInput, merged

__all__ = ["INITIAL", "Plan", "PlannedStep", "Source"]

_MOST_NAMES = 20

INITIAL = -1
"""The index of the step that stands for the chain's initial input."""


@dataclass(frozen=True)
class Source:
    """Where an input comes from: the initial input, an output of a step, or a parameter.

    Attributes:
        kind: ``"initial"``, ``"step"`` or ``"param"``.
        step: the index of the step for ``"step"``.
        port: the name there; None for the main output of a step whose outputs are not declared.
        optional: whether the name may turn out to be absent: an undeclared output, or an input that is not required.
    """

    kind: str
    step: int = INITIAL
    port: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class PlannedStep:
    """One step with its wiring, without the values of its parameters.

    Attributes:
        receives_all: whether the step takes undeclared keys and so gets the whole running result.
        follows: the step whose outputs are the running result, or None.
        each: the input over whose elements the step runs; None for a single call.
    """

    index: int
    id: str
    spec: ArtifactSpec
    bindings: dict[str, Source]
    waits_for: frozenset[int]
    receives_all: bool
    follows: int | None
    each: str | None

    @property
    def label(self) -> str:
        """The step's name in errors."""
        return f"step {self.index} ({self.spec.name})"


@dataclass(frozen=True)
class Plan:
    """The wiring of a chain.

    Attributes:
        steps: in the order of the pipeline.
        initial: the names that the chain takes from its initial input, the required ones first.
        required: the required names of ``initial``.
    """

    steps: tuple[PlannedStep, ...]
    initial: tuple[str, ...] = ()
    required: frozenset[str] = frozenset()

    def given(self, names: Iterable[str]) -> Plan:
        """The same wiring for an initial input of exactly these names.

        Raises:
            UndeclaredInput: a name that no step takes.
            MissingInput: a required input of the first step is missing.
            PlanError: an input of another step is missing.
        """
        given = frozenset(names)
        self._refuse_unusable(given)
        steps = []
        for step in self.steps:
            absent = {
                name: source
                for name, source in step.bindings.items()
                if source.kind == "initial" and source.port not in given
            }
            for name, source in absent.items():
                if not source.optional or name == step.each:
                    raise _not_given(step, name, source, given)
            kept = {name: source for name, source in step.bindings.items() if name not in absent}
            steps.append(replace(step, bindings=kept) if absent else step)
        return Plan(tuple(steps), tuple(name for name in self.initial if name in given), self.required)

    def _refuse_unusable(self, given: frozenset[str]) -> None:
        first = self.steps[0]
        usable = {*self.initial, *first.spec.ports.inputs, "artifact_used"}
        unusable = [] if first.receives_all else [name for name in given if name not in usable]
        if unusable:
            raise merged([self._unusable(name, usable) for name in sorted(map(str, unusable))[:_MOST_NAMES]])

    def _unusable(self, name: str, usable: set[str]) -> UndeclaredInput:
        taker = next((step for step in self.steps if name in step.spec.ports.inputs), None)
        advice = (
            closest(name, usable - {"artifact_used"})
            if taker is None
            else f"{taker.label} takes it from its 'params' or 'inputs'"
        )
        message = f"{shortened(name)!r} is not an input of the chain; {advice}"
        return UndeclaredInput(f"initial_input: {message}", errors=[(pointer("initial_input", name), message)])

    def to_dict(self) -> dict[str, Any]:
        """The wiring as JSON."""
        return {
            "inputs": list(self.initial),
            "required": sorted(self.required),
            "steps": [
                {
                    "index": step.index,
                    "id": step.id,
                    "artifact": step.spec.name,
                    "waits_for": [self.steps[index].id for index in sorted(step.waits_for)],
                    "inputs": {name: self._describe(source) for name, source in step.bindings.items()},
                    **({"each": step.each} if step.each else {}),
                }
                for step in self.steps
            ],
        }

    def _describe(self, source: Source) -> str:
        if source.kind == "param":
            return "params"
        origin = "$" if source.step == INITIAL else self.steps[source.step].id
        return f"{origin}.{source.port or '(main output)'}"


def _not_given(step: PlannedStep, name: str, source: Source, given: frozenset[str]) -> MissingInput | PlanError:
    """The error for a step's input that is missing from the initial input."""
    there = closest(str(source.port), given)
    if source.port != name:
        problem = f"inputs: {name}: the initial input has no {source.port!r}; {there}"
    elif source.optional:
        problem = f"each: nothing gives the input {name!r}"
    elif step.index == 0:
        message = f"{name} required"
        return MissingInput(message, name, [(pointer("initial_input", name), message)])
    else:
        problem = f"nothing gives its input {name!r}; in the initial input {there}"
    return PlanError(f"{step.label}: {problem}", step=step.index, artifact=step.spec.name, port=name)
