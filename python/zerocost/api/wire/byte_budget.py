"""The byte budget: how much all bodies and responses together may hold in memory."""

from __future__ import annotations

from zerocost.api.wire.problems import HTTPError

__all__ = ["SMALL_BODY", "ByteBudget", "Reservation"]

SMALL_BODY = 64 << 10
"""Bodies and responses up to this size do not count: they are served even when the budget is spent."""


class ByteBudget:
    """The bytes that a server may hold, and those that it holds. Only the event loop may change them."""

    __slots__ = ("size", "used")

    def __init__(self, size: float) -> None:
        self.size = size
        self.used = 0


class Reservation:
    """The bytes that one request holds of a budget."""

    __slots__ = ("_budget", "_held")

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held = 0

    def grow(self, size: int, before: int = 0) -> None:
        """Counts a body or a response until the request is over.

        A body counts as it arrives: an announced length alone takes nothing from the others.

        Args:
            size: how many bytes it has by now.
            before: how many it had at the last call.

        Raises:
            HTTPError: all requests together would hold too much (503 with Retry-After), or this one alone (413).
        """
        if size > SMALL_BODY:
            more = size if before <= SMALL_BODY else size - before
            self._check(more)
            self._budget.used += more
            self._held += more

    def check(self, size: int) -> None:
        """Raises as :meth:`grow` would for a body of ``size`` bytes that is still to come."""
        if size > SMALL_BODY:
            self._check(size)

    def _check(self, more: int) -> None:
        budget = self._budget
        if budget.used + more <= budget.size:
            return
        if self._held + more > budget.size:
            raise HTTPError(413, "limit", f"the request needs more than {budget.size} bytes of memory")
        raise HTTPError(503, "overloaded", "the server holds too many bytes; try again later", {"retry-after": "1"})

    def release(self) -> None:
        """Gives everything back."""
        self._budget.used -= self._held
        self._held = 0
