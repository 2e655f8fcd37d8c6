"""``zerocost demo``: the main job on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(
    epilog="Exit code 0: everything that it claims is true. 1: something is not.\n\n"
    "Example:\n\n[bold]zerocost demo --out pictures[/]"
)
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the picture goes; it is made if it is missing.")
    ] = Path("demo-output"),
) -> int:
    """Run a chain on real attention scores, in the process and over HTTP, compare both, and draw a picture.

    Starts a server of its own on a free port of this machine and stops it. Needs no network and no terminal.
    """
    from zerocost.cli.demo.run import run_demo

    return 0 if run_demo(out) else 1
