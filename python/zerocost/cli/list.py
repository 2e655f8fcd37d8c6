"""``zerocost list``: the known artifacts."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from zerocost.cli.options import Additions, AsJson

app = typer.Typer()


@app.command("list", epilog="Example:\n\n[bold]zerocost list --interface attention[/]")
def list_artifacts(
    interface: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="Only artifacts of this interface: attention, parallel, memory, …"),
    ] = None,
    artifact: Additions = None,
    as_json: AsJson = False,
) -> None:
    """List the built-in artifacts and those of installed plug-ins."""
    from zerocost.cli.options import registry_with_warnings
    from zerocost.cli.output import print_json, print_table

    registry = registry_with_warnings(artifact)
    specs = registry.list_artifacts(interface)
    if interface is not None and not specs:
        from zerocost.core.ports import closest
        from zerocost.errors import RangeError

        known = {spec.interface for spec in registry.list_artifacts()}
        raise RangeError(f"--interface: no artifact has the interface {interface!r}; {closest(interface, known)}")
    if as_json:
        print_json([{"name": spec.name, "interface": spec.interface, "description": _summary(spec)} for spec in specs])
        return
    print_table(("name", "interface", "description"), [(spec.name, spec.interface, _summary(spec)) for spec in specs])


def _summary(spec: Any) -> str:
    """The first paragraph of the description, in one line."""
    return " ".join(spec.implementation.get_description().strip().split("\n\n")[0].split())
