"""Pages for people. They load nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

__all__ = ["PAGE_HEADERS", "docs_page"]


@cache
def docs_page() -> bytes:
    """The API's description with a form for every artifact."""
    return files(__name__).joinpath("docs.html").read_bytes()


def _policy() -> bytes:
    """Only the scripts and styles that stand in the page run, and nothing but this server is asked."""
    sources = ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"]
    for tag in ("script", "style"):
        match = re.search(rb"<%b>(.*?)</%b>" % (tag.encode(), tag.encode()), docs_page(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(match[1] if match else b"").digest())
        sources.append(f"{tag}-src 'sha256-{digest.decode()}'")
    return "; ".join(sources).encode()


PAGE_HEADERS = [(b"content-security-policy", _policy()), (b"referrer-policy", b"no-referrer")]
