"""Planning a chain: where each input of each step comes from, decided before anything runs.

A step's inputs are bound in this order:

1. its ``inputs`` mapping: ``{"tensor": "attend.processed_attention"}`` is output ``processed_attention`` of the earlier
   step with the id ``attend``; ``"$.name"`` is the chain's initial input;
2. its ``params``;
3. the same name in the running result: the outputs of the step before, or the initial input for the first step;
4. a missing main input: the main output of the step before.

Other required inputs of a step come from the chain's initial input. Every name of the initial input must be usable:
declared by the first step, named as ``$.name``, or required by a later step that gets it from nowhere else.

A step without ``inputs`` waits for the step before it. A step with ``inputs`` waits only for the steps that they name
and for those in ``after``; so 3 and 4 apply to it only if the step before is among these, or if it is the first step.
If both sides of a connection are declared and cannot fit, the chain is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zerocost.core.artifact_registry import ArtifactRegistry, ArtifactSpec
from zerocost.core.chain_wiring import INITIAL, Plan, PlannedStep, Source
from zerocost.core.ports import closest, pointer
from zerocost.errors import Place, PlanError, UndeclaredInput, merged

__all__ = ["plan_chain"]

_ID = re.compile(r"[A-Za-z0-9_-]+")
_STEP_KEYS = ("artifact", "params", "inputs", "id", "after", "each")


@dataclass
class _Planner:
    registry: ArtifactRegistry
    steps: list[PlannedStep] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    initial: dict[str, bool] = field(default_factory=dict)
    """The names taken from the initial input, and whether each is required."""

    def add(self, index: int, raw: Mapping[str, Any], later_ids: frozenset[str]) -> None:
        spec = self._spec(index, raw)
        label = f"step {index} ({spec.name})"

        def fail(problem: str, port: str | None = None) -> PlanError:
            return PlanError(f"{label}: {problem}", step=index, artifact=spec.name, port=port)

        params = _mapping(raw, "params", fail)
        mapping = _mapping(raw, "inputs", fail) if "inputs" in raw else None
        step_id = raw.get("id", str(index))
        if not isinstance(step_id, str) or not _ID.fullmatch(step_id):
            raise fail(f"id {step_id!r}: letters, digits, '_' and '-' are allowed")
        if step_id in self.ids:
            raise fail(f"id {step_id!r} is step {self.ids[step_id]}'s already")
        ports = spec.ports
        undeclared = [
            UndeclaredInput(
                f"{label}: params: {message}", errors=[(pointer("pipeline", index, "params") + where, message)]
            )
            for where, message in ports.undeclared(params)
        ]
        if undeclared:
            raise merged(undeclared)
        for _, message in ports.undeclared(mapping or {}):
            raise fail(f"inputs: {message}")
        twice = sorted(set(params) & set(mapping or {}))
        if twice:
            raise fail(f"{', '.join(twice)}: given in 'inputs' and in 'params'", twice[0])

        def earlier(name: object, what: str) -> int:
            if not isinstance(name, str):
                raise fail(f"{what}: {name!r} was given, the id of a step is needed")
            if name in self.ids:
                return self.ids[name]
            if name == step_id or name in later_ids:
                raise fail(f"{what}: step {name!r} does not come before this one; only earlier steps can be named")
            raise fail(f"{what}: no step {name!r}; {closest(str(name), self.ids)}")

        bindings = {name: self._named(name, text, earlier, fail) for name, text in (mapping or {}).items()}
        after = raw.get("after", [])
        if not isinstance(after, list | tuple):
            raise fail(f"after: {after!r} was given, a list of step ids is needed")
        waits_for = {source.step for source in bindings.values() if source.kind == "step"}
        waits_for |= {earlier(name, "after") for name in after}
        if mapping is None and index > 0:
            waits_for.add(index - 1)
        follows = index - 1 if index == 0 or index - 1 in waits_for else None

        bindings |= {name: Source("param") for name in params}
        self._bind_from_running_result(spec, bindings, follows)
        main = ports.main_input
        if main is not None and main not in bindings and follows is not None and follows != INITIAL:
            before = self.steps[follows]
            port = before.spec.ports.main_output
            bindings[main] = Source("step", follows, port, optional=port is None)
        for name in ports.required:
            if name not in bindings:
                bindings[name] = self._initial(name)
        if follows == INITIAL:
            # The initial input may also hold the first step's optional inputs.
            for name in ports.inputs:
                if name not in bindings:
                    bindings[name] = self._initial(name, optional=True)

        each = self._each(raw, spec, bindings, fail)
        for name, source in bindings.items():
            if source.kind == "step" and source.port is not None and name != each:
                before = self.steps[source.step]
                output = (before.spec.ports.outputs or {}).get(source.port, {})
                problem = None if before.each else _mismatch(output, ports.inputs.get(name, {}))
                if problem:
                    raise fail(f"{name}: output {source.port!r} of step {source.step} {problem}", name)
        self.ids[step_id] = index
        self.steps.append(
            PlannedStep(
                index=index,
                id=step_id,
                spec=spec,
                bindings=bindings,
                waits_for=frozenset(waits_for),
                receives_all=ports.is_open,
                follows=follows,
                each=each,
            )
        )

    def _spec(self, index: int, raw: Mapping[str, Any]) -> ArtifactSpec:
        if not isinstance(raw, Mapping):
            raise PlanError(f"step {index}: {type(raw).__name__} was given, an object is needed", step=index)
        for key in raw:
            if key not in _STEP_KEYS:
                raise PlanError(f"step {index}: unknown key {key!r}; {closest(str(key), _STEP_KEYS)}", step=index)
        name = raw.get("artifact")
        if not isinstance(name, str):
            raise PlanError(f"step {index}: 'artifact' must be the name of an artifact", step=index)
        try:
            return self.registry[name]
        except KeyError as error:
            error.add_note(Place(f"in step {index} of the chain"))
            raise

    def _named(self, name: str, text: object, earlier: Any, fail: Any) -> Source:
        origin, separator, port = text.partition(".") if isinstance(text, str) else ("", "", "")
        if not separator or not port:
            raise fail(f"inputs: {name}: {text!r} was given, 'step.port' or '$.name' is needed", name)
        if origin == "$":
            return self._initial(port)
        step = earlier(origin, f"inputs: {name}")
        outputs = self.steps[step].spec.ports.outputs
        if outputs is not None and port not in outputs:
            raise fail(f"inputs: {name}: step {origin!r} has no output {port!r}; {closest(port, outputs)}", name)
        return Source("step", step, port)

    def _initial(self, name: str, *, optional: bool = False) -> Source:
        """The initial input's ``name``, which is recorded."""
        self.initial[name] = self.initial.get(name, False) or not optional
        return Source("initial", port=name, optional=optional)

    def _bind_from_running_result(self, spec: ArtifactSpec, bindings: dict[str, Source], follows: int | None) -> None:
        if follows is None or follows == INITIAL:
            return
        outputs = self.steps[follows].spec.ports.outputs
        for name in spec.ports.inputs:
            if name not in bindings and (outputs is None or name in outputs):
                # An undeclared output may be missing: the main input then falls back to the main output.
                if outputs is None and name == spec.ports.main_input:
                    continue
                bindings[name] = Source("step", follows, name, optional=outputs is None)

    def _each(
        self, raw: Mapping[str, Any], spec: ArtifactSpec, bindings: Mapping[str, Source], fail: Any
    ) -> str | None:
        each = raw.get("each")
        if each is None or each is False:
            return None
        if each is True:
            each = spec.ports.main_input
            if each is None:
                raise fail("each: the artifact has no main input; name the input to run through")
        if not isinstance(each, str):
            raise fail(f"each: {each!r} was given, the name of an input or true is needed")
        for _, message in spec.ports.undeclared([each]):
            raise fail(f"each: {message}", each)
        if each not in bindings and not spec.ports.is_open:
            raise fail(f"each: nothing gives the input {each!r}", each)
        return each


