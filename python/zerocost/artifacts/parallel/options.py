"""Options that are one of a few words."""

from __future__ import annotations

from typing import Any

from zerocost.errors import DatatypeError, RangeError

__all__ = ["one_of"]


def one_of(value: Any, allowed: tuple[str, ...], argument: str) -> None:
    """Refuses what is none of the allowed words.

    Raises:
        DatatypeError: it is no text.
        RangeError: it is another text.
    """
    if isinstance(value, str) and value in allowed:
        return
    words = " or ".join(map(repr, allowed))
    if isinstance(value, str):
        raise RangeError(f"{argument}: {value!r} was given, {words} is allowed", argument)
    raise DatatypeError(f"{argument}: {type(value).__name__} was given, {words} is needed", argument)
