"""A request as those see it who stand around the app and write down what became of it."""

from __future__ import annotations

from dataclasses import dataclass

from zerocost.api.request import Request

__all__ = ["WATCHED", "Watched"]

WATCHED = "zerocost.watched"
"""Where the scope has a :class:`Watched`, if anybody wants one."""


@dataclass(slots=True)
class Watched:
    """What the front of the app leaves behind; None where it has not seen the request."""

    request: Request | None = None
