"""``zerocost chain``: a chain of artifacts on files."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zerocost.cli.options import Additions, AsJson, Destination, Inputs

if TYPE_CHECKING:
    from zerocost.core.chain_wiring import Plan

app = typer.Typer()


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
    plan: Annotated[bool, typer.Option("--plan", help="Show where each input comes from, and run nothing.")] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show how long each step took and how many bytes were copied.")
    ] = False,
    as_json: AsJson = False,
    artifact: Additions = None,
) -> None:
    """Run a chain of artifacts: the outputs of one step are the inputs of the next."""
    from zerocost.cli.chain_file import read_chain
    from zerocost.cli.files import check_destination
    from zerocost.cli.inputs import name_errors, read_inputs
    from zerocost.cli.options import registry_with_warnings
    from zerocost.cli.output import deliver
    from zerocost.cli.values import with_arrays
    from zerocost.core.artifact_communication import ArtifactCommunicationService
    from zerocost.core.chain_artifact import ChainArtifact

    if out is not None:
        check_destination(out)
    registry = registry_with_warnings(artifact)
    given = read_chain(file, registry)
    pipeline = given.pipeline
    ports = ChainArtifact(pipeline, registry)._ports
    with name_errors("chain"):
        inputs = {**with_arrays(given.initial_input, ports), **read_inputs(sources or [], [], ports)}
    service = ArtifactCommunicationService(registry)
    if plan and not inputs:
        # Without any input the plan shows which inputs the chain needs; with some, a missing one is an error.
        _print_plan(service.artifact_cache.plan(pipeline, None), as_json)
        return
    with name_errors("chain"):
        wiring = service.plan(pipeline, inputs)
    if plan:
        _print_plan(wiring, as_json)
        return
    start = time.perf_counter()
    result = service.run_chain(pipeline, inputs)
    seconds = time.perf_counter() - start
    steps = [asdict(step) for step in result.trace] if trace or given.trace else None
    deliver(result.result, wiring.steps[-1].spec.ports.main_output, out, as_json, seconds, steps)


def _print_plan(wiring: Plan, as_json: bool) -> None:
    from zerocost.cli.output import console, print_json, print_table

    described = wiring.to_dict()
    if as_json:
        print_json(described)
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