def plan_chain(
    registry: ArtifactRegistry, pipeline: Sequence[dict[str, Any]], initial_input_names: Iterable[str] | None
) -> Plan:
    """Wires a chain. Nothing is run.

    Args:
        registry: where the steps' artifacts are.
        pipeline: at least one step: ``{"artifact": name, "params": {}, "inputs": {}, "id": text, "after": [ids],
            "each": input or true}``; only ``artifact`` is required. An id is ``[A-Za-z0-9_-]+``, by default the index.
        initial_input_names: the names of the initial input; None: every unbound input is one of them.

    Raises:
        UnknownArtifact: a step's artifact is not registered.
        UndeclaredInput: a parameter or a name of the initial input that no step takes.
        MissingInput: a required input of the first step that is not given.
        PlanError: any other problem, with the step's index, its artifact and the port.
    """
    if isinstance(pipeline, str | Mapping) or not isinstance(pipeline, Sequence):
        raise PlanError(f"pipeline: {type(pipeline).__name__} was given, a list of steps is needed")
    if not pipeline:
        raise PlanError("pipeline: it has no step")
    planner = _Planner(registry)
    ids = [raw.get("id", str(index)) if isinstance(raw, Mapping) else None for index, raw in enumerate(pipeline)]
    for index, raw in enumerate(pipeline):
        planner.add(index, raw, frozenset(name for name in ids[index + 1 :] if isinstance(name, str)))
    required = frozenset(name for name, needed in planner.initial.items() if needed)
    initial = sorted(planner.initial, key=lambda name: name not in required)
    plan = Plan(tuple(planner.steps), tuple(initial), required)
    return plan if initial_input_names is None else plan.given(initial_input_names)


def _mismatch(output: dict[str, Any], given_to: dict[str, Any]) -> str | None:
    """Why an output can never fit an input; None if it may."""
    if "x-tensor" in output and "x-tensor" in given_to:
        gives = output["x-tensor"].get("datatypes")
        takes = given_to["x-tensor"].get("datatypes")
        if gives and takes and not set(gives) & set(takes):
            return f"is {' or '.join(gives)}, the input takes {', '.join(takes)}"
        return None
    kinds = output.get("type")
    if "x-tensor" in given_to and isinstance(kinds, str) and kinds not in ("array", "object"):
        return f"is a {kinds}, the input takes a tensor"
    kinds = given_to.get("type")
    if "x-tensor" in output and isinstance(kinds, str) and kinds != "array":
        return f"is a tensor, the input takes a {kinds}"
    return None


def _mapping(raw: Mapping[str, Any], key: str, fail: Any) -> Mapping[str, Any]:
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise fail(f"{key}: {type(value).__name__} was given, an object is needed")
    return value
