"""Artifacts over HTTP: one Starlette app, ``uvicorn zerocost.api:app``."""

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
