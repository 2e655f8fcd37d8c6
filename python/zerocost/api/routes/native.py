"""The native routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.routing import Route

from zerocost._kernels import write_json
from zerocost.api.artifact_api import ArtifactRESTAPI
from zerocost.api.calls import Calls, IOBound
from zerocost.api.openapi import describe
from zerocost.api.pages import page
from zerocost.api.routes.chains import ChainRequest
from zerocost.api.routing import route
from zerocost.api.server_metrics import ServerMetrics
from zerocost.api.telemetry.metrics import CONTENT_TYPE as METRICS_TYPE
from zerocost.api.wire.chunks import BodyStream
from zerocost.api.wire.json import check_json_type, read_inputs, wants_typed_tensors
from zerocost.api.wire.request import Request
from zerocost.api.wire.responses import JSON, Response, json_response
from zerocost.api.wire.safetensors import MEDIA_TYPE as SAFETENSORS
from zerocost.api.wire.safetensors import answer_pieces, read_safetensors, read_tensors, wants_safetensors
from zerocost.api.wire.stages import COMPUTE, READ, WRITE
from zerocost.core.arrays import counting_copies
from zerocost.core.artifact_registry import ArtifactSpec
from zerocost.errors import InvalidInput, NotAcceptable

__all__ = ["NativeRoutes"]

CHAINS = "(chains)"
"""The name under which chains of requests are observed; no artifact can have it."""

_NOTHING: Mapping[str, Any] = {}
_SAFETENSORS = (b"content-type", SAFETENSORS.encode())


class NativeRoutes:
    """The handlers, with what they share."""

    def __init__(self, api: ArtifactRESTAPI, calls: Calls, monitor: ServerMetrics) -> None:
        self.api = api
        self.registry = api.registry
        self.settings = api.settings
        self.calls = calls
        self.monitor = monitor

    def table(self) -> list[Route]:
        """The list of routes. Starlette tries one after the other: what is called most comes first."""
        posts = {
            "/artifacts/{name}/execute": self.execute_artifact,
            "/chains/plan": self.plan_chain,
            "/chains/execute": self.execute_chain,
        }
        gets = {
            "/livez": self.alive,
            "/readyz": self.ready,
            "/metrics": self.metrics,
            "/openapi.json": self.openapi,
            "/docs": self.docs,
            "/": self.dashboard,
            "/artifacts": self.list_artifacts,
            "/artifacts/{name}": self.describe_artifact,
            "/artifacts/{name}/schema": self.artifact_schema,
        }
        return [
            *(route(path, {"POST": function}) for path, function in posts.items()),
            *(route(path, {"GET": function}) for path, function in gets.items()),
        ]

    async def alive(self, request: Request) -> Response:
        """Whether the process answers."""
        return json_response({"live": True})

    async def ready(self, request: Request) -> Response:
        """Whether new requests should be sent here."""
        self.calls.check_ready()
        return json_response({"ready": True})

    async def metrics(self, request: Request) -> Response:
        """What the server saw, for Prometheus."""
        return Response(200, [await self.monitor.page()], [(b"content-type", METRICS_TYPE.encode())])

    async def openapi(self, request: Request) -> Response:
        """The description of this API (OpenAPI 3.1), made from the artifacts' own schemas."""
        return json_response(describe(self.registry, self.settings))

    async def docs(self, request: Request) -> Response:
        """The description as a page, with a form for every operation."""
        return page("docs")

    async def dashboard(self, request: Request) -> Response:
        """The server's state as a page."""
        return page("dashboard")

    async def list_artifacts(self, request: Request) -> Response:
        """Every artifact, without its schema."""
        return json_response({"artifacts": [_summary(spec) for spec in self.registry.list_artifacts()]})

    async def describe_artifact(self, request: Request) -> Response:
        """One artifact with its schema."""
        spec = self._spec(request)
        return json_response({**_summary(spec), "schema": spec.ports.published})

    async def artifact_schema(self, request: Request) -> Response:
        """The specification's ``get_artifact_schema``."""
        return json_response(await self.api.get_artifact_schema(self._spec(request).name))

    async def execute_artifact(self, request: Request) -> Response:
        """The specification's ``execute_artifact``."""
        spec, calls = self._spec(request), self.calls
        is_json = _is_json(request)
        accept = request.header(b"accept")
        stages, metadata = calls.begin(request, spec.name)
        body: bytes | bytearray = b""
        given: dict[str, Any] | None = None
        if is_json:
            body = await calls.body(request)
        else:
            chunks = BodyStream(request, self.settings)
            given, stages.copied = await calls.within_deadline(
                request, read_safetensors(chunks, self.settings, calls.offload_if_room)
            )

        def execute() -> Response:
            inputs = read_inputs(body, spec.ports.lists, self.settings) if given is None else given
            stages.end(READ)
            outputs = self.api.compute(spec, inputs, metadata, stages)
            stages.end(COMPUTE)
            answer = _answer(outputs, accept)
            stages.end(WRITE)
            return answer

        return await calls.run(request, spec.implementation, execute, len(body) or stages.copied, metadata)

    async def plan_chain(self, request: Request) -> Response:
        """The wiring of a chain, without running it."""
        check_json_type(request.media_type)
        _, metadata = self.calls.begin(request, CHAINS)
        body = await self.calls.body(request)

        def plan() -> Response:
            return json_response(ChainRequest(body, self.api).wiring())

        return await self.calls.run(request, None, plan, len(body), metadata)

    async def execute_chain(self, request: Request) -> Response:
        """Runs a chain."""
        is_json = _is_json(request)
        accept = request.header(b"accept")
        calls = self.calls
        stages, metadata = calls.begin(request, CHAINS)
        tensors: dict[str, Any] | None = None
        body: bytes | bytearray
        if is_json:
            body = await calls.body(request)
        else:
            chunks = BodyStream(request, self.settings)
            tensors, body, stages.copied = await calls.within_deadline(
                request, read_tensors(chunks, self.settings, calls.offload_if_room)
            )

        def begin() -> Response | IOBound[Response]:
            chain = ChainRequest(body, self.api, tensors)
            stages.end(READ)
            return IOBound(lambda: execute(chain)) if chain.waits else execute(chain)

        def execute(chain: ChainRequest) -> Response:
            with counting_copies() as copied:
                result, trace = chain.run(metadata)
            stages.copied += copied.bytes
            stages.end(COMPUTE)
            answer = _answer(result, accept, {} if trace is None else {"trace": trace})
            stages.end(WRITE)
            return answer

        return await calls.run(request, None, begin, len(body), metadata)

    def _spec(self, request: Request) -> ArtifactSpec:
        name = request.parameter("name")
        spec = self.registry.get_artifact(name)
        if spec is None:
            raise self.registry.unknown(name if len(name) <= 200 else f"{name[:200]}…")
        return spec


def _summary(spec: ArtifactSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "interface": spec.interface,
        "description": spec.implementation.get_description(),
        "metadata": dict(spec.metadata),
    }


def _is_json(request: Request) -> bool:
    """Whether the body is JSON, or else safetensors; raises HTTPError (415) for anything else."""
    if request.header(b"content-type") == "application/json":
        return True
    kind = request.media_type
    if kind == SAFETENSORS:
        return False
    check_json_type(kind)
    return True


def _answer(outputs: dict[str, Any], accept: str | None, more: Mapping[str, Any] = _NOTHING) -> Response:
    """The answer in the form that the client accepts; ``more`` stands beside the outputs."""
    if wants_safetensors(accept):
        twice = outputs.keys() & more.keys()
        if twice:
            raise InvalidInput(
                f"{', '.join(twice)}: the name of an output; ask for JSON, where it has a place of its own"
            )
        return Response(200, answer_pieces({**outputs, **more}), [_SAFETENSORS])
    if bytes in map(type, outputs.values()):
        raise NotAcceptable("bytes cannot be sent as JSON; raw entries of the memory are at /services/memory/entries/")
    content = write_json({"status": "success", "data": outputs, **more}, typed=wants_typed_tensors(accept))
    return Response(200, [content], [JSON])
