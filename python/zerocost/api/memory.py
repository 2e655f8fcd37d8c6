"""The bytes of bodies and answers that a server holds at one time, over all requests."""

from __future__ import annotations

from starlette.types import Scope

from zerocost.api.problems import Refused

__all__ = ["Budget", "check_room", "take"]

_BUDGET = "zerocost.budget"
_HELD = "zerocost.held"


_FREE = 64 << 10
"""Bytes of each request that do not count: what is small is served even where there is no room for what is large."""


class Budget:
    """Counts what requests hold. Only the event loop counts."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0

    def open(self, scope: Scope) -> None:
        """Lets a request take some; it holds nothing yet."""
        scope[_BUDGET] = self
        scope[_HELD] = 0

    def close(self, scope: Scope) -> None:
        """Takes back what a request holds."""
        self.used -= max(scope[_HELD] - _FREE, 0)
        scope[_HELD] = 0


def check_room(scope: Scope, size: int) -> int:
    """The bytes that count if a request holds ``size`` more than now; outside of a server nothing does.

    Raises:
        Refused: all requests together would hold too much (503 with Retry-After), or this one alone (413).
    """
    budget: Budget | None = scope.get(_BUDGET)
    if budget is None:
        return 0
    held: int = scope[_HELD]
    counted = max(held + size - _FREE, 0) - max(held - _FREE, 0)
    if counted and budget.used + counted > budget.size:
        if held + size - _FREE > budget.size:
            raise Refused(413, "limit", f"the request needs more than {budget.size} bytes of memory")
        raise Refused(503, "overloaded", "the server holds too many bytes; try again later", {"retry-after": "1"})
    return counted


def take(scope: Scope, size: int) -> None:
    """Counts ``size`` bytes more for a request until it is over; raises as :func:`check_room`.

    A body counts as it arrives: what a client only announces takes nothing from the others.
    """
    counted = check_room(scope, size)
    budget: Budget | None = scope.get(_BUDGET)
    if budget is not None:
        budget.used += counted
        scope[_HELD] += size
