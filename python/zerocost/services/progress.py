"""A progress bar on standard error, for what takes a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["bar"]

LONG = 512
"""From so many items on a terminal gets a bar unasked."""


@contextmanager
def bar(total: int, wanted: bool | None, what: str, long: int = LONG) -> Iterator[Callable[[int], None]]:
    """Gives a function that counts items.

    Args:
        total: how many items there are.
        wanted: whether to show a bar; None: for ``long`` items and more, on a terminal.
        what: what is being done.
        long: see there.
    """
    if wanted is False or (wanted is None and total < long):
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    console = Console(stderr=True)
    hidden = wanted is None and not console.is_terminal
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=hidden) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
