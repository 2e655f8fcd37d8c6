"""``zerocost serve``: artifacts over HTTP."""

from __future__ import annotations

import ssl
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zerocost.cli.options import Additions, open_registry, registry_with_warnings

if TYPE_CHECKING:
    from zerocost.api.settings import Settings
    from zerocost.core.artifact_registry import ArtifactRegistry

app = typer.Typer()

_TLS = "TLS"


@app.command(
    epilog="Limits, tokens and the like come from the environment: ZEROCOST_TOKEN, ZEROCOST_MAX_BODY, …\n\n"
    "Examples:\n\n[bold]zerocost serve --port 8000[/]\n\n"
    "[bold]zerocost serve --artifact mine=my_module:MyArtifact[/]"
)
def serve(
    host: Annotated[
        str, typer.Option(help="The address. Without a token only requests from this machine are answered.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for a free one.")] = 8000,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Answer requests from anywhere without a token.")] = False,
    executor: Annotated[
        str,
        typer.Option(
            metavar="threads|ray",
            help="Where parallel artifacts run shards and stages; ray (extra \\[ray]) joins the cluster that "
            "RAY_ADDRESS names, or starts one.",
        ),
    ] = "threads",
    engine: Annotated[
        str,
        typer.Option(
            metavar="uvicorn|ray",
            help="The server: uvicorn in this process, or Ray Serve (extra \\[ray]) on the cluster that RAY_ADDRESS "
            "names, or on a new one.",
        ),
    ] = "uvicorn",
    num_replicas: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --engine ray: the number of processes. Each has a memory and metrics of its own."
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            envvar="WEB_CONCURRENCY",
            help="The number of processes. They share the cores and the metrics, not the memory.",
        ),
    ] = 1,
    ssl_certfile: Annotated[Path | None, typer.Option(help="The certificate (PEM).", rich_help_panel=_TLS)] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="The key of the certificate.", rich_help_panel=_TLS)] = None,
    ssl_keyfile_password: Annotated[
        str | None,
        typer.Option(envvar="ZEROCOST_SSL_KEYFILE_PASSWORD", help="The password of the key.", rich_help_panel=_TLS),
    ] = None,
    ssl_ca_certs: Annotated[
        Path | None,
        typer.Option(help="Answer only clients with a certificate of these authorities.", rich_help_panel=_TLS),
    ] = None,
    log_format: Annotated[
        str,
        typer.Option(
            metavar="text|json",
            help="The format of the log on stderr. With --engine ray each replica has its own, in a file on its node.",
        ),
    ] = "text",
    log_level: Annotated[
        str, typer.Option(metavar="debug|info|warning|error", help="The least severe messages that are logged.")
    ] = "info",
    access_log: Annotated[bool, typer.Option(help="Log a line for every request.")] = True,
    artifact: Additions = None,
) -> None:
    """Serve the artifacts over HTTP until Ctrl-C or SIGTERM. Running requests finish first."""
    import dataclasses

    from zerocost.api.edge.authentication import is_loopback
    from zerocost.api.server.logs import configure_logs
    from zerocost.api.server.run import listen, run
    from zerocost.api.server.supervisor import serve_workers
    from zerocost.api.settings import Settings
    from zerocost.errors import RangeError

    if engine not in ("uvicorn", "ray"):
        raise RangeError(f"--engine: {engine!r} was given, 'uvicorn' or 'ray' is allowed", "engine")
    if num_replicas is not None and engine != "ray":
        raise RangeError("--num-replicas: only --engine ray has replicas", "num_replicas")
    tls = _tls(ssl_certfile, ssl_keyfile, ssl_keyfile_password, ssl_ca_certs)
    if engine == "ray" and (workers > 1 or tls):
        raise RangeError("--engine ray: use --num-replicas in place of --workers, and a proxy for TLS", "engine")
    settings = dataclasses.replace(Settings.from_environment(), processes=workers, access_log=access_log)
    if no_auth:
        settings = dataclasses.replace(settings, auth=False)
    if settings.auth and not settings.has_token and not is_loopback(host):
        raise RangeError(
            f"--host: {host} can be reached from elsewhere, which needs a token (environment variable "
            "ZEROCOST_TOKEN) or --no-auth",
            "host",
        )
    # Errors of the artifacts are reported here, once, before a worker starts.
    registry = registry_with_warnings(artifact, executor)
    factory = _AppFactory(artifact, executor, log_format, log_level, str(Path.cwd()))
    if engine == "ray":
        _on_ray(factory, settings, host, port, 1 if num_replicas is None else num_replicas)
        return
    if executor == "ray" and workers > 1:
        from zerocost.engine.cluster import export_address

        export_address()  # otherwise each worker would start its own cluster
    with listen(host, port) as listener:
        configure_logs(log_format, log_level)
        if workers > 1:
            serve_workers(factory, settings, listener, log_config=None, **tls)
        else:
            run(factory.create(registry, settings), listener, log_config=None, **tls)


def _tls(certificate: Path | None, key: Path | None, password: str | None, authorities: Path | None) -> dict[str, Any]:
    """The options of uvicorn for TLS; none without a certificate.

    Raises:
        RangeError: a key or authorities were given without a certificate.
        OSError: a file cannot be read, or is not a certificate, or not its key.
    """
    from zerocost.errors import RangeError

    if certificate is None:
        if key or password or authorities:
            raise RangeError("--ssl-certfile: a certificate is needed for TLS", "ssl_certfile")
        return {}
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
        certificate,
        key,
        password or "",  # without a password OpenSSL would ask for one on the terminal
    )
    options: dict[str, Any] = {"ssl_certfile": str(certificate), "ssl_keyfile": None if key is None else str(key)}
    options["ssl_keyfile_password"] = password
    if authorities is not None:
        options |= {"ssl_ca_certs": str(authorities), "ssl_cert_reqs": int(ssl.CERT_REQUIRED)}
    return options


@dataclass(frozen=True)
class _AppFactory:
    """Creates the app of a worker in its process."""

    artifact: list[str] | None
    executor: str
    log_format: str
    log_level: str
    folder: str

    def __call__(self, settings: Settings) -> Any:
        from zerocost.api.server.logs import configure_logs

        configure_logs(self.log_format, self.log_level)
        if self.artifact and self.folder not in sys.path:
            sys.path.insert(0, self.folder)
        return self.create(open_registry(self.artifact, self.executor)[0], settings)

    def create(self, registry: ArtifactRegistry, settings: Settings) -> Any:
        from zerocost.api.application import create_app
        from zerocost.api.telemetry.tracing import configure_export, is_enabled

        if is_enabled(settings):
            configure_export()
        return create_app(registry, settings)


def _on_ray(factory: _AppFactory, settings: Settings, host: str, port: int, num_replicas: int) -> None:
    """Serves on Ray. Every replica opens a registry of its own: the one here cannot be pickled."""
    from zerocost.api.server.logs import check_logs
    from zerocost.engine.ray_serve import serve as serve_on_ray

    check_logs(factory.log_format, factory.log_level)

    def announce(url: str) -> None:
        typer.echo(
            f"Serving at {url} with {num_replicas} replica{'s' * (num_replicas > 1)} on Ray (Ctrl-C stops)", err=True
        )

    serve_on_ray(partial(factory, settings), host, port, num_replicas, on_ready=announce)
