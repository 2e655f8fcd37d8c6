"""What artifacts return: a dict, never a coroutine."""

from __future__ import annotations

from types import CoroutineType
from typing import Any

from zerocost.errors import InvalidOutput

__all__ = ["checked_outputs", "coroutine_error"]


def checked_outputs(outputs: Any, name: str) -> dict[str, Any]:
    """What the artifact ``name`` returned; raises InvalidOutput unless it is a dict."""
    if isinstance(outputs, dict):
        return outputs
    if type(outputs) is CoroutineType:
        raise coroutine_error(outputs, f"artifact {name!r}: execute")
    raise InvalidOutput(f"artifact {name!r}: execute returned {type(outputs).__name__}, a dict is needed")


def coroutine_error(coroutine: Any, what: str) -> InvalidOutput:
    """The error for a coroutine as a result, which is closed: nobody would await it."""
    coroutine.close()
    return InvalidOutput(f"{what} returned a coroutine; artifacts are called, not awaited: write def, not async def")
