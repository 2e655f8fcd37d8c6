"""A progress bar on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_bar"]

LONG = 512
"""With this many items a bar is shown by default."""


@contextmanager
def progress_bar(total: int, wanted: bool | None, what: str, long: int = LONG) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how many more items are done.

    Args:
        total: the number of items.
        wanted: whether to show a bar; None: on a terminal, for at least ``long`` items.
        what: the label of the bar.
        long: see ``wanted``.
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
