"""The native routes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.routing import Route
from starlette.types import Receive, Scope

from zerocost._kernels import read_json, write_json
from zerocost.api.answer import Answer, Endpoint, json_answer
from zerocost.api.body import Overdue, media_type
from zerocost.api.chain_body import ChainBody
from zerocost.api.chunks import Chunks, read_body
from zerocost.api.guard import header
from zerocost.api.json_body import read_inputs, wants_typed_tensors
from zerocost.api.limiter import Limiter
from zerocost.api.metrics import CONTENT_TYPE as METRICS_TYPE
from zerocost.api.metrics import Figures, MemoryStats, render_metrics
from zerocost.api.observations import Observations, Stages
from zerocost.api.open_inference import OpenInference
from zerocost.api.openapi import describe
from zerocost.api.pages import page
from zerocost.api.problems import Refused
from zerocost.api.safetensors_body import MEDIA_TYPE as SAFETENSORS
from zerocost.api.safetensors_body import answer_pieces, read_safetensors, read_tensors, wants_safetensors
from zerocost.api.workers import WorkerFolder
from zerocost.core.arrays import counting_copies
from zerocost.core.artifact_registry import ArtifactSpec
from zerocost.core.limits import Limits
from zerocost.errors import InvalidInput, LimitExceeded

if TYPE_CHECKING:
    from zerocost.api.artifact_api import ArtifactRESTAPI

__all__ = ["Routes", "require_json"]

CHAINS = "(chains)"
"""The name under which chains of requests are observed; no artifact can have it."""

_NOTHING: Mapping[str, Any] = {}

_JSON = (b"content-type", b"application/json")

_INLINE_BYTES = 4096
"""Bodies of quick artifacts up to this size are computed on the event loop: a thread hop costs more than they do."""

_INLINE_OPERATIONS = 1 << 18
"""As many operations as a thread hop takes at most, where they do not follow from the size of the body."""


class Routes:
    """The handlers, with what they share."""

    def __init__(self, api: ArtifactRESTAPI, limiter: Limiter) -> None:
        self.api = api
        self.registry = api.registry
        self.settings = api.settings
        self.limiter = limiter
        self.observations = Observations()
        self._memory_stats = MemoryStats(self.registry)
        self.overdue = Overdue(self.settings.request_timeout)
        self.is_ready = True
        folder = self.settings.worker_folder
        self.workers = None if folder is None else WorkerFolder(folder, self._snapshot)
        self._inline_limits = Limits(
            elements=min(_INLINE_BYTES, self.settings.max_elements),
            fan_out=0,
            parts=self.settings.max_parts,
            operations=min(_INLINE_OPERATIONS, self.settings.max_operations),
        )

    def table(self) -> list[Route]:
        """The list of routes."""
        gets: list[tuple[str, Any]] = [
            ("/livez", self.alive),
            ("/readyz", self.ready),
            ("/metrics", self.metrics),
            ("/openapi.json", self.openapi),
            ("/docs", self.docs),
            ("/", self.dashboard),
            ("/artifacts", self.list_artifacts),
            ("/artifacts/{name}", self.describe_artifact),
            ("/artifacts/{name}/schema", self.artifact_schema),
        ]
        posts: list[tuple[str, Any]] = [
            ("/artifacts/{name}/execute", self.execute_artifact),
            ("/chains/plan", self.plan_chain),
            ("/chains/execute", self.execute_chain),
        ]
        # Starlette tries one after the other: what is called most comes first.
        return [
            *(Route(path, Endpoint(function), methods=["POST"]) for path, function in posts),
            *(Route(path, Endpoint(function), methods=["GET"]) for path, function in gets),
            *OpenInference(self).table(),
        ]

    def figures(self, *, of_this_process: bool = False) -> Figures:
        """What the server saw: this process, and unless asked otherwise its other workers."""
        alone = of_this_process or self.workers is None
        memory = self._memory_stats(of_this_process=of_this_process)
        own = Figures(self.observations, self.limiter.pending, self.is_ready, memory)
        return own if alone or self.workers is None else own.absorb(self.workers.others())

    @contextlib.asynccontextmanager
    async def sharing(self) -> AsyncIterator[None]:
        """While it is entered, other workers see what this one counts."""
        writing = None if self.workers is None else asyncio.create_task(self.workers.keep_writing())
        yield
        if writing is not None:
            writing.cancel()
            await asyncio.wait([writing])

    def _snapshot(self) -> dict[str, Any]:
        return self.figures(of_this_process=True).snapshot()

    def stop_taking(self) -> None:
        """Says from now on that new requests should go elsewhere."""
        self.is_ready = False

    async def alive(self, scope: Scope, receive: Receive) -> Answer:
        """Whether the process answers."""
        return json_answer({"live": True})

    async def ready(self, scope: Scope, receive: Receive) -> Answer:
        """Whether new requests should be sent here."""
        if not self.is_ready:
            raise Refused(503, "not_ready", "the server is shutting down", {"retry-after": "1"})
        return json_answer({"ready": True})

    async def metrics(self, scope: Scope, receive: Receive) -> Answer:
        """What the server saw, for Prometheus."""
        content = await asyncio.to_thread(lambda: render_metrics(self.figures()))
        return Answer(200, [content], [(b"content-type", METRICS_TYPE.encode())])

    async def openapi(self, scope: Scope, receive: Receive) -> Answer:
        """The description of this API (OpenAPI 3.1), made from the artifacts' own schemas."""
        return json_answer(describe(self.registry, self.settings))

    async def docs(self, scope: Scope, receive: Receive) -> Answer:
        """The description as a page, with a form for every operation."""
        return page("docs")

    async def dashboard(self, scope: Scope, receive: Receive) -> Answer:
        """The server's state as a page."""
        return page("dashboard")

    async def list_artifacts(self, scope: Scope, receive: Receive) -> Answer:
        """Every artifact, without its schema."""
        return json_answer({"artifacts": [_summary(spec) for spec in self.registry.list_artifacts()]})

    async def describe_artifact(self, scope: Scope, receive: Receive) -> Answer:
        """One artifact with its schema."""
        spec = self._spec(scope)
        return json_answer({**_summary(spec), "schema": spec.ports.published})

    async def artifact_schema(self, scope: Scope, receive: Receive) -> Answer:
        """The specification's ``get_artifact_schema``."""
        return json_answer(await self.api.get_artifact_schema(self._spec(scope).name))

    async def execute_artifact(self, scope: Scope, receive: Receive) -> Answer:
        """The specification's ``execute_artifact``."""
        spec = self._spec(scope)
        kind = media_type(scope)
        is_binary = kind == SAFETENSORS
        if not is_binary:
            _check_json(kind)
        accept = header(scope, b"accept")
        metadata = self.metadata(scope)
        stages = self.observations.begin(spec.name, scope)
        start = time.perf_counter()
        body: bytes | bytearray = b""
        given: dict[str, Any] | None = None
        if is_binary:
            reading = read_safetensors(Chunks(scope, receive, self.settings), self.settings)
            given, stages.copied = await self.overdue.watch(reading)
        else:
            body = await self.body(scope, receive)
        stages.add("read", start)

        def execute() -> Answer:
            start = time.perf_counter()
            inputs = read_inputs(body, spec.ports.lists, self.settings) if given is None else given
            start = stages.add("read", start)
            outputs = self.compute(spec, inputs, metadata, stages)
            start = stages.add("compute", start)
            answer = _answer(outputs, accept)
            stages.add("write", start)
            return answer

        return await self.run(spec, execute, len(body) or stages.copied, receive, metadata, stages)

    async def plan_chain(self, scope: Scope, receive: Receive) -> Answer:
        """The wiring of a chain, without running it."""
        require_json(scope)
        body = await self.body(scope, receive)

        def plan() -> Answer:
            chain = ChainBody(body, self.api)
            return json_answer(chain.wiring())

        metadata = self.metadata(scope)
        stages = self.observations.begin(CHAINS, scope)
        return await self.run(None, plan, len(body), receive, metadata, stages)

    async def execute_chain(self, scope: Scope, receive: Receive) -> Answer:
        """Runs a chain."""
        kind = media_type(scope)
        if kind != SAFETENSORS:
            _check_json(kind)
        accept = header(scope, b"accept")
        metadata = self.metadata(scope)
        stages = self.observations.begin(CHAINS, scope)
        start = time.perf_counter()
        tensors: dict[str, Any] | None = None
        body: bytes | bytearray
        if kind == SAFETENSORS:
            reading = read_tensors(Chunks(scope, receive, self.settings), self.settings)
            tensors, body, stages.copied = await self.overdue.watch(reading)
        else:
            body = await self.body(scope, receive)
        stages.add("read", start)

        def execute() -> Answer:
            start = time.perf_counter()
            chain = ChainBody(body, self.api, tensors)
            start = stages.add("read", start)
            with counting_copies() as copied:
                result, trace = chain.run(metadata)
            stages.copied += copied.bytes
            start = stages.add("compute", start)
            answer = _answer(result, accept, {} if trace is None else {"trace": trace})
            stages.add("write", start)
            return answer

        return await self.run(None, execute, len(body), receive, metadata, stages)

    def compute(
        self, spec: ArtifactSpec, inputs: dict[str, Any], metadata: dict[str, Any], stages: Stages
    ) -> dict[str, Any]:
        """Runs an artifact and notes what was copied on the way into its kernel."""
        with counting_copies() as copied:
            open_span = metadata.get("span")
            if open_span is None:
                outputs = self.api.run(spec.name, inputs, metadata)
            else:
                with open_span(f"execute {spec.name}", {"zerocost.artifact": spec.name}) as traceparent:
                    outputs = self.api.run(spec.name, inputs, {**metadata, "traceparent": traceparent})
        stages.copied += copied.bytes
        return outputs

    async def run(
        self,
        spec: ArtifactSpec | None,
        job: Callable[[], Answer],
        size: int,
        receive: Receive,
        metadata: dict[str, Any],
        stages: Stages,
    ) -> Answer:
        """Runs a job where it belongs: small work of a quick artifact here, everything else in a slot.

        Args:
            spec: the artifact, None for a chain.
            job: what to do. It may be begun twice: what turns out to be too large for here starts again in a slot.
            size: bytes of the body.
            receive: the request's.
            metadata: the execution context's; ``job`` uses it.
            stages: where the time in the queue is noted.
        """
        if spec is not None and size <= _INLINE_BYTES and spec.implementation.is_quick:
            metadata["limits"] = self._inline_limits
            try:
                return job()
            except LimitExceeded:
                del metadata["limits"]
        queued = time.perf_counter()

        def in_slot() -> Answer:
            stages.add("queue", queued)
            return job()

        return await self.limiter.run(in_slot, receive, metadata.get("deadline"))

    def small_json(self, body: bytes | bytearray) -> Any:
        """A body without tensors."""
        return read_json(body, None, max_depth=self.settings.max_depth, max_values=self.settings.max_values)

    def _spec(self, scope: Scope) -> ArtifactSpec:
        name = scope["path_params"]["name"]
        spec = self.registry.get_artifact(name)
        if spec is None:
            raise self.registry.unknown(name if len(name) <= 200 else f"{name[:200]}…")
        return spec

    def metadata(self, scope: Scope) -> dict[str, Any]:
        """What the execution context of a request carries: its id, its deadline, its trace."""
        metadata: dict[str, Any] = {"request_id": scope["zerocost.request_id"]}
        timeout = self.settings.request_timeout or None
        asked = header(scope, b"request-timeout")
        if asked is not None:
            try:
                seconds = float(asked)
            except ValueError:
                seconds = -1.0
            if not 0 < seconds < 1e9:
                raise Refused(400, "bad_request", "Request-Timeout must be a number of seconds")
            timeout = seconds if timeout is None else min(seconds, timeout)
        if timeout is not None:
            metadata["deadline"] = scope["zerocost.began"] + timeout
        span = scope.get("zerocost.span")
        if span is not None:
            metadata["span"] = span
        traceparent = header(scope, b"traceparent")
        if traceparent is not None:
            metadata["traceparent"] = traceparent
        return metadata

    async def body(self, scope: Scope, receive: Receive) -> bytes | bytearray:
        """The whole body; raises Refused (408) if it does not arrive in time."""
        return await self.overdue.watch(read_body(scope, receive, self.settings))


def _summary(spec: ArtifactSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "interface": spec.interface,
        "description": spec.implementation.get_description(),
        "metadata": dict(spec.metadata),
    }


def _answer(outputs: dict[str, Any], accept: str | None, more: Mapping[str, Any] = _NOTHING) -> Answer:
    """The answer in the form that the client accepts; ``more`` stands beside the outputs."""
    if wants_safetensors(accept):
        twice = outputs.keys() & more.keys()
        if twice:
            raise InvalidInput(
                f"{', '.join(twice)}: the name of an output; ask for JSON, where it has a place of its own"
            )
        return Answer(200, answer_pieces({**outputs, **more}), [(b"content-type", SAFETENSORS.encode())])
    content = write_json({"status": "success", "data": outputs, **more}, typed=wants_typed_tensors(accept))
    return Answer(200, [content], [_JSON])


def require_json(scope: Scope) -> None:
    """Raises Refused (415) unless the body is said to be JSON."""
    _check_json(media_type(scope))


def _check_json(kind: str) -> None:
    if kind != "application/json" and not kind.endswith("+json"):
        given = repr(kind[:100]) if kind else "none"
        raise Refused(415, "unsupported_media_type", f"Content-Type: {given} was given, application/json is needed")
