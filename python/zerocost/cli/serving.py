"""``zerocost serve``: artifacts over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from zerocost.cli.options import Additions

app = typer.Typer()


@app.command(
    epilog="Limits, tokens and the like come from the environment: ZEROCOST_TOKEN, ZEROCOST_MAX_BODY, …\n\n"
    "Examples:\n\n[bold]zerocost serve --port 8000[/]\n\n"
    "[bold]zerocost serve --artifact mine=my_module:MyArtifact[/]"
)
def serve(
    host: Annotated[
        str, typer.Option(help="The address; without a token only this machine is answered.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Answer everyone, from anywhere, without a token.")
    ] = False,
    executor: Annotated[
        str,
        typer.Option(
            metavar="threads|ray",
            help="Where parallel artifacts run shards and stages; ray (extra \\[ray]) joins the cluster that "
            "RAY_ADDRESS names, or starts one.",
        ),
    ] = "threads",
    artifact: Additions = None,
) -> None:
    """Serve the artifacts over HTTP until Ctrl-C or SIGTERM; running requests finish first."""
    import dataclasses

    from zerocost.api.artifact_api import create_app
    from zerocost.api.guard import is_loopback
    from zerocost.api.server import serve as serve_app
    from zerocost.api.settings import Settings
    from zerocost.cli.options import registry_with_warnings
    from zerocost.errors import RangeError

    settings = Settings.from_environment()
    if no_auth:
        settings = dataclasses.replace(settings, auth=False)
    if settings.auth and not settings.has_token and not is_loopback(host):
        raise RangeError(
            f"--host: {host} can be reached from elsewhere, which needs a token (environment variable "
            "ZEROCOST_TOKEN) or --no-auth",
            "host",
        )
    serve_app(create_app(registry_with_warnings(artifact, executor), settings), host, port)
