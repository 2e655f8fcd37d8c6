"""How messages name things: JSON pointers, and the names that come close to a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["closest", "pointer", "shortened"]

_LONGEST_NAME = 100


def pointer(*path: str | int) -> str:
    """The JSON pointer (RFC 6901) of a path."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def shortened(name: str) -> str:
    """A name that a caller gave, as much of it as a message needs."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def closest(name: str, names: Iterable[str]) -> str:
    """What a message about an unknown name ends with: the nearest known one, or all of them where they are few."""
    known = sorted(names)
    # Comparing takes the product of the lengths.
    near = difflib.get_close_matches(name[:_LONGEST_NAME], known, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(candidate) for candidate in near)}?"
    if not known:
        return "there are none"
    if len(known) <= 12:
        return f"there are {', '.join(repr(candidate) for candidate in known)}"
    return f"there are {len(known)} others"
