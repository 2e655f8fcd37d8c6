"""Calls to other processes: the context on its way there, results and failures on their way back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from zerocost.core.execution_context import ExecutionContext
from zerocost.engine.cluster import failure
from zerocost.errors import DatatypeError, DeadlineExceeded, Place

__all__ = ["get_result", "pickled", "received", "sendable"]

_LOCAL_METADATA = ("deadline", "span")
"""A moment on this machine's clock; a callable of this process's tracer."""


def sendable(context: ExecutionContext) -> tuple[ExecutionContext, float | None]:
    """A context without what has a meaning in this process only, and the seconds until its deadline."""
    metadata = {name: value for name, value in context.metadata.items() if name not in _LOCAL_METADATA}
    remote = ExecutionContext(context.artifact_name, context.interface, context.mode, metadata)
    return remote, _seconds_until(context.metadata.get("deadline"))


def received(context: ExecutionContext, seconds: float | None) -> ExecutionContext:
    """The context in the process that it was sent to, with its deadline on the clock there."""
    if seconds is not None:
        context.metadata["deadline"] = time.monotonic() + seconds
    return context


def _seconds_until(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def pickled(
    ray: Any,
    send: Callable[[], Any],
    what: Callable[[], str],
    subject: str,
    argument: str | None = None,
    advice: str = "",
) -> Any:
    """What ``send`` returns, which pickles what it sends.

    Args:
        ray: the module.
        send: starts a task, an actor or a call.
        what: names it, for failures of Ray.
        subject: what is sent, for an object that cannot be pickled.
        argument: the argument that it came from.
        advice: ends the message.

    Raises:
        ServiceUnavailable: Ray failed.
        DatatypeError: something cannot be pickled.
    """
    try:
        return send()
    except ray.exceptions.RayError as error:
        raise failure(error, what) from error
    except Exception as error:  # whatever the objects themselves raise when they are pickled
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DatatypeError(f"{subject} cannot be sent to another process ({reason}){advice}", argument) from error


def get_result(ray: Any, reference: Any, what: Callable[[], str], deadline: float | None = None) -> Any:
    """The object behind a reference, as soon as it is there.

    Args:
        ray: the module.
        reference: of a task's result.
        what: names the shard, stage or replica; called when something goes wrong.
        deadline: on ``time.monotonic()``.

    Raises:
        DeadlineExceeded: it is not there in time.
        ServiceUnavailable: it was lost and could not be made again.
        LimitExceeded: it does not fit into an object store.
        Exception: what the remote code raised, with a note that names it.
    """
    try:
        return ray.get(reference, timeout=_seconds_until(deadline))
    except ray.exceptions.GetTimeoutError:
        raise DeadlineExceeded(f"the deadline passed before {what()} was there") from None
    except Exception as error:
        found = failure(error, what)
        if not getattr(found, "__notes__", None):
            found.add_note(Place(f"in {what()}, on Ray"))
        raise found from (error.__cause__ if found is error else None)
