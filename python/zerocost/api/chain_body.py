"""Chains over HTTP: ``{"pipeline": [...], "initial_input": {...}, "trace": true}``, tensors as arrays.

As safetensors the tensors are members of the initial input, and the JSON in the metadata is the rest of the request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from zerocost.api.json_body import Members, TensorTable, list_datatype, tensor_table
from zerocost.api.problems import as_input_error
from zerocost.api.settings import Settings
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.chain_plan import Plan, plan_chain
from zerocost.core.chain_run import run_plan
from zerocost.core.ports import Ports, closest, pointer
from zerocost.errors import (
    DatatypeError,
    InvalidInput,
    LimitExceeded,
    MissingInput,
    PlanError,
    UndeclaredInput,
    ZerocostError,
)

if TYPE_CHECKING:
    from zerocost.api.artifact_api import ArtifactRESTAPI

__all__ = ["ChainBody", "chain_result", "is_in_process"]


def is_in_process(ports: Ports, name: str) -> bool:
    """Whether an input has no meaning over a network."""
    return name in ports.in_process


_MEMBERS = ("pipeline", "initial_input", "initial_input_names", "trace")


class ChainBody:
    """A chain as a request describes it."""

    def __init__(
        self,
        body: bytes | bytearray,
        registry: ArtifactRegistry,
        settings: Settings,
        tensors: dict[str, Any] | None = None,
    ) -> None:
        """Takes the JSON, and tensors of the initial input that came beside it."""
        self._tensors = tensors or {}
        self._registry = registry
        self._settings = settings
        self._members = Members(body, settings, "the body", dict)
        for name in self._members.spans:
            if name not in _MEMBERS:
                message = f"{name!r} is no member of a chain; {closest(name, _MEMBERS)}"
                raise UndeclaredInput(message, errors=[(pointer(name), message)])
        if "pipeline" not in self._members.spans:
            raise MissingInput("pipeline required", "pipeline")
        self.traced = self._flag("trace")
        """Whether the answer should say what each step did."""
        self._names = self._initial_names()
        self.pipeline = self._steps()

    def plan(self) -> Plan:
        """The wiring. The initial input's names are those given; without any, every unbound input becomes one."""
        given = self._given_names()
        plan = plan_chain(self._registry, self.pipeline, given)
        for step in plan.steps:
            for name, source in step.bindings.items():
                is_from_here = source.kind == "param" or (source.kind == "initial" and given is not None)
                if is_from_here and is_in_process(step.spec.ports, name):
                    raise PlanError(
                        f"{step.label}: {name!r} is for callers in the same process only",
                        step=step.index,
                        artifact=step.spec.name,
                        port=name,
                    )
        return plan

    def wiring(self) -> dict[str, Any]:
        """The plan as JSON, without the inputs that mean nothing over a network."""
        plan = self.plan()
        wiring = plan.to_dict()
        meant = {
            source.port
            for step in plan.steps
            for name, source in step.bindings.items()
            if source.kind == "initial" and not is_in_process(step.spec.ports, name)
        }
        wiring["inputs"] = [name for name in wiring["inputs"] if name in meant]
        for step, described in zip(plan.steps, wiring["steps"], strict=True):
            described["inputs"] = {
                name: source for name, source in described["inputs"].items() if not is_in_process(step.spec.ports, name)
            }
        return wiring

    def initial_input(self, plan: Plan) -> dict[str, Any]:
        """The chain's initial input: arrays where the plan binds a tensor. Checked against the steps that take it.

        Raises:
            InvalidInput: it breaks the schema of a step.
        """
        if "initial_input" not in self._members.spans and not self._tensors:
            return {}
        table: TensorTable = {}
        for step in plan.steps:
            for port, source in step.bindings.items():
                is_tensor = step.spec.ports.is_tensor(port) and port != step.each
                if is_tensor and source.kind == "initial" and source.port is not None:
                    table.setdefault(source.port, list_datatype(step.spec.ports, port))
        initial: dict[str, Any] = {}
        if "initial_input" in self._members.spans:
            try:
                initial = self._members.inputs("initial_input", table)
            except InvalidInput as error:
                error.errors = [("/initial_input" + where, message) for where, message in error.errors]
                raise
        for name, tensor in self._tensors.items():
            if name in initial:
                raise InvalidInput(f"{name}: given as a tensor and in the JSON", name)
            initial[name] = tensor
        errors = []
        for step in plan.steps:
            taken = {
                port: initial[source.port]
                for port, source in step.bindings.items()
                if source.kind == "initial" and source.port in initial and port != step.each
            }
            names = {port: source.port for port, source in step.bindings.items()}
            for where, message in step.spec.ports.errors(taken, partial=True):
                port, _, rest = where.lstrip("/").partition("/")
                place = "/initial_input" + pointer(names.get(port) or port) + (f"/{rest}" if rest else "")
                errors.append((place, f"{step.label}: {message}"))
        if errors:
            raise InvalidInput("; ".join(message for _, message in errors), errors=errors)
        return initial

    def _flag(self, name: str) -> bool:
        value = self._members.value(name) if name in self._members.spans else False
        if not isinstance(value, bool):
            raise DatatypeError(f"{name}: true or false is needed", name)
        return value

    def _given_names(self) -> Iterable[str] | None:
        if "initial_input" in self._members.spans:
            text = self._members.text("initial_input")
            return (*Members(text, self._settings, "initial_input", dict).spans, *self._tensors)
        if self._tensors:
            return tuple(self._tensors)
        return self._names

    def _initial_names(self) -> list[str] | None:
        if "initial_input_names" not in self._members.spans:
            return None
        names = self._members.value("initial_input_names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DatatypeError("initial_input_names: a list of names is needed", "initial_input_names")
        return names

    def _steps(self) -> list[dict[str, Any]]:
        elements = Members(self._members.text("pipeline"), self._settings, "pipeline", list)
        if len(elements.spans) > self._settings.max_steps:
            allowed = self._settings.max_steps
            raise LimitExceeded(f"pipeline: {len(elements.spans)} steps were given, {allowed} are allowed", "pipeline")
        return [self._step(elements.text(index), index) for index in range(len(elements.spans))]

    def _step(self, text: memoryview, index: int) -> dict[str, Any]:
        members = Members(text, self._settings, f"pipeline/{index}", dict)
        step = {name: members.value(name) for name in members.spans if name != "params"}
        if "params" in members.spans:
            name = step.get("artifact")
            spec = self._registry.get_artifact(name) if isinstance(name, str) else None
            try:
                step["params"] = members.inputs("params", tensor_table(spec.ports) if spec is not None else {})
            except InvalidInput as error:
                prefix = pointer("pipeline", index, "params")
                error.errors = [(prefix + where, message) for where, message in error.errors]
                error.add_note(f"in step {index} of the chain")
                raise
        return step


def chain_result(
    chain: ChainBody, api: ArtifactRESTAPI, metadata: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]] | None]:
    """Runs a chain as :meth:`zerocost.ArtifactCommunicationService.chain_artifacts` does.

    Returns:
        The result, and where the request asks for it the trace.
    """
    traced = chain.traced
    plan = chain.plan()
    initial = chain.initial_input(plan)
    missing = [name for name in plan.required if name not in initial]
    if missing:
        raise MissingInput(f"initial_input: {', '.join(sorted(missing))} required", missing[0])
    try:
        run = run_plan(plan, initial, api.context("chain", "chain", metadata), traced=traced)
    except ZerocostError:
        raise
    except (ValueError, TypeError) as error:
        raise as_input_error(error) from error
    api.check_outputs(run.result)
    return run.result, [asdict(step) for step in run.trace] if traced else None
