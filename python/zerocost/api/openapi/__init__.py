"""The API's description, OpenAPI 3.1, made from the artifacts' own schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zerocost._kernels import __version__
from zerocost.api.openapi import artifacts, inference, services
from zerocost.api.openapi.parts import LIVE, READY, get, plain, schemas
from zerocost.api.settings import Settings
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.services.service import Service

__all__ = ["describe"]

_DESCRIPTION = """Artifacts, chains and services over HTTP; the Open Inference Protocol v2 is under /v2.

Every response has an `X-Request-Id` (that of the request, if it has one) and a `Server-Timing`. A request may say in
`Request-Timeout` how many seconds it has, and carry a W3C `traceparent`. Tensors are returned as nested lists, or with
`Accept: application/json;tensors=typed` as `{"dtype", "shape", "data"}`. NaN and the infinities are the texts `"NaN"`,
`"Infinity"` and `"-Infinity"`, in both directions."""


def describe(registry: ArtifactRegistry, settings: Settings, kinds: Mapping[str, type[Service]]) -> dict[str, Any]:
    """The OpenAPI document of a server for ``registry`` and the services of these classes, by name."""
    paths: dict[str, Any] = {
        "/livez": get("livez", "Whether the process is alive.", LIVE, is_open=True),
        "/readyz": get("readyz", "Whether new requests should be sent here.", READY, "503", is_open=True),
        "/metrics": plain("metrics", "The server's metrics, for Prometheus.", "text/plain"),
        "/openapi.json": get(
            "openapi", "This description.", {"type": "object", "required": ["openapi", "info", "paths"]}
        ),
        "/docs": plain("docs", "This description as a page, with forms.", "text/html", is_open=True),
        "/": plain("dashboard", "The server's state as a page.", "text/html", is_open=True),
        **artifacts.paths(registry, settings),
        **services.paths(registry, kinds),
        **inference.paths(registry),
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "zerocost", "version": __version__, "description": _DESCRIPTION},
        "paths": paths,
        "components": {"schemas": schemas()},
    }
    if settings.has_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document
