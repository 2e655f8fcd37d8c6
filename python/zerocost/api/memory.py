"""The bytes of bodies and answers that a server holds at one time, over all requests."""

from __future__ import annotations

from starlette.types import Scope

from zerocost.api.problems import Refused

__all__ = ["SMALL", "Budget", "check_room", "take"]

_BUDGET = "zerocost.budget"
_HELD = "zerocost.held"


SMALL = 64 << 10
"""Bodies and answers up to this size do not count: they are served even where there is no room for large ones."""


class Budget:
    """Counts what requests hold. Only the event loop counts."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0

    def open(self, scope: Scope) -> None:
        """Lets a request take some; it holds nothing yet."""
        scope[_BUDGET] = self

    def close(self, scope: Scope) -> None:
        """Takes back what a request holds."""
        self.used -= scope.pop(_HELD, 0)


def check_room(scope: Scope, size: int) -> None:
    """Raises as :func:`take` would for a body of ``size`` bytes that is still to come."""
    budget: Budget | None = scope.get(_BUDGET)
    if budget is not None and size > SMALL:
        _check(budget, scope, size)


def take(scope: Scope, size: int, before: int = 0) -> None:
    """Counts a body or an answer until the request is over; outside of a server nothing is counted.

    A body counts as it arrives: what a client only announces takes nothing from the others.

    Args:
        scope: the request's.
        size: how many bytes it has by now.
        before: how many of them it had at the last call.

    Raises:
        Refused: all requests together would hold too much (503 with Retry-After), or this one alone (413).
    """
    budget: Budget | None = scope.get(_BUDGET)
    if budget is None or size <= SMALL:
        return
    more = size if before <= SMALL else size - before
    _check(budget, scope, more)
    budget.used += more
    scope[_HELD] = scope.get(_HELD, 0) + more


def _check(budget: Budget, scope: Scope, more: int) -> None:
    if budget.used + more <= budget.size:
        return
    if scope.get(_HELD, 0) + more > budget.size:
        raise Refused(413, "limit", f"the request needs more than {budget.size} bytes of memory")
    raise Refused(503, "overloaded", "the server holds too many bytes; try again later", {"retry-after": "1"})
