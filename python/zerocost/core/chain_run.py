"""Running a planned chain: steps in order, branches at the same time, with a trace."""

from __future__ import annotations

import contextvars
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from zerocost.core.artifact_base import ExecutionContext
from zerocost.core.chain_wiring import INITIAL, Plan, PlannedStep
from zerocost.core.copies import counting_copies
from zerocost.core.limits import Limits, check_fan_out, limits_of
from zerocost.core.ports import Bound, pointer
from zerocost.core.results import checked_outputs
from zerocost.errors import DatatypeError, InvalidInput, MissingInput, Place, unescaped

__all__ = ["ChainRun", "StepTrace", "params_of", "run_plan"]

Datatypes = tuple[str, ...] | None


@dataclass(frozen=True)
class StepTrace:
    """What one step did.

    Attributes:
        start: seconds since the chain began.
        duration: seconds.
        thread: the name of the thread that ran it.
        bytes_in: bytes of the input arrays.
        bytes_out: bytes of the output arrays.
        bytes_copied: bytes that had to be copied to make arrays that a kernel can read.
    """

    index: int
    id: str
    artifact: str
    start: float
    duration: float
    thread: str
    bytes_in: int
    bytes_out: int
    bytes_copied: int


@dataclass(frozen=True)
class ChainRun:
    """Every step's outputs by id, and the trace (empty unless asked for), in the order of the pipeline."""

    outputs: dict[str, dict[str, Any]]
    trace: list[StepTrace]
    result: dict[str, Any]
    """The last step's outputs."""


