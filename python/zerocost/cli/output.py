"""What the commands print: tables, results and JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zerocost.cli.files import flatten, write
from zerocost.cli.values import json_text

__all__ = ["console", "deliver", "in_bytes", "in_seconds", "print_json", "print_outputs", "print_table"]

_WHOLE = 64
"""Arrays of up to this many elements are printed whole."""
_ROWS = 12
"""Up to this many arrays are listed."""
_LONGEST_TEXT = 180
_PIPE_WIDTH = 200


def console() -> Console:
    """The console on the standard output. In a pipe or a file, lines are not wrapped."""
    if sys.stdout.isatty():
        return Console(highlight=False, markup=False)
    return Console(highlight=False, markup=False, soft_wrap=True, width=_PIPE_WIDTH)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[int] = ()) -> None:
    """A table without lines.

    Args:
        headings: one for each column.
        rows: text, or anything with a text.
        right: the indexes of the columns that are aligned to the right.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, heading in enumerate(headings):
        last = index == len(headings) - 1
        table.add_column(
            heading,
            justify="right" if index in right else "left",
            no_wrap=not last,
            overflow="fold" if last else "ellipsis",
        )
    for row in rows:
        table.add_row(*(Text(str(cell), style="bold cyan" if index == 0 else "") for index, cell in enumerate(row)))
    screen = console()
    if screen.is_terminal:
        screen.print(table)
        return
    with screen.capture() as capture:
        screen.print(table)
    for line in capture.get().splitlines():
        screen.print(line.rstrip())


def print_json(value: Any) -> None:
    """A line of JSON on the standard output."""
    typer.echo(json_text(value))


def deliver(
    outputs: dict[str, Any],
    main_output: str | None,
    out: Path | None,
    as_json: bool,
    seconds: float,
    trace: list[dict[str, Any]] | None = None,
) -> None:
    """Writes a result to ``out``, and prints it as JSON or as a summary, with the trace of a chain."""
    if out is not None:
        write(out, outputs, main_output)
    if as_json:
        print_json(outputs if trace is None else {"data": outputs, "trace": trace})
        return
    if trace is not None:
        _print_trace(trace)
        console().print()
    print_outputs(outputs)
    console().print(f"\n{in_seconds(seconds)}" + (f", written to {out}" if out is not None else ""), style="dim")


def print_outputs(outputs: dict[str, Any]) -> None:
    """Prints a line for each output: an array's dtype, shape, bytes and range, or a text. Small arrays follow whole."""
    arrays, others = flatten(outputs)
    if arrays:
        rows = [
            (name, array.dtype.name, list(array.shape), in_bytes(array.nbytes), *_statistics(array))
            for name, array in list(arrays.items())[:_ROWS]
        ]
        headings = ("output", "dtype", "shape", "size", "min", "mean", "max", "zero")
        print_table(headings, rows, right=(3, 4, 5, 6, 7))
        if len(rows) < len(arrays):
            console().print(f"… {len(arrays) - len(rows)} more")
    for name, value in others.items():
        console().print(Text.assemble((name, "bold cyan"), "  ", _shortened(value)))
    for name, array in arrays.items():
        if 0 < array.size <= _WHOLE and len(arrays) <= _ROWS:
            console().print(Text(f"\n{name} =", style="bold cyan"))
            console().print(np.array2string(_computable(array), precision=6, suppress_small=True, max_line_width=118))


def in_bytes(count: int) -> str:
    """A number of bytes with its unit."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError  # the loop returns


def in_seconds(seconds: float) -> str:
    """A duration with its unit."""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 100 else f"{seconds * factor:.0f} {unit}"
    return f"{seconds:.2f} s"


def _statistics(array: npt.NDArray[Any]) -> list[str]:
    if array.size == 0 or (array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16"):
        return ["", "", "", ""]
    numbers = _computable(array)
    zeros = f"{100 * (1 - np.count_nonzero(numbers) / numbers.size):.1f} %"
    if numbers.dtype.kind != "f":
        return [str(int(numbers.min())), f"{numbers.mean():.4g}", str(int(numbers.max())), zeros]
    finite = numbers[np.isfinite(numbers)]
    nans = int(np.count_nonzero(np.isnan(numbers)))
    if finite.size == 0:
        return ["", f"{nans} NaN" if nans else "", "", zeros]
    mean = f"{finite.mean(dtype=np.float64):.4g}" + (f", {nans} NaN" if nans else "")
    low, high = (np.nanmin(numbers), np.nanmax(numbers)) if nans < numbers.size else (np.nan, np.nan)
    return [f"{low:.4g}", mean, f"{high:.4g}", zeros]


def _computable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.astype(np.float32) if array.dtype.itemsize == 2 and array.dtype.kind in "fV" else array


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _print_trace(trace: list[dict[str, Any]]) -> None:
    print_table(
        ("step", "artifact", "start", "took", "in", "out", "copied", "thread"),
        [
            (
                step["id"],
                step["artifact"],
                in_seconds(step["start"]),
                in_seconds(step["duration"]),
                in_bytes(step["bytes_in"]),
                in_bytes(step["bytes_out"]),
                in_bytes(step["bytes_copied"]),
                step["thread"],
            )
            for step in trace
        ],
        right=(2, 3, 4, 5, 6),
    )
