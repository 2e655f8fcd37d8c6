"""``If-Match`` and ``If-None-Match``: what must be stored for a request to have its way."""

from __future__ import annotations

from zerocost.api.wire.request import Request

__all__ = ["Preconditions"]


class Preconditions:
    """Those of one request (RFC 9110, 13.1)."""

    def __init__(self, request: Request) -> None:
        """Reads them; raises HTTPError (400) for a header that is there twice."""
        self._match = _tags(request.header(b"if-match"))
        self._none_match = _tags(request.header(b"if-none-match"))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self._match is not None or self._none_match is not None

    def holds(self, tag: str | None) -> bool:
        """Whether they hold for what has the entity tag ``tag``; None: there is nothing."""
        return self.matches(tag) and self.is_new(tag)

    def matches(self, tag: str | None) -> bool:
        """Whether ``If-Match`` holds: a client that means another version must not be given this one for it."""
        return self._match is None or _is_in(tag, self._match)

    def is_new(self, tag: str | None) -> bool:
        """Whether ``If-None-Match`` holds: a client that has that tag need not be sent it again."""
        if self._none_match is None:
            return True
        # Weak tags of clients and proxies mean the same bytes here: ours are never weak.
        return not _is_in(tag, [known.removeprefix("W/") for known in self._none_match])


def _tags(value: str | None) -> list[str] | None:
    return None if value is None else [tag.strip() for tag in value.split(",")]


def _is_in(tag: str | None, tags: list[str]) -> bool:
    return tag is not None and ("*" in tags or f'"{tag}"' in tags)
