"""What several commands share: their options, and the registry that they work on."""

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
    "open_registry",
    "registry_with_warnings",
    "see_working_folder",
    "warn",
]

Additions = Annotated[
    list[str] | None,
    typer.Option(
        "--artifact",
        metavar="NAME=MODULE:CLASS",
        help="Add an artifact of your own; MODULE may lie in the working folder. May be repeated.",
    ),
]

Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="[NAME=]FILE[:ARRAY]",
        help="A .npy, .npz, .safetensors or .json file, or - for JSON on the standard input. A single array is the "
        "main input, several are bound by name; NAME= binds to another input, :ARRAY picks one array of the file. "
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
    """The built-in artifacts, those of installed plug-ins, and ``NAME=MODULE:CLASS`` ones.

    Args:
        additions: ``NAME=MODULE:CLASS`` each.
        executor: where parallel artifacts run shards and stages: ``"threads"`` or ``"ray"``.

    Returns:
        The registry, and the plug-ins that could not be loaded, by name.

    Raises:
        PluginError: an addition could not be loaded: it was asked for, so nothing goes on without it. Or Ray is not
            installed.
        RangeError: an unknown executor.
    """
    from zerocost.engine import executor as executor_of

    registry = default_registry(executor_of(executor))
    failures = registry.load_plugins()
    if additions:
        see_working_folder()
        for text in additions:
            registry.register_from(text)
    return registry, failures


def registry_with_warnings(additions: list[str] | None, executor: str = "threads") -> ArtifactRegistry:
    """As :func:`open_registry`; what could not be loaded is said on stderr, and the rest works."""
    registry, failures = open_registry(additions, executor)
    for failure in failures.values():
        warn(str(failure))
    return registry


def warn(message: str) -> None:
    """One line on stderr."""
    typer.secho("warning: ", err=True, nl=False, fg="yellow", bold=True)
    typer.echo(" ".join(message.split()), err=True)


def see_working_folder() -> None:
    """Lets modules in the working folder be imported, as ``python -m`` does."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
