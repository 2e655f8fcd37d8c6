"""``zerocost run``: an artifact on files."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from zerocost.cli.options import Additions, AsJson, Destination, Inputs

app = typer.Typer()


@app.command(
    epilog="Examples:\n\n"
    "[bold]zerocost run sparse_attention --input scores.npy --param sparsity_ratio=0.8 --out sparse.npy[/]\n\n"
    "[bold]zerocost run sparse_attention -i model.safetensors:scores --param normalization=softmax[/]\n\n"
    r"[bold]echo '\[\[1, 0.5], \[0.5, 1]]' | zerocost run sliding_window_attention -i - --param window_size=1 --json[/]"
)
def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The artifact; see [bold]zerocost list[/].")],
    sources: Inputs = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUE",
            help="An input as JSON, or as text if it is not JSON. May be repeated.",
        ),
    ] = None,
    out: Destination = None,
    as_json: AsJson = False,
    artifact: Additions = None,
) -> None:
    """Run an artifact on arrays from files."""
    from zerocost.cli.files import check_destination
    from zerocost.cli.inputs import name_errors, read_inputs
    from zerocost.cli.options import registry_with_warnings
    from zerocost.cli.output import deliver
    from zerocost.core.artifact_base import ExecutionContext
    from zerocost.core.results import checked_outputs

    if out is not None:
        check_destination(out)
    spec = registry_with_warnings(artifact)[name]
    with name_errors(name):
        inputs = spec.ports.bind(read_inputs(sources or [], parameters or [], spec.ports))
    context = ExecutionContext(name, spec.interface, "zero_cost", {})
    start = time.perf_counter()
    outputs = checked_outputs(spec.implementation.execute(inputs, context), name)
    deliver(outputs, spec.ports.main_output, out, as_json, time.perf_counter() - start)
