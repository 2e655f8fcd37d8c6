"""``zerocost run`` and ``chain``: artifacts on files."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zerocost.cli.options import Additions, AsJson, Destination, Inputs

if TYPE_CHECKING:
    from zerocost.core.chain_plan import Plan

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
            help="An input as JSON, or as text where it is no JSON. May be repeated.",
        ),
    ] = None,
    out: Destination = None,
    as_json: AsJson = False,
    artifact: Additions = None,
) -> None:
    """Run an artifact on arrays from files."""
    from zerocost.cli.files import check_destination
    from zerocost.cli.inputs import explained, read_inputs
    from zerocost.cli.options import registry_with_warnings
    from zerocost.core.artifact_base import ExecutionContext
    from zerocost.core.results import checked_outputs

    if out is not None:
        check_destination(out)
    spec = registry_with_warnings(artifact)[name]
    with explained(name):
        inputs = spec.ports.bind(read_inputs(sources or [], parameters or [], spec.ports))
    context = ExecutionContext(name, spec.interface, "zero_cost", {})
    start = time.perf_counter()
    outputs = checked_outputs(spec.implementation.execute(inputs, context), name)
    _deliver(outputs, spec.ports.main_output, out, as_json, time.perf_counter() - start)


@app.command(
    epilog=r'FILE holds {"pipeline": \[steps], "input": {…}}, or the list of steps alone; a step is '
    '{"artifact": …, "params": {…}}.'
    "\n\nExamples:\n\n"
    "[bold]zerocost chain pipeline.json --input scores.npy --trace --out parts.safetensors[/]\n\n"
    "[bold]zerocost chain pipeline.json --plan[/]"
)
def chain(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The chain as JSON; - is the standard input.")],
    sources: Inputs = None,
    out: Destination = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show which input comes from where, and run nothing.")] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show what each step took, and how many bytes were copied.")
    ] = False,
    as_json: AsJson = False,
    artifact: Additions = None,
) -> None:
    """Run a chain of artifacts, the outputs of one being the inputs of the next."""
    from zerocost.cli.chain_file import read_chain
    from zerocost.cli.files import check_destination
    from zerocost.cli.inputs import explained, read_inputs
    from zerocost.cli.options import registry_with_warnings
    from zerocost.cli.values import with_arrays
    from zerocost.core.artifact_communication import ArtifactCommunicationService
    from zerocost.core.chain_artifact import ChainArtifact

    if out is not None:
        check_destination(out)
    registry = registry_with_warnings(artifact)
    given = read_chain(file, registry)
    pipeline = given.pipeline
    ports = ChainArtifact(pipeline, registry)._ports
    with explained("chain"):
        inputs = {**with_arrays(given.initial_input, ports), **read_inputs(sources or [], [], ports)}
    service = ArtifactCommunicationService(registry)
    if plan and not inputs:
        # Without any input the plan shows which ones the chain needs; with some, what is missing is an error.
        _print_plan(service.artifact_cache.plan(pipeline, None), as_json)
        return
    with explained("chain"):
        wiring = service.plan(pipeline, inputs)
    if plan:
        _print_plan(wiring, as_json)
        return
    start = time.perf_counter()
    result = service.run_chain(pipeline, inputs)
    seconds = time.perf_counter() - start
    steps = [asdict(step) for step in result.trace] if trace or given.trace else None
    _deliver(result.result, wiring.steps[-1].spec.ports.main_output, out, as_json, seconds, steps)


def _deliver(
    outputs: dict[str, Any],
    main_output: str | None,
    out: Path | None,
    as_json: bool,
    seconds: float,
    trace: list[dict[str, Any]] | None = None,
) -> None:
    """The result into the file, as JSON or as a summary; the trace with it."""
    from zerocost.cli.files import write
    from zerocost.cli.show import console, in_seconds, print_outputs
    from zerocost.cli.values import json_text

    if out is not None:
        write(out, outputs, main_output)
    if as_json:
        typer.echo(json_text(outputs if trace is None else {"data": outputs, "trace": trace}))
        return
    if trace is not None:
        _print_trace(trace)
        console().print()
    print_outputs(outputs)
    console().print(f"\n{in_seconds(seconds)}" + (f", written to {out}" if out is not None else ""), style="dim")


def _print_trace(trace: list[dict[str, Any]]) -> None:
    from zerocost.cli.show import in_bytes, in_seconds, print_table

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


def _print_plan(wiring: Plan, as_json: bool) -> None:
    from zerocost.cli.show import console, print_table
    from zerocost.cli.values import json_text

    described = wiring.to_dict()
    if as_json:
        typer.echo(json_text(described))
        return
    required = [f"{name} (required)" if name in wiring.required else name for name in wiring.initial]
    console().print(f"initial input: {', '.join(required) or 'none'}\n")
    rows = []
    for step in described["steps"]:
        heading = (step["id"], step["artifact"], ", ".join(step["waits_for"]) or "-")
        for index, (name, origin) in enumerate(step["inputs"].items()):
            each = " (each element)" if step.get("each") == name else ""
            rows.append((*(heading if index == 0 else ("", "", "")), f"{name}{each}", origin))
        if not step["inputs"]:
            rows.append((*heading, "", ""))
    print_table(("step", "artifact", "waits for", "input", "comes from"), rows)
