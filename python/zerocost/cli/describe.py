"""``zerocost describe``: what an artifact does, its inputs and its outputs."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from zerocost.cli.options import Additions, AsJson

app = typer.Typer()


@app.command(epilog="Example:\n\n[bold]zerocost describe sparse_attention[/]")
def describe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The artifact; see [bold]zerocost list[/].")],
    artifact: Additions = None,
    as_json: AsJson = False,
) -> None:
    """Show what an artifact does, its inputs and its outputs."""
    from zerocost.cli.options import registry_with_warnings
    from zerocost.cli.output import console, print_json, print_table

    spec = registry_with_warnings(artifact)[name]
    ports = spec.ports
    if as_json:
        print_json(
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
        screen.print("Further inputs are passed on unchanged.")
    if ports.outputs:
        screen.print()
        print_table(
            ("output", "type", "description"),
            [(output, _kind(subschema), _text(subschema)) for output, subschema in ports.outputs.items()],
        )
    screen.print(f"\nIn a chain: {ports.main_input or '(no main input)'} → {ports.main_output or '(its first output)'}")
    screen.print(f"On files:   zerocost run {spec.name} --input FILE{_example(ports.inputs, ports.main_input)}")


def _text(subschema: dict[str, Any]) -> str:
    return " ".join(str(subschema.get("description", "")).split())


def _default(name: str, subschema: dict[str, Any], required: tuple[str, ...]) -> str:
    if name in required:
        return "required"
    return json.dumps(subschema["default"]) if "default" in subschema else ""


def _example(inputs: dict[str, dict[str, Any]], main_input: str | None) -> str:
    """A ``--param`` with the first default value, if there is one."""
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
