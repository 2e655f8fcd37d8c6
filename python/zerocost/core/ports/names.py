"""Names in messages: JSON pointers, and suggestions for a wrong name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["closest", "shortened", "unescaped"]

_LONGEST_NAME = 100


def unescaped(part: str) -> str:
    """A part of a JSON pointer (RFC 6901) as the name that it stands for."""
    return part.replace("~1", "/").replace("~0", "~")


def shortened(name: str) -> str:
    """A caller's name, cut to the length that a message needs."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def closest(name: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known ones, or all if there are few."""
    known = sorted(names)
    # The comparison takes time in the product of the lengths.
    near = difflib.get_close_matches(name[:_LONGEST_NAME], known, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(candidate) for candidate in near)}?"
    if not known:
        return "there are none"
    if len(known) <= 12:
        return f"there are {', '.join(repr(candidate) for candidate in known)}"
    return f"there are {len(known)} others"
