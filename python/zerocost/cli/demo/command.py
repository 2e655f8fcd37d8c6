"""``zerocost demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer()


@app.command(
    epilog="Exit code 0: all claims are true. 1: a claim is false.\n\nExample:\n\n[bold]zerocost demo --out pictures[/]"
)
def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="The folder for the pictures; it is created if it does not exist."
        ),
    ] = Path("demo-output"),
) -> int:
    """Run a chain on real attention scores in the process and over HTTP, compare both, and draw pictures.

    Starts its own server on a free port of this machine and stops it. Needs no network and no terminal.
    """
    from zerocost.cli.demo.run import run_demo

    return 0 if run_demo(out) else 1
