"""The byte budget: how much all bodies and responses together may hold in memory."""

from __future__ import annotations

from zerocost.api.wire.problems import HTTPError

__all__ = ["SMALL_BODY", "ByteBudget"]

SMALL_BODY = 64 << 10
"""Bodies and responses up to this size do not count: they are served even when the budget is spent."""


class ByteBudget:
    """Counts the bytes that requests hold. Only the event loop may call it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0

    def take(self, held: int, more: int) -> int:
        """Gives ``more`` bytes to a request that holds ``held``, and returns what it holds then.

        Raises:
            HTTPError: all requests together would hold too much (503 with Retry-After), or this one alone (413).
        """
        self.check(held, more)
        self.used += more
        return held + more

    def check(self, held: int, more: int) -> None:
        """Raises as :meth:`take` would."""
        if self.used + more <= self.size:
            return
        if held + more > self.size:
            raise HTTPError(413, "limit", f"the request needs more than {self.size} bytes of memory")
        raise HTTPError(503, "overloaded", "the server holds too many bytes; try again later", {"retry-after": "1"})
