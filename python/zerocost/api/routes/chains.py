"""Chains over HTTP: ``{"pipeline": [...], "initial_input": {...}, "trace": true}``, tensors as arrays.

As safetensors the tensors are members of the initial input, and the JSON in the metadata is the rest of the request.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.routing import Route

from zerocost.api.artifact_api import ArtifactRESTAPI
from zerocost.api.calls import Calls, IOBound
from zerocost.api.routing import route
from zerocost.api.wire.json import LazyJSON, TensorTable
from zerocost.api.wire.problems import artifact_errors
from zerocost.api.wire.request import Request
from zerocost.api.wire.responses import Response, json_response, outputs_response
from zerocost.api.wire.safetensors import add_tensors, read_tensors
from zerocost.api.wire.stages import COMPUTE, READ, WRITE
from zerocost.core.artifact_base import ExecutionContext
from zerocost.core.chain_run import params_of, run_plan
from zerocost.core.copies import counting_copies
from zerocost.core.ports import closest, pointer
from zerocost.errors import DatatypeError, InvalidInput, LimitExceeded, MissingInput, Place, UndeclaredInput

__all__ = ["ChainRequest", "ChainRoutes"]

_CHAINS = "(chains)"
"""The name of all chains in errors and metrics; no artifact can have it."""

_MEMBERS = ("pipeline", "initial_input", "initial_input_names", "trace")


class ChainRoutes:
    """The endpoints under ``/chains``."""

    def __init__(self, api: ArtifactRESTAPI, calls: Calls) -> None:
        self.api = api
        self.calls = calls

    def table(self) -> list[Route]:
        """The list of routes."""
        return [
            route("/chains/plan", {"POST": self.plan_chain}),
            route("/chains/execute", {"POST": self.execute_chain}),
        ]

    async def plan_chain(self, request: Request) -> Response:
        """The wiring of a chain, without running it."""
        request.check_json()
        _, metadata = self.calls.begin(request, _CHAINS)
        body = await self.calls.bodies.read_whole(request)

        def plan() -> Response:
            return json_response(ChainRequest(body, self.api).wiring())

        return await self.calls.run(request, None, plan, len(body), metadata)

    async def execute_chain(self, request: Request) -> Response:
        """Runs a chain."""
        is_binary = request.is_safetensors
        accept = request.header(b"accept")
        calls = self.calls
        stages, metadata = calls.begin(request, _CHAINS)
        tensors: dict[str, Any] = {}
        body: bytes | bytearray
        if is_binary:
            reading = read_tensors(request, self.api.settings, calls.offload_if_room)
            tensors, body, stages.copied = await calls.bodies.within_deadline(request, reading)
        else:
            body = await calls.bodies.read_whole(request)

        def start() -> Response | IOBound[Response]:
            chain = ChainRequest(body, self.api, tensors)
            stages.end(READ)
            return IOBound(lambda: execute(chain)) if chain.waits else execute(chain)

        def execute(chain: ChainRequest) -> Response:
            with counting_copies() as copied:
                result, trace = chain.run(metadata)
            stages.copied += copied.bytes
            stages.end(COMPUTE)
            response = outputs_response(result, accept, {} if trace is None else {"trace": trace})
            stages.end(WRITE)
            return response

        return await calls.run(request, None, start, len(body), metadata)


class ChainRequest:
    """A chain as a request describes it."""

    def __init__(self, body: bytes | bytearray, api: ArtifactRESTAPI, tensors: dict[str, Any] | None = None) -> None:
        """Takes the JSON, and the tensors of the initial input that came beside it."""
        self._tensors = tensors or {}
        self._api = api
        self._settings = api.settings
        self._members = LazyJSON(body, self._settings, "the body", dict)
        for name in self._members.spans:
            if name not in _MEMBERS:
                message = f"{name!r} is not a member of a chain; {closest(name, _MEMBERS)}"
                raise UndeclaredInput(message, errors=[(pointer(name), message)])
        if "pipeline" not in self._members.spans:
            raise MissingInput("pipeline required", "pipeline")
        self._traced, self._names = _options(self._members.values("trace", "initial_input_names"))
        self._pipeline = self._steps()
        # The steps alone decide which names are tensors, so the initial input is read only once.
        self._plan = api.plans.plan(self._pipeline, None)

    @property
    def waits(self) -> bool:
        """Whether any of the steps waits for something outside of this process."""
        return any(step.spec.implementation.waits for step in self._plan.steps)

    def wiring(self) -> dict[str, Any]:
        """The plan as JSON, without the inputs that only callers in the same process can give.

        The initial input has the given names; without any, every unbound input is one.
        """
        given = "initial_input" in self._members.spans or self._tensors
        names = self._initial_input() if given else self._names
        plan = self._api.plans.plan(self._pipeline, names)
        params_of(plan, self._pipeline, self._api.limits)
        wiring = plan.to_dict()
        meant = set()
        for step, described in zip(plan.steps, wiring["steps"], strict=True):
            private = step.spec.ports.in_process
            for name, source in step.bindings.items():
                if source.kind == "initial" and name not in private:
                    meant.add(source.port)
                elif source.kind == "initial" and names is not None:
                    message = f"{name!r} is for callers in the same process only"
                    raise UndeclaredInput(message, errors=[(pointer("initial_input", source.port or name), message)])
            described["inputs"] = {name: text for name, text in described["inputs"].items() if name not in private}
        wiring["inputs"] = [name for name in wiring["inputs"] if name in meant]
        return wiring

    def run(self, metadata: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]] | None]:
        """Runs the chain as :meth:`zerocost.ArtifactCommunicationService.chain_artifacts` does.

        Returns:
            The result, and the trace if the request asks for it.
        """
        initial = self._initial_input()
        plan = self._api.plans.plan(self._pipeline, initial)
        context = ExecutionContext("chain", "chain", "restful", {"limits": self._api.limits, **metadata})
        with artifact_errors:
            run = run_plan(plan, self._pipeline, initial, context, traced=self._traced)
        return self._api.check_outputs(run.result), [asdict(step) for step in run.trace] if self._traced else None

    def _initial_input(self) -> dict[str, Any]:
        """The initial input. A value becomes an array if every step that takes it would make the same array of it."""
        wanted: dict[str, list[tuple[str, bool, bool] | None]] = {}
        for step in self._plan.steps:
            for port, source in step.bindings.items():
                if source.kind == "initial" and source.port is not None:
                    ports = step.spec.ports
                    is_whole = ports.is_tensor(port) and port != step.each
                    wanted.setdefault(source.port, []).append(ports.lists[port] if is_whole else None)
        table: TensorTable = {
            name: first
            for name, (first, *rest) in wanted.items()
            if first is not None and all(r == first for r in rest)
        }
        initial: dict[str, Any] = {}
        if "initial_input" in self._members.spans:
            initial = self._read("initial_input", table, "/initial_input")
        return add_tensors(initial, self._tensors)

    def _read(self, name: str, table: TensorTable, place: str, members: LazyJSON | None = None) -> dict[str, Any]:
        try:
            return (members or self._members).inputs(name, table)
        except InvalidInput as error:
            error.errors = [(place + where, message) for where, message in error.errors]
            raise

    def _steps(self) -> list[dict[str, Any]]:
        elements = LazyJSON(self._members.text("pipeline"), self._settings, "pipeline", list)
        if len(elements.spans) > self._settings.max_steps:
            allowed = self._settings.max_steps
            raise LimitExceeded(f"pipeline: {len(elements.spans)} steps were given, {allowed} are allowed", "pipeline")
        return [self._step(elements.text(index), index) for index in range(len(elements.spans))]

    def _step(self, text: memoryview, index: int) -> dict[str, Any]:
        members = LazyJSON(text, self._settings, f"pipeline/{index}", dict)
        step = members.values(*(name for name in members.spans if name != "params"))
        if "params" in members.spans:
            name = step.get("artifact")
            spec = self._api.registry.get_artifact(name) if isinstance(name, str) else None
            try:
                table = {} if spec is None else spec.ports.lists
                step["params"] = self._read("params", table, pointer("pipeline", index, "params"), members)
            except InvalidInput as error:
                error.add_note(Place(f"in step {index} of the chain"))
                raise
        return step


def _options(options: dict[str, Any]) -> tuple[bool, list[str] | None]:
    """Whether the chain is traced, and the names of its initial input, if the request says them."""
    traced, names = options.get("trace", False), options.get("initial_input_names")
    if not isinstance(traced, bool):
        raise DatatypeError("trace: true or false is needed", "trace")
    if "initial_input_names" in options and not (
        isinstance(names, list) and all(isinstance(name, str) for name in names)
    ):
        raise DatatypeError("initial_input_names: a list of names is needed", "initial_input_names")
    return traced, names
