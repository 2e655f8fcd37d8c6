"""``zerocost validate``: whether an artifact keeps the contract."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()


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
    from zerocost.cli.asgi_transport import serve_in_process
    from zerocost.cli.options import see_working_folder
    from zerocost.core.artifact_registry import load_artifact
    from zerocost.core.artifact_validation import ArtifactValidator

    see_working_folder()
    valid, message = ArtifactValidator(serve=serve_in_process).validate_artifact(load_artifact(path))
    typer.echo(f"{path}: {message}")
    return 0 if valid else 1
