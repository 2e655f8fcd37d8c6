"""What becomes of an execution context on its way to another process, and of results and failures on their way back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from zerocost.core.artifact_base import ExecutionContext
from zerocost.engine.cluster import failure
from zerocost.errors import DeadlineExceeded

__all__ = ["arrived", "left", "packed", "result"]

_AT_HOME = ("deadline", "span")
"""A moment on this machine's clock; a callable of this process's tracer."""


def packed(context: ExecutionContext) -> tuple[ExecutionContext, float | None]:
    """A context without what means something in this process only, and the seconds until its deadline."""
    metadata = {name: value for name, value in context.metadata.items() if name not in _AT_HOME}
    there = ExecutionContext(context.artifact_name, context.interface, context.mode, metadata)
    return there, left(context.metadata.get("deadline"))


def arrived(context: ExecutionContext, seconds: float | None) -> ExecutionContext:
    """The context in the process that it was sent to, with its deadline on the clock there."""
    if seconds is not None:
        context.metadata["deadline"] = time.monotonic() + seconds
    return context


def left(deadline: float | None) -> float | None:
    """The seconds until a deadline, 0 when it has passed."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def result(ray: Any, reference: Any, what: Callable[[], str], deadline: float | None = None) -> Any:
    """What is behind a reference, as soon as it is there.

    Args:
        ray: the module.
        reference: of a task's result.
        what: names the shard, stage or replica; asked when something goes wrong.
        deadline: on ``time.monotonic()``.

    Raises:
        DeadlineExceeded: it is not there in time.
        ServiceUnavailable: it was lost and could not be made again.
        LimitExceeded: it does not fit an object store.
        Exception: what the code raised that made it, with a note that names it.
    """
    try:
        return ray.get(reference, timeout=left(deadline))
    except ray.exceptions.GetTimeoutError:
        raise DeadlineExceeded(f"the deadline passed before {what()} was there") from None
    except Exception as error:
        found = failure(error, what)
        if not getattr(found, "__notes__", None):
            found.add_note(f"in {what()}, on Ray")
        raise found from (error.__cause__ if found is error else None)
