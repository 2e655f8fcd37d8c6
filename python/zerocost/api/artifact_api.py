"""Artifacts over HTTP: a route translates, calls what a caller in the process calls, and renders the result."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from zerocost.api.answer import Endpoint, Shortcuts
from zerocost.api.front import Front
from zerocost.api.limiter import Limiter, contained
from zerocost.api.problems import as_input_error
from zerocost.api.routes import Routes
from zerocost.api.service_routes import ServiceRoutes
from zerocost.api.settings import Settings
from zerocost.api.tracing import tracing_of
from zerocost.api.watch import Watch
from zerocost.artifacts.builtin import default_registry
from zerocost.core.artifact_base import ExecutionContext
from zerocost.core.artifact_communication import ArtifactCommunicationService
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.limits import Limits, count_elements, limits_of
from zerocost.core.results import checked_outputs
from zerocost.errors import LimitExceeded, UnknownArtifact, ZerocostError
from zerocost.services.model_service import SimplifiedModelService

logger = logging.getLogger("zerocost.api")

__all__ = ["ArtifactRESTAPI", "create_app", "default_app"]


class ArtifactRESTAPI:
    """RESTful API wrapper for artifacts. The HTTP routes and the coroutines share :meth:`run`."""

    def __init__(self, registry: ArtifactRegistry, settings: Settings | None = None) -> None:
        self.registry = registry
        self.settings = settings or Settings()
        self.plans = ArtifactCommunicationService(registry).artifact_cache
        self.limits = Limits(
            elements=self.settings.max_elements,
            fan_out=self.settings.max_fan_out,
            parts=self.settings.max_parts,
            operations=self.settings.max_operations,
        )
        self.model_limits = replace(self.limits, operations=self.settings.max_model_operations)

    async def execute_artifact(self, artifact_name: str, request_data: dict[str, Any]) -> dict[str, Any]:
        """Execute artifact via REST.

        Returns:
            ``{"status": "success", "data": outputs}``, arrays as arrays, or ``{"error": message}``.
        """
        try:
            result = await asyncio.to_thread(contained, lambda: self.run(artifact_name, request_data))
        except UnknownArtifact:
            return {"error": "Artifact not found"}
        except Exception as error:  # the specification: whatever happens is told
            return {"error": str(error)}
        return {"status": "success", "data": result}

    async def get_artifact_schema(self, artifact_name: str) -> dict[str, Any]:
        """Get artifact schema for validation: ``{"artifact": name, "schema": schema}`` or ``{"error": message}``."""
        spec = self.registry.get_artifact(artifact_name)
        if spec is None:
            return {"error": "Artifact not found"}
        return {"artifact": artifact_name, "schema": spec.ports.published}

    def run(
        self, artifact_name: str, request_data: dict[str, Any], metadata: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Binds the input within this server's limits and executes the artifact.

        Args:
            artifact_name: the artifact's name.
            request_data: every input by name.
            metadata: for the execution context: ``request_id``, ``deadline``, …

        Raises:
            UnknownArtifact: there is none of that name.
            InvalidInput: the input breaks the schema; a ValueError or TypeError of the artifact.
            LimitExceeded: the outputs are, or would be, beyond the limit.
            Exception: whatever else the artifact raises.
        """
        spec = self.registry[artifact_name]
        context = self.context(artifact_name, spec.interface, metadata)
        try:
            bound = spec.ports.bind(request_data, limits_of(context.metadata))
            outputs = checked_outputs(spec.implementation.execute(bound, context), artifact_name)
        except ZerocostError:
            raise
        except (ValueError, TypeError) as error:
            raise as_input_error(error) from error
        for name, subschema in (spec.ports.outputs or {}).items():
            if "x-tensor" in subschema and name in outputs and outputs[name] is None:
                raise RuntimeError(f"artifact {artifact_name}: output {name!r} is declared as a tensor, it is None")
        self.check_outputs(outputs)
        return outputs

    def context(self, name: str, interface: str, metadata: dict[str, Any] | None = None) -> ExecutionContext:
        """The context of one request, with this server's limits."""
        complete: dict[str, Any] = {"limits": self.limits, **(metadata or {})}
        if "request_id" not in complete:
            complete["request_id"] = str(uuid.uuid4())
        return ExecutionContext(name, interface, "restful", complete)

    def check_outputs(self, outputs: dict[str, Any]) -> None:
        """Raises LimitExceeded if the outputs are beyond the limit."""
        elements = count_elements(outputs)
        if elements > self.settings.max_elements:
            raise LimitExceeded(f"the outputs have {elements} elements, {self.settings.max_elements} are allowed")


class _App(Starlette):
    """Starlette with one middleware in place of its own two: every exception becomes an answer at the front."""

    front: ASGIApp

    def build_middleware_stack(self) -> ASGIApp:
        """The front, with the routes behind it."""
        return self.front


def create_app(
    registry: ArtifactRegistry | None = None,
    settings: Settings | None = None,
    model: SimplifiedModelService | None = None,
) -> Starlette:
    """An ASGI app that serves the artifacts of a registry.

    Args:
        registry: by default a fresh one with the built-in artifacts.
        settings: by default those of the environment (``ZEROCOST_*``).
        model: the model service; by default one of the settings' folder, or of the built-in untrained model.

    Raises:
        InvalidModel: the settings name a folder that cannot be used.
    """
    registry = default_registry() if registry is None else registry
    settings = Settings.from_environment() if settings is None else settings
    limiter = Limiter(settings.slots, settings.max_waiting)
    routes = Routes(ArtifactRESTAPI(registry, settings), limiter)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        routes.is_ready = True
        async with routes.sharing():
            yield
        routes.is_ready = False
        limiter.close()

    services = ServiceRoutes(routes, model or SimplifiedModelService(registry, settings.model))
    app = _App(routes=[*routes.table(), *services.table()], lifespan=lifespan)
    for route in app.routes:
        if isinstance(route, Route) and isinstance(route.endpoint, Endpoint):
            route.endpoint.route = route.path
    shortcuts = Shortcuts(app.router, ("/artifacts/{name}/execute", "/v2/models/{name}/infer"))
    app.front = Front(shortcuts, settings, routes.observations)
    if settings.allowed_origins:
        app.front = CORSMiddleware(
            app.front,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "POST", "PUT", "DELETE"),
            allow_headers=("*",),
            expose_headers=("X-Request-Id", "Server-Timing", "ETag", "Retry-After", "Inference-Header-Content-Length"),
        )
    tracing = tracing_of(settings)
    if tracing is not None or settings.access_log:
        app.front = Watch(app.front, tracing, log=settings.access_log)
    # A redirect would make clients that do not follow it fail, and others send their body twice.
    app.router.redirect_slashes = False
    app.state.registry = registry
    app.state.settings = settings
    app.state.stop_taking = routes.stop_taking
    app.state.running = lambda: limiter.pending
    return app


def default_app() -> Starlette:
    """The app that ``uvicorn zerocost.api:app`` serves: built-in artifacts and installed plug-ins."""
    registry = default_registry()
    for failure in registry.load_plugins().values():
        logger.warning("%s", failure)
    return create_app(registry)
