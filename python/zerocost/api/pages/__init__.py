"""Pages for people. They load nothing from other origins. What a token protects they fetch with the token."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from zerocost.api.wire.responses import Response

__all__ = ["page"]


@cache
def page(name: str) -> Response:
    """The page ``"dashboard"`` (the server's state) or ``"docs"`` (the API's operations, with a form for each)."""
    content = files(__name__).joinpath(f"{name}.html").read_bytes()
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", _policy(content)),
        (b"referrer-policy", b"no-referrer"),
    ]
    return Response(200, [content], headers)


def _policy(content: bytes) -> bytes:
    """The CSP: only the page's own scripts and styles run, and they may connect only to this server."""
    sources = [
        "default-src 'none'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    for tag in ("script", "style"):
        match = re.search(rb"<%b>(.*?)</%b>" % (tag.encode(), tag.encode()), content, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(match[1] if match else b"").digest())
        sources.append(f"{tag}-src 'sha256-{digest.decode()}'")
    return "; ".join(sources).encode()
