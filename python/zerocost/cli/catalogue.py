"""``zerocost list``, ``describe`` and ``validate``: what artifacts there are and whether they keep the contract."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from zerocost.cli.options import Additions, AsJson

app = typer.Typer()


@app.command("list", epilog="Example:\n\n[bold]zerocost list --interface attention[/]")
def list_artifacts(
    interface: Annotated[
        str | None, typer.Option(metavar="WORD", help="Only those of one interface: attention, parallel, memory, …")
    ] = None,
    artifact: Additions = None,
    as_json: AsJson = False,
) -> None:
    """List the artifacts: the built-in ones and those of installed plug-ins."""
    from zerocost.cli.options import registry_with_warnings
    from zerocost.cli.show import print_table

    registry = registry_with_warnings(artifact)
    specs = registry.list_artifacts(interface)
    if interface is not None and not specs:
        from zerocost.core.ports import closest
        from zerocost.errors import RangeError

        known = {spec.interface for spec in registry.list_artifacts()}
        raise RangeError(f"--interface: no artifact has the interface {interface!r}; {closest(interface, known)}")
    if as_json:
        _print_json([{"name": spec.name, "interface": spec.interface, "description": _summary(spec)} for spec in specs])
        return
    print_table(("name", "interface", "description"), [(spec.name, spec.interface, _summary(spec)) for spec in specs])


@app.command(epilog="Example:\n\n[bold]zerocost describe sparse_attention[/]")
def describe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The artifact; see [bold]zerocost list[/].")],
    artifact: Additions = None,
    as_json: AsJson = False,
) -> None:
    """Show what an artifact does, what goes in and what comes out."""
    from zerocost.cli.options import registry_with_warnings
    from zerocost.cli.show import console, print_table

    spec = registry_with_warnings(artifact)[name]
    ports = spec.ports
    if as_json:
        _print_json(
            {
                "name": spec.name,
                "interface": spec.interface,
                "description": spec.implementation.get_description(),
                "metadata": dict(spec.metadata),
                "schema": ports.schema,
            }
        )
        return
    screen = console()
    screen.print(f"{spec.name} ({spec.interface})\n", style="bold")
    screen.print(spec.implementation.get_description().strip(), "\n")
    print_table(
        ("input", "type", "default", "description"),
        [
            (input_name, _kind(subschema), _default(input_name, subschema, ports.required), _text(subschema))
            for input_name, subschema in ports.inputs.items()
        ],
    )
    if ports.is_open:
        screen.print("Further inputs are handed over as they are.")
    if ports.outputs:
        screen.print()
        print_table(
            ("output", "type", "description"),
            [(output, _kind(subschema), _text(subschema)) for output, subschema in ports.outputs.items()],
        )
    screen.print(f"\nIn a chain: {ports.main_input or '(no main input)'} → {ports.main_output or '(its first output)'}")
    screen.print(f"On files:   zerocost run {spec.name} --input FILE{_example(ports.inputs, ports.main_input)}")


@app.command(
    epilog="Exit code 0: it does. 1: it does not, and the first thing that is wrong stands in the answer.\n\n"
    "Example:\n\n[bold]zerocost validate my_module:MyArtifact[/]"
)
def validate(
    path: Annotated[
        str, typer.Argument(metavar="MODULE:CLASS", help="The class; MODULE may lie in the working folder.")
    ],
) -> int:
    """Check that an artifact keeps the contract: signatures, schema, runs on generated input, what it must refuse."""
    from zerocost.cli.options import see_working_folder
    from zerocost.cli.served import served
    from zerocost.core.artifact_registry import load_artifact
    from zerocost.core.artifact_validation import ArtifactValidator

    see_working_folder()
    valid, message = ArtifactValidator(serve=served).validate_artifact(load_artifact(path))
    typer.echo(f"{path}: {message}")
    return 0 if valid else 1


def _print_json(value: Any) -> None:
    from zerocost.cli.values import json_text

    typer.echo(json_text(value))


def _summary(spec: Any) -> str:
    """The first paragraph of the description, in one line."""
    return " ".join(spec.implementation.get_description().strip().split("\n\n")[0].split())


def _text(subschema: dict[str, Any]) -> str:
    return " ".join(str(subschema.get("description", "")).split())


def _default(name: str, subschema: dict[str, Any], required: tuple[str, ...]) -> str:
    import json

    if name in required:
        return "required"
    return json.dumps(subschema["default"]) if "default" in subschema else ""


def _example(inputs: dict[str, dict[str, Any]], main_input: str | None) -> str:
    """A ``--param`` with a default value, where there is one to show."""
    import json

    for name, subschema in inputs.items():
        if name != main_input and subschema.get("default") is not None:
            value = subschema["default"]
            return f" --param {name}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
    return ""


def _kind(subschema: dict[str, Any]) -> str:
    """A subschema in a few words: ``FP32|FP64 [..., n, n]``, ``number 0 … 1``, ``none | softmax``."""
    if "x-tensor" in subschema:
        tensor = subschema["x-tensor"]
        shape = tensor.get("shape")
        axes = f" [{', '.join(str(axis) for axis in shape)}]" if shape is not None else ""
        return f"{'|'.join(tensor.get('datatypes') or ['tensor'])}{axes}"
    if "enum" in subschema:
        return " | ".join(str(value) for value in subschema["enum"])
    if "const" in subschema:
        return str(subschema["const"])
    for key in ("anyOf", "oneOf"):
        if key in subschema:
            return " | ".join(_kind(member) for member in subschema[key])
    kind = subschema.get("type", "anything")
    text = " | ".join(kind) if isinstance(kind, list) else str(kind)
    if "prefixItems" in subschema:
        text = f"[{', '.join(_kind(item) for item in subschema['prefixItems'])}]"
    if subschema.get("x-in-process"):
        text += " (in process)"
    return text + _bounds(subschema)


def _bounds(subschema: dict[str, Any]) -> str:
    signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    given = [f"{sign} {subschema[key]}" for key, sign in signs if key in subschema]
    return f" {', '.join(given)}" if given else ""
