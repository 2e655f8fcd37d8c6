"""``zerocost validate``: checks an artifact against the contract."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()


@app.command(
    epilog="Exit code 0: valid. 1: invalid; the first problem is printed.\n\n"
    "Example:\n\n[bold]zerocost validate my_module:MyArtifact[/]"
)
def validate(
    path: Annotated[
        str, typer.Argument(metavar="MODULE:CLASS", help="The class; MODULE may be in the working folder.")
    ],
) -> int:
    """Check an artifact against the contract: signatures, schema, runs on generated input, refusals."""
    from zerocost.cli.asgi_transport import serve_in_process
    from zerocost.cli.options import import_from_working_folder
    from zerocost.core.artifact_registry import load_artifact
    from zerocost.core.artifact_validation import ArtifactValidator

    import_from_working_folder()
    valid, message = ArtifactValidator(serve=serve_in_process).validate_artifact(load_artifact(path))
    typer.echo(f"{path}: {message}")
    return 0 if valid else 1
