"""Who executes an artifact, and how."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from zerocost.errors import DeadlineExceeded, RangeError

__all__ = ["ExecutionContext"]

MODES = ("zero_cost", "restful")


@dataclass
class ExecutionContext:
    """Where and how an artifact is being executed.

    Attributes:
        artifact_name: the name that the caller used.
        interface: ``"attention"``, ``"parallel"``, ``"memory"``, a plug-in's own, or ``"chain"`` for a chain's step.
        mode: ``"zero_cost"`` in the same process, ``"restful"`` on behalf of an HTTP request.
        metadata: anything. Reserved keys: ``request_id``, ``deadline`` (seconds on ``time.monotonic()``),
            ``traceparent``, ``span`` (a callable that takes a name and attributes, and returns a context manager that
            yields a ``traceparent``: the span of a step), ``step``, ``steps``, ``chain_id``, ``limits``
            (:class:`zerocost.core.limits.Limits`).

    Raises:
        RangeError: any other mode.
    """

    artifact_name: str
    interface: str
    mode: str
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise RangeError(f"mode: {self.mode!r} was given, 'zero_cost' or 'restful' is allowed", "mode")

    def check_deadline(self) -> None:
        """Raises DeadlineExceeded if the deadline in the metadata has passed."""
        deadline = self.metadata.get("deadline")
        if deadline is not None and time.monotonic() > deadline:
            raise DeadlineExceeded(f"the deadline passed {time.monotonic() - deadline:.3f} s ago")
