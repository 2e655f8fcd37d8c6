"""Options with a fixed set of choices."""

from __future__ import annotations

from typing import Any

from zerocost.errors import DatatypeError, RangeError

__all__ = ["check_choice"]


def check_choice(value: Any, allowed: tuple[str, ...], argument: str) -> None:
    """Raises unless ``value`` is one of ``allowed``.

    Raises:
        DatatypeError: it is not text.
        RangeError: it is another text.
    """
    if isinstance(value, str) and value in allowed:
        return
    words = " or ".join(map(repr, allowed))
    if isinstance(value, str):
        raise RangeError(f"{argument}: {value!r} was given, {words} is allowed", argument)
    raise DatatypeError(f"{argument}: {type(value).__name__} was given, {words} is needed", argument)
