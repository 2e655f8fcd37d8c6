"""The artifacts' own routes, and those about the server: probes, metrics, pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.routing import Route

from zerocost.api.artifact_api import ArtifactRESTAPI
from zerocost.api.calls import Calls
from zerocost.api.openapi import describe
from zerocost.api.pages import page
from zerocost.api.routing import constant, route
from zerocost.api.server_metrics import ServerMetrics
from zerocost.api.telemetry.metrics import CONTENT_TYPE as METRICS_TYPE
from zerocost.api.wire.json import read_inputs
from zerocost.api.wire.request import Request
from zerocost.api.wire.responses import Response, json_response, outputs_response
from zerocost.api.wire.safetensors import read_safetensors
from zerocost.api.wire.stages import COMPUTE, READ, WRITE
from zerocost.core.artifact_registry import ArtifactSpec
from zerocost.services.service import Service

__all__ = ["NativeRoutes"]


class NativeRoutes:
    """The endpoints, with what they share.

    Args:
        api: the settings, the registry and the limits of the server.
        calls: reads and answers requests.
        metrics: the server's metrics.
        services: the class of each service, by its name.
    """

    def __init__(
        self, api: ArtifactRESTAPI, calls: Calls, metrics: ServerMetrics, services: Mapping[str, type[Service]]
    ) -> None:
        self.api = api
        self.registry = api.registry
        self.settings = api.settings
        self.calls = calls
        self.server_metrics = metrics
        self.services = services

    def table(self) -> list[Route]:
        """The list of routes. Starlette tries one after the other, so the busiest comes first."""
        gets = {
            "/livez": constant(json_response({"live": True})),
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
            route("/artifacts/{name}/execute", {"POST": self.execute_artifact}),
            *(route(path, {"GET": function}) for path, function in gets.items()),
        ]

    async def ready(self, request: Request) -> Response:
        """Whether new requests should be sent here."""
        self.calls.check_ready()
        return json_response({"ready": True})

    async def metrics(self, request: Request) -> Response:
        """The server's metrics, for Prometheus."""
        return Response(200, [await self.server_metrics.page()], [(b"content-type", METRICS_TYPE.encode())])

    async def openapi(self, request: Request) -> Response:
        """The description of this API (OpenAPI 3.1), made from the artifacts' own schemas."""
        return json_response(describe(self.registry, self.settings, self.services))

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
        is_binary = request.is_safetensors
        accept = request.header(b"accept")
        stages, metadata = calls.begin(request, spec.name)
        body: bytes | bytearray = b""
        given: dict[str, Any] | None = None
        if is_binary:
            reading = read_safetensors(request, self.settings, calls.offload_if_room)
            given, stages.copied = await calls.bodies.within_deadline(request, reading)
        else:
            body = await calls.bodies.read_whole(request)

        def execute() -> Response:
            inputs = read_inputs(body, spec.ports.lists, self.settings) if given is None else given
            stages.end(READ)
            outputs = self.api.compute(spec, inputs, metadata, stages)
            stages.end(COMPUTE)
            response = outputs_response(outputs, accept)
            stages.end(WRITE)
            return response

        return await calls.run(request, spec.implementation, execute, len(body) or stages.copied, metadata)

    def _spec(self, request: Request) -> ArtifactSpec:
        name = request.path_params["name"]
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
