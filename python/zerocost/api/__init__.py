"""Artifacts over HTTP: one Starlette app, ``uvicorn zerocost.api:app``.

Where what stands:

- ``application``: puts the app together.
- ``settings``: every limit, token and time-out.
- ``server``: uvicorn in the foreground, in the background, and in several workers.
- ``edge``: checks the caller, sends every response, turns exceptions into responses, writes the access log.
- ``routing``: from a request to its endpoint.
- ``routes``, ``v2``: the endpoints, native ones and those of the Open Inference Protocol.
- ``calls``: admits a request and runs it within its deadline, on a thread of a ``thread_pool``.
- ``artifact_api``: binds inputs and executes an artifact, within the limits.
- ``wire``: HTTP itself. Every header is read through ``request``, ``body`` reads bodies within limits, ``byte_budget``
  bounds the memory of all requests, ``problems`` is the table from exception to status (HTTP's own errors carry
  theirs), ``responses`` chooses the representation.
- ``telemetry``, ``server_metrics``: counters, metrics and traces.
- ``openapi``, ``pages``: the description of the API, and pages for people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.applications import Starlette

    app: Starlette

__all__ = ["app"]


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Made when a server asks for it, and once: importing zerocost.api makes no registry and loads no Starlette.
    from zerocost.api.application import default_app

    globals()["app"] = value = default_app()
    return value
