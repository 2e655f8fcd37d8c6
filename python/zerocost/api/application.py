"""The one place that puts the app together."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from zerocost.api.artifact_api import ArtifactRESTAPI
from zerocost.api.calls import Calls
from zerocost.api.edge.access_log import AccessLogMiddleware
from zerocost.api.edge.middleware import EdgeMiddleware
from zerocost.api.routes.chains import ChainRoutes
from zerocost.api.routes.native import NativeRoutes
from zerocost.api.routes.services import ServiceRoutes
from zerocost.api.routing import RouteCache
from zerocost.api.server_metrics import ServerMetrics
from zerocost.api.settings import Settings
from zerocost.api.telemetry.tracing import create_tracing
from zerocost.api.v2.routes import OpenInferenceRoutes
from zerocost.artifacts.builtin import default_registry
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.services.model_service import SimplifiedModelService

__all__ = ["create_app", "default_app"]

logger = logging.getLogger("zerocost.api")


class _App(Starlette):
    """Starlette with one middleware in place of its own two."""

    edge: ASGIApp

    def build_middleware_stack(self) -> ASGIApp:
        """The middleware, with the routes behind it."""
        return self.edge


def create_app(
    registry: ArtifactRegistry | None = None,
    settings: Settings | None = None,
    model: SimplifiedModelService | None = None,
) -> Starlette:
    """An ASGI app that serves the artifacts of a registry.

    Args:
        registry: by default a fresh one with the built-in artifacts.
        settings: by default those of the environment (``ZEROCOST_*``).
        model: the model service; by default one for the model folder of the settings, or the built-in untrained model.

    Raises:
        InvalidModel: the settings name a folder that cannot be used.
    """
    registry = default_registry() if registry is None else registry
    settings = Settings.from_environment() if settings is None else settings
    api, calls = ArtifactRESTAPI(registry, settings), Calls(settings)
    metrics = ServerMetrics(calls, registry)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        calls.is_ready = True
        async with metrics.sharing():
            yield
        calls.is_ready = False
        calls.close()

    services = ServiceRoutes(api, calls, model or SimplifiedModelService(registry, settings.model))
    routes = [
        *ChainRoutes(api, calls).table(),
        *NativeRoutes(api, calls, metrics, services.kinds).table(),
        *OpenInferenceRoutes(api, calls, metrics).table(),
        *services.table(),
    ]
    app = _App(routes=routes, lifespan=lifespan)
    route_cache = RouteCache(app.routes, ("/artifacts/{name}/execute", "/v2/models/{name}/infer"))
    app.edge = EdgeMiddleware(app.router, route_cache, settings, calls.observations)
    if settings.allowed_origins:
        app.edge = CORSMiddleware(
            app.edge,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "POST", "PUT", "DELETE"),
            allow_headers=("*",),
            expose_headers=("X-Request-Id", "Server-Timing", "ETag", "Retry-After", "Inference-Header-Content-Length"),
        )
    tracing = create_tracing(settings)
    if tracing is not None or settings.access_log:
        app.edge = AccessLogMiddleware(app.edge, tracing, log=settings.access_log)
    # After a redirect some clients would fail, and the others send their body twice.
    app.router.redirect_slashes = False
    app.state.registry = registry
    app.state.settings = settings
    app.state.stop_accepting = calls.stop_accepting
    app.state.close = calls.close
    app.state.running = lambda: calls.pending + metrics.running
    return app


def default_app() -> Starlette:
    """The app that ``uvicorn zerocost.api:app`` serves: built-in artifacts and installed plug-ins."""
    registry = default_registry()
    for failure in registry.load_plugins().values():
        logger.warning("%s", failure)
    return create_app(registry)
