"""``If-Match`` and ``If-None-Match`` (RFC 9110, section 13.1)."""

from __future__ import annotations

from zerocost.api.wire.request import Request

__all__ = ["Preconditions"]


class Preconditions:
    """The preconditions of one request."""

    def __init__(self, request: Request) -> None:
        """Reads them; raises HTTPError (400) for a header that was sent twice."""
        self._match = _tags(request.header(b"if-match"))
        self._none_match = _tags(request.header(b"if-none-match"))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self._match is not None or self._none_match is not None

    def holds(self, tag: str | None) -> bool:
        """Whether all of them hold for the entity tag ``tag``; None: nothing is stored."""
        return self.matches(tag) and self.is_new(tag)

    def matches(self, tag: str | None) -> bool:
        """Whether ``If-Match`` holds: a client that means another version must not get this one in its place."""
        return self._match is None or _is_in(tag, self._match)

    def is_new(self, tag: str | None) -> bool:
        """Whether ``If-None-Match`` holds: a client that has this tag already need not be sent the content again."""
        if self._none_match is None:
            return True
        # Our tags are never weak, so a weak one of a client or a proxy means the same bytes.
        return not _is_in(tag, [known.removeprefix("W/") for known in self._none_match])


def _tags(value: str | None) -> list[str] | None:
    return None if value is None else [tag.strip() for tag in value.split(",")]


def _is_in(tag: str | None, tags: list[str]) -> bool:
    return tag is not None and ("*" in tags or f'"{tag}"' in tags)
