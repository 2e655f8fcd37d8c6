"""``zerocost schedule``: the schedule of a pipeline as numbers and as a chart."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zerocost.cli.options import AsJson
from zerocost.core.files import atomic_file
from zerocost.errors import DatatypeError, InvalidInput

if TYPE_CHECKING:
    from zerocost.artifacts.parallel.schedule import PipelineSchedule

app = typer.Typer()

_COLUMNS = 100
"""The width of the chart in the terminal."""


class Kind(StrEnum):
    """The schedules."""

    GPIPE = "gpipe"
    ONE_F_ONE_B = "1f1b"


@app.command(
    epilog="Example:\n\n[bold]zerocost schedule --num-stages 4 --num-microbatches 8 --kind 1f1b --plot gantt.svg[/]"
)
def schedule(
    num_stages: Annotated[int, typer.Option("--num-stages", "-s", help="The number of stages.")] = 4,
    num_microbatches: Annotated[int, typer.Option("--num-microbatches", "-m", help="The number of micro-batches.")] = 8,
    kind: Annotated[
        Kind, typer.Option("--kind", "-k", help="All forward passes first, or forward and backward passes in turn.")
    ] = (Kind.GPIPE),
    forward: Annotated[
        str, typer.Option(metavar="TIME[,TIME…]", help="The time of a forward pass: one number, or one per stage.")
    ] = "1",
    backward: Annotated[
        str, typer.Option(metavar="TIME[,TIME…]", help="The time of a backward pass; 0 for forward only.")
    ] = "2",
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw the Gantt chart.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show when each stage of a pipeline runs which micro-batch, how long it idles, and how many it holds."""
    from zerocost.artifacts.parallel.schedule import pipeline_schedule

    if plot is not None and plot.suffix != ".svg":
        raise InvalidInput(f"--plot: {plot.name} was given, a file name that ends in .svg is needed", "plot")
    found = pipeline_schedule(
        num_stages,
        num_microbatches,
        kind.value,
        forward=_times(forward, "forward"),
        backward=_times(backward, "backward"),
    )
    if plot is not None:
        with atomic_file(plot) as file:
            file.write(gantt(found).encode())
    if as_json:
        _print_json(found)
    else:
        _print(found)


def _times(text: str, argument: str) -> float | list[float]:
    try:
        times = [float(part) for part in text.split(",")]
    except ValueError:
        raise DatatypeError(
            f"--{argument}: {text!r} was given, numbers separated by commas are needed", argument
        ) from None
    return times[0] if len(times) == 1 else times


def _print_json(found: PipelineSchedule) -> None:
    from zerocost.cli.output import print_json

    facts = {
        "kind": found.kind,
        "num_stages": found.num_stages,
        "num_microbatches": found.num_microbatches,
        "makespan": found.makespan,
        "bubble_fraction": found.bubble_fraction,
        "bubble_to_ideal": found.bubble_to_ideal,
        "idle": list(found.idle),
        "peak": list(found.peak),
        "items": [item._asdict() for item in found.items],
    }
    print_json(facts)


def _print(found: PipelineSchedule) -> None:
    from zerocost.cli.output import console

    screen = console()
    scale = _COLUMNS / found.makespan if found.makespan else 0.0
    for stage in range(found.num_stages):
        line = [" "] * (_COLUMNS + 1)
        for item in found.items:
            begin, end = round(item.start * scale), round((item.start + item.duration) * scale)
            if item.stage == stage and end > begin:
                filling = "━" if item.direction == "F" else "─"
                line[begin:end] = f"{item.direction}{item.micro_batch}".ljust(end - begin, filling)[: end - begin]
        screen.print(f"stage {stage:<4}{''.join(line).rstrip()}")
    rows = zip(range(found.num_stages), found.idle, found.peak, strict=True)
    for stage, idle, peak in rows:
        screen.print(f"stage {stage:<4}idle {idle:g} of {found.makespan:g}, holds at most {peak} micro-batches")
    screen.print(f"makespan  {found.makespan:g}")
    fraction, ratio = found.bubble_fraction, found.bubble_to_ideal
    screen.print(f"bubble    {fraction:.1%} of the stages' time; {ratio:.1%} of the working time")


def gantt(found: PipelineSchedule) -> str:
    """The Gantt chart as SVG: a row for each stage, forward passes dark, backward passes light."""
    left, row, wide, top = 70, 30, 900, 34
    scale = wide / found.makespan if found.makespan else 0.0
    height = top + row * found.num_stages + 12
    title = (
        f"{found.kind}, {found.num_stages} stages, {found.num_microbatches} micro-batches: makespan "
        f"{found.makespan:g}, bubble {found.bubble_fraction:.1%}"
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + wide + 12}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{left}" y="20">{title}</text>',
    ]
    lines += [f'<text x="8" y="{top + row * stage + 18}">stage {stage}</text>' for stage in range(found.num_stages)]
    for item in found.items:
        x, width = left + item.start * scale, item.duration * scale
        y = top + row * item.stage
        fill, text = ("#1f5a8a", "white") if item.direction == "F" else ("#a9d3a4", "black")
        lines.append(
            f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{row - 4}" fill="{fill}" stroke="white">'
            f"<title>{item.direction}{item.micro_batch}, stage {item.stage}: {item.start:g} to "
            f"{item.start + item.duration:g}</title></rect>"
        )
        if width > 16:
            middle = x + width / 2
            lines.append(
                f'<text x="{middle:.2f}" y="{y + 17}" text-anchor="middle" fill="{text}">{item.micro_batch}</text>'
            )
    return "\n".join([*lines, "</svg>", ""])
