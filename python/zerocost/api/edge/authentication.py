"""Who may call: whoever has a token or, without tokens, this machine only.

Without a token the server's address, the Host and the Origin must be this machine's own. Otherwise a page in somebody's
browser could reach the server through a host name that points at 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import functools
import hmac
import ipaddress
import os
from collections.abc import Iterable

from zerocost.api.settings import Settings
from zerocost.api.wire.problems import HTTPError
from zerocost.api.wire.request import Request

__all__ = ["check_caller", "is_administrator", "is_loopback", "refuse_several_workers"]

_OPEN = frozenset({"/livez", "/readyz"})
"""Probes, which need no token."""

_PAGES = frozenset({"/", "/docs"})
"""A browser cannot send a token for a page that it opens: the page asks for it, and holds nothing that is secret."""


def check_caller(request: Request, settings: Settings) -> None:
    """Raises HTTPError (401, 403) for a caller who may not call."""
    if not settings.auth or request.path in _OPEN:
        return
    if settings.has_token:
        if request.path not in _PAGES:
            _check_token(request, (settings.token, settings.admin_token))
        return
    scope = request.scope
    host = request.header(b"host")
    refusal = _refusal(tuple(scope.get("server") or ()) or None, host)  # ASGI allows any iterable
    if refusal is not None:
        raise HTTPError(403, "forbidden", refusal)
    origin = request.header(b"origin")
    if origin is None or host is None:
        return
    own = f"{scope.get('scheme', 'http')}://{host.lower()}"
    if origin.lower() != own and origin not in settings.allowed_origins:
        raise HTTPError(403, "forbidden", "this server does not answer pages of other origins")


def is_administrator(request: Request, settings: Settings) -> bool:
    """Whether the caller may change the server."""
    if not settings.auth:
        return True
    given = _bearer(request)
    return settings.admin_token is not None and given is not None and _equal(given, settings.admin_token)


def refuse_several_workers(settings: Settings, instead: str) -> None:
    """Raises HTTPError (409) if this process is one of several, since the others would not know of a change."""
    workers = os.environ.get("WEB_CONCURRENCY", "1")
    if settings.processes > 1 or (workers.isdecimal() and int(workers) > 1):
        raise HTTPError(409, "several_workers", f"only one of several workers would change; {instead}")


@functools.lru_cache(maxsize=256)
def is_loopback(name: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    name = name.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


@functools.lru_cache(maxsize=256)
def _refusal(server: tuple[str, int | None] | None, host: str | None) -> str | None:
    """Why a call to this address by this name needs a token; None if both are this machine's own."""
    # A Unix socket has no port; only this machine can open it.
    if server is None or not (server[1] is None or is_loopback(server[0])):
        return "without a token this server answers on loopback addresses only"
    name = "" if host is None else host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return None if is_loopback(name) else "without a token this server answers to loopback names only"


def _check_token(request: Request, allowed: Iterable[str | None]) -> None:
    given = _bearer(request)
    if given is None:
        raise HTTPError(401, "unauthorized", "a bearer token is needed", {"www-authenticate": "Bearer"})
    # Every comparison is made, so that the time does not tell which one matched.
    matches = [_equal(given, token) for token in allowed if token is not None]
    if not any(matches):
        raise HTTPError(403, "forbidden", "the token is not valid")


def _bearer(request: Request) -> str | None:
    value = request.header(b"authorization")
    kind, _, token = (value or "").partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None


def _equal(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("latin-1"), token.encode("latin-1"))
