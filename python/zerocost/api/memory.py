"""The bytes of bodies and answers that a server holds at one time, over all requests."""

from __future__ import annotations

from starlette.types import Scope

from zerocost.api.problems import Refused

__all__ = ["Budget", "take"]

_BUDGET = "zerocost.budget"
_HELD = "zerocost.held"


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
        self.used -= scope[_HELD]
        scope[_HELD] = 0


def take(scope: Scope, size: int) -> None:
    """Counts ``size`` bytes more for a request until it is over; outside of a server nothing is counted.

    Raises:
        Refused: all requests together hold too much (503 with Retry-After), or there is never so much (413).
    """
    budget: Budget | None = scope.get(_BUDGET)
    if budget is None:
        return
    if budget.used + size > budget.size:
        if scope[_HELD] + size > budget.size:
            raise Refused(413, "limit", f"the request needs more than {budget.size} bytes of memory")
        raise Refused(503, "overloaded", "the server holds too many bytes; try again later", {"retry-after": "1"})
    budget.used += size
    scope[_HELD] += size
