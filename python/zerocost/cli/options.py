"""Options that several commands share, and the registry that they use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from zerocost.artifacts.builtin import default_registry
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.errors import PluginError

__all__ = [
    "Additions",
    "AsJson",
    "Destination",
    "Inputs",
    "import_from_working_folder",
    "open_registry",
    "print_line",
    "registry_with_warnings",
    "warn",
]

Additions = Annotated[
    list[str] | None,
    typer.Option(
        "--artifact",
        metavar="NAME=MODULE:CLASS",
        help="Add an artifact of your own; MODULE may be in the working folder. May be repeated.",
    ),
]

Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="[NAME=]FILE[:ARRAY]",
        help="A .npy, .npz, .safetensors or .json file, or - for JSON on the standard input. A single array is the "
        "main input, several arrays are bound by name; NAME= chooses the input, :ARRAY the array of the file. "
        "May be repeated.",
    ),
]

Destination = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Write the result: .npy (the main output), .npz (the arrays), .safetensors or .json (everything).",
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="JSON on the standard output, for other programs.")]


def open_registry(
    additions: list[str] | None = None, executor: str = "threads"
) -> tuple[ArtifactRegistry, dict[str, PluginError]]:
    """The built-in artifacts, those of installed plug-ins, and those of ``--artifact``.

    Args:
        additions: ``NAME=MODULE:CLASS`` each.
        executor: where parallel artifacts run shards and stages: ``"threads"`` or ``"ray"``.

    Returns:
        The registry, and the errors of plug-ins that could not be loaded, by name.

    Raises:
        PluginError: an addition could not be loaded, or Ray is not installed.
        RangeError: the executor is unknown.
    """
    from zerocost.engine import executor as executor_of

    registry = default_registry(executor_of(executor))
    failures = registry.load_plugins()
    if additions:
        import_from_working_folder()
        for text in additions:
            registry.register_from(text)
    return registry, failures


def registry_with_warnings(additions: list[str] | None, executor: str = "threads") -> ArtifactRegistry:
    """:func:`open_registry`, with a warning on stderr for each plug-in that could not be loaded."""
    registry, failures = open_registry(additions, executor)
    for failure in failures.values():
        warn(str(failure))
    return registry


def warn(message: str) -> None:
    """Prints a warning as one line on stderr."""
    print_line("warning: ", "yellow", message)


def print_line(prefix: str, color: str, message: str) -> None:
    """Prints a message as one line on stderr, after a prefix in color."""
    typer.secho(prefix, err=True, nl=False, fg=color, bold=True)
    typer.echo(" ".join(message.split()), err=True)


def import_from_working_folder() -> None:
    """Makes modules in the working folder importable, as ``python -m`` does."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