@dataclass
class _Run:
    plan: Plan
    initial: dict[str, Any]
    context: ExecutionContext
    traced: bool
    is_inner: bool
    """Whether the caller sees a single artifact, so that pointers into the pipeline mean nothing to it."""
    began: float = field(default_factory=time.monotonic)
    known: dict[int, dict[str, Any]] = field(default_factory=dict)
    """The inputs of each step from parameters and the initial input, bound before the first step runs."""
    copied: dict[int, int] = field(default_factory=dict)
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    trace: dict[int, StepTrace] = field(default_factory=dict)

    def prepare(self, pipeline: Sequence[Mapping[str, Any]]) -> None:
        """Binds every input that is known already, so that errors in them come before the first step runs."""
        # A list becomes an array once for all steps that take it with the same datatypes.
        arrays: dict[tuple[str, Datatypes], Any] = {}
        for step in self.plan.steps:
            ports = step.spec.ports
            known = dict(pipeline[step.index].get("params") or {})
            waits = step.each is not None or (step.receives_all and step.follows not in (None, INITIAL))
            if step.receives_all and step.follows == INITIAL:
                known = {**self.initial, **known}
            taken: dict[str, tuple[str, Datatypes]] = {}
            for name, source in step.bindings.items():
                if source.kind == "step":
                    waits = True
                elif source.kind == "initial" and source.port in self.initial:
                    known[name] = self.initial[source.port]
                    if ports.is_tensor(name):
                        taken[name] = (source.port, ports.datatypes(name))
                        known[name] = arrays.get(taken[name], known[name])
            if step.each is not None and step.each in known and step.bindings[step.each].kind == "initial":
                del known[step.each]
                taken.pop(step.each, None)
            try:
                with counting_copies() as copied:
                    bound = self.known[step.index] = self._bind(step, known, partial=waits)
            except InvalidInput as error:
                self._locate(error, step)
                error.add_note(Place(f"in {step.label} of the chain"))
                raise
            self.copied[step.index] = copied.bytes
            for name, place in taken.items():
                arrays[place] = bound[name]

    def _bind(self, step: PlannedStep, values: Mapping[str, Any], *, partial: bool = False) -> dict[str, Any]:
        ports, limits = step.spec.ports, limits_of(self.context.metadata)
        # Inputs of a chain artifact that came over a network were checked when they were bound to it.
        remote = None if self.is_inner else limits
        if partial:
            return ports.bind_partial(values, remote)
        bound = ports.bind(values, remote)
        if remote is not limits and limits is not None:
            ports.check_limits(bound, limits)
        return bound

    def _locate(self, error: InvalidInput, step: PlannedStep) -> None:
        """Rewrites the pointers of a step's error so that they lead to what the chain's caller gave."""
        located = []
        for where, message in error.errors:
            _, first, *rest = where.split("/") if where else ("", "")
            name = unescaped(first)
            source = step.bindings.get(name)
            if source is not None and source.kind == "param":
                place = "" if self.is_inner else pointer("pipeline", step.index, "params", name)
            elif source.kind == "initial" if source is not None else self._may_be_initial(step, name):
                place = pointer(*([] if self.is_inner else ["initial_input"]), (source and source.port) or name)
            else:
                place, rest = "" if self.is_inner else pointer("pipeline", step.index), []
            located.append(("/".join([place, *rest]) if place else "", message))
        error.errors = located

    def _may_be_initial(self, step: PlannedStep, name: str) -> bool:
        """Whether a name that is bound to nothing is, or could be, one of the initial input."""
        return name in self.initial or (step.follows == INITIAL and name in step.spec.ports.inputs)

    def step(self, step: PlannedStep) -> dict[str, Any]:
        """Runs one step; its predecessors are done."""
        try:
            self.context.check_deadline()
            inputs = self._inputs(step)
            if not self.traced:
                return self._execute(step, inputs)
            start = time.monotonic()
            with counting_copies() as copied:
                outputs = self._execute(step, inputs)
            self.trace[step.index] = StepTrace(
                index=step.index,
                id=step.id,
                artifact=step.spec.name,
                start=start - self.began,
                duration=time.monotonic() - start,
                thread=threading.current_thread().name,
                bytes_in=_array_bytes(inputs),
                bytes_out=_array_bytes(outputs),
                bytes_copied=copied.bytes + self.copied[step.index],
            )
            return outputs
        except Exception as error:
            if isinstance(error, InvalidInput):
                self._locate(error, step)
            error.add_note(Place(f"in {step.label} of the chain"))
            raise

    def _inputs(self, step: PlannedStep) -> dict[str, Any]:
        inputs = self.known[step.index]
        if isinstance(inputs, Bound):
            return inputs
        if step.receives_all and step.follows is not None and step.follows != INITIAL:
            inputs = {**self.results[step.follows], **inputs}
        else:
            inputs = dict(inputs)
        for name, source in step.bindings.items():
            if source.kind == "param" or name in self.known[step.index]:
                continue
            values = self.initial if source.kind == "initial" else self.results[source.step]
            port = source.port
            if port is None:
                # The step before declares no outputs: the same name in its result, otherwise its first key.
                port = name if name in values else next(iter(values), None)
            if port in values:
                inputs[name] = values[port]
            elif not source.optional or name in step.spec.ports.required:
                raise MissingInput(f"{name} required; the step before gave {sorted(map(str, values))}", name)
        return inputs

    def _execute(self, step: PlannedStep, inputs: dict[str, Any]) -> dict[str, Any]:
        context = ExecutionContext(
            artifact_name=step.spec.name,
            interface="chain",
            mode=self.context.mode,
            metadata={**self.context.metadata, "step": step.index, "steps": len(self.plan.steps)},
        )
        open_span = context.metadata.get("span")
        if open_span is None:
            return self._execute_in(step, inputs, context)
        name = step.spec.name
        attributes = {"zerocost.artifact": name, "zerocost.step.index": step.index, "zerocost.step.id": step.id}
        with open_span(f"execute {name}", attributes) as traceparent:
            context.metadata["traceparent"] = traceparent
            return self._execute_in(step, inputs, context)

    def _execute_in(self, step: PlannedStep, inputs: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        spec = step.spec

        def one(inputs: Mapping[str, Any]) -> dict[str, Any]:
            return checked_outputs(spec.implementation.execute(self._bind(step, inputs), context), spec.name)

        if step.each is None:
            return one(inputs)
        elements = inputs.get(step.each)
        if not isinstance(elements, list | tuple):
            kind = type(elements).__name__
            raise DatatypeError(f"{step.each}: {kind} was given, 'each' needs a list", step.each)
        check_fan_out(elements, step.each, context.metadata)

        def of_element(element: Any) -> dict[str, Any]:
            self.context.check_deadline()
            return one({**inputs, str(step.each): element})

        results = _in_parallel([partial(of_element, element) for element in elements])
        names = results[0] if results else spec.ports.outputs or {}
        return {name: [result.get(name) for result in results] for name in names}


def params_of(plan: Plan, pipeline: Sequence[Mapping[str, Any]], limits: Limits | None = None) -> list[dict[str, Any]]:
    """The parameters of every step, bound.

    Raises:
        InvalidInput: one that does not fit; pointers begin with ``/pipeline/i/params``.
    """
    bound = []
    for step in plan.steps:
        try:
            bound.append(step.spec.ports.bind_partial(pipeline[step.index].get("params") or {}, limits))
        except InvalidInput as error:
            place = pointer("pipeline", step.index, "params")
            error.errors = [(place + where, message) for where, message in error.errors]
            error.add_note(Place(f"in {step.label} of the chain"))
            raise
    return bound


def run_plan(
    plan: Plan,
    pipeline: Sequence[Mapping[str, Any]],
    initial_input: Mapping[str, Any],
    context: ExecutionContext | None = None,
    *,
    traced: bool = False,
    is_inner: bool = False,
) -> ChainRun:
    """Runs a plan: a sequence of steps in the calling thread, branches on threads of their own.

    When a step fails, no further step starts, and running ones are waited for: no work of a chain outlives its call.

    Args:
        plan: the wiring.
        pipeline: the planned chain, with the values of its parameters.
        initial_input: inputs of the planned names.
        context: passed to every step.
        traced: whether to record a trace.
        is_inner: whether the caller sees one artifact, whose inputs are the initial input.

    Raises:
        InvalidInput: an input does not fit. Pointers begin with ``/initial_input`` or ``/pipeline/i/params``; an input
            from another step is ``/pipeline/i``.
        DeadlineExceeded: ``context.metadata["deadline"]`` (seconds on ``time.monotonic()``) passed between two steps
            or between two elements of ``each``.
        Exception: whatever a step raises, with a note that names the step.
    """
    if context is None:
        context = ExecutionContext("chain", "chain", "zero_cost", {})
    metadata = {"chain_id": uuid.uuid4().hex, **context.metadata}
    context = ExecutionContext(context.artifact_name, context.interface, context.mode, metadata)
    run = _Run(plan, dict(initial_input), context, traced, is_inner)
    run.prepare(pipeline)
    if all(step.index == 0 or step.index - 1 in step.waits_for for step in plan.steps):
        for step in plan.steps:
            run.results[step.index] = run.step(step)
    else:
        _run_branches(run)
    steps = plan.steps
    return ChainRun(
        outputs={step.id: run.results[step.index] for step in steps},
        trace=[run.trace[step.index] for step in steps] if traced else [],
        result=run.results[steps[-1].index],
    )


def _run_branches(run: _Run) -> None:
    waiting = {step.index: step for step in run.plan.steps}
    running: dict[Future[dict[str, Any]], PlannedStep] = {}
    failure: tuple[int, BaseException] | None = None
    # A pool for this run alone: steps of one chain never queue behind those of another.
    with ThreadPoolExecutor(len(waiting), thread_name_prefix="zerocost-chain") as pool:
        while waiting or running:
            if failure is None:
                for step in [step for step in waiting.values() if step.waits_for <= run.results.keys()]:
                    del waiting[step.index]
                    running[pool.submit(contextvars.copy_context().run, run.step, step)] = step
            if not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                step = running.pop(future)
                error = future.exception()
                if error is None:
                    run.results[step.index] = future.result()
                elif failure is None or step.index < failure[0]:
                    failure = (step.index, error)
    if failure is not None:
        raise failure[1]


def _in_parallel(calls: list[Callable[[], dict[str, Any]]]) -> list[dict[str, Any]]:
    """The results of all calls in order, on as many threads as there are cores. An error waits for running calls."""
    if len(calls) < 2:
        return [call() for call in calls]
    with ThreadPoolExecutor(min(len(calls), os.cpu_count() or 1), thread_name_prefix="zerocost-each") as pool:
        futures = [pool.submit(contextvars.copy_context().run, call) for call in calls]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def _array_bytes(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, dict):
        return _total(value.values())
    if isinstance(value, list | tuple):
        return _total(value)
    return 0


def _total(values: Iterable[Any]) -> int:
    return sum(_array_bytes(value) for value in values)
