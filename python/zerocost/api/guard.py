"""Who may call: tokens, and without one this machine only.

Without a token the server address, the Host and the Origin must be this machine's own: a page that a browser has open
must not reach the server through a name that somebody points at 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import functools
import hmac
import ipaddress
import os
from collections.abc import Iterable

from starlette.types import Scope

from zerocost.api.problems import Refused
from zerocost.api.settings import Settings

__all__ = [
    "OPEN_PATHS",
    "check_caller",
    "header",
    "is_administrator",
    "is_loopback",
    "refuse_several_workers",
    "route_path",
]

_HEADERS = "zerocost.headers"
"""Where the scope keeps the headers by name."""

OPEN_PATHS = frozenset({"/livez", "/readyz"})

_PAGES = frozenset({"/", "/docs"})
"""A browser cannot send a token with a page that it opens: the page asks for it, and holds nothing before."""


def header(scope: Scope, name: bytes) -> str | None:
    """The only value of a header, None if there is none.

    Raises:
        Refused: the header is there more than once (400).
    """
    try:
        headers: dict[bytes, bytes] = scope[_HEADERS]
    except KeyError:
        headers = scope[_HEADERS] = dict(scope["headers"])
    value = headers.get(name)
    if value is None:
        return None
    if len(headers) != len(scope["headers"]) and sum(key == name for key, _ in scope["headers"]) > 1:
        raise Refused(400, "bad_request", f"the header {name.decode()} was sent more than once")
    return value.decode("latin-1")


def route_path(scope: Scope) -> str:
    """The path without the prefix under which another app may have mounted this one."""
    path: str = scope["path"]
    prefix = scope.get("root_path")
    return path.removeprefix(prefix) if prefix else path


def check_caller(scope: Scope, settings: Settings) -> None:
    """Raises Refused (401, 403) for a caller who may not call."""
    if not settings.auth:
        return
    if settings.has_token:
        if route_path(scope) in _PAGES:
            return
        _check_token(scope, (settings.token, settings.admin_token))
        return
    server = scope.get("server")
    # A socket file has no port, and only this machine.
    if server is None or not (server[1] is None or is_loopback(server[0])):
        raise Refused(403, "forbidden", "without a token this server answers on loopback addresses only")
    host = header(scope, b"host")
    if host is None or not _is_loopback_host(host):
        raise Refused(403, "forbidden", "without a token this server answers to loopback names only")
    origin = header(scope, b"origin")
    if origin is None:
        return
    own = f"{scope.get('scheme', 'http')}://{host.lower()}"
    if origin.lower() != own and origin not in settings.allowed_origins:
        raise Refused(403, "forbidden", "this server does not answer pages of other origins")


def is_administrator(scope: Scope, settings: Settings) -> bool:
    """Whether the caller may change the server."""
    if not settings.auth:
        return True
    given = _bearer(scope)
    return settings.admin_token is not None and given is not None and _equal(given, settings.admin_token)


def refuse_several_workers(settings: Settings, instead: str) -> None:
    """Raises Refused (409) if this process is one of several: what it changes, the others would not know."""
    told = os.environ.get("WEB_CONCURRENCY", "1")
    if settings.processes > 1 or (told.isdecimal() and int(told) > 1):
        raise Refused(409, "several_workers", f"one worker of several would change; {instead}")


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
def _is_loopback_host(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name)


def _check_token(scope: Scope, allowed: Iterable[str | None]) -> None:
    given = _bearer(scope)
    if given is None:
        raise Refused(401, "unauthorized", "a bearer token is needed", {"www-authenticate": "Bearer"})
    # Every comparison is made, so the time does not tell which one fitted.
    fits = [_equal(given, token) for token in allowed if token is not None]
    if not any(fits):
        raise Refused(403, "forbidden", "the token is not valid")


def _bearer(scope: Scope) -> str | None:
    value = header(scope, b"authorization")
    kind, _, token = (value or "").partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None


def _equal(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("latin-1"), token.encode("latin-1"))
