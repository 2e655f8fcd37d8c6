"""``zerocost memory``: what a cache holds, wherever it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from zerocost.cli.options import AsJson
from zerocost.core.artifact_base import Artifact, ExecutionContext
from zerocost.errors import InvalidInput, ServiceUnavailable

app = typer.Typer(name="memory", help="Look into a cache: a snapshot file, a served instance, or a Redis server.")

_TIMEOUT = 10.0
_NAME = "lru_cache"

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="A snapshot file, http://host:port of a served instance, or redis://host:port.",
        show_default=False,
    ),
]


@app.command(epilog="Example:\n\n[bold]zerocost memory stats redis://localhost:6379[/]")
def stats(target: Target, as_json: AsJson = False) -> None:
    """Show the counters of a cache: entries, bytes, hits, misses, evictions."""
    from zerocost.cli.show import print_table
    from zerocost.cli.values import json_text

    found = _run(target, "stats")
    if as_json:
        typer.echo(json_text(found))
        return
    flat = {**found, **{f"evictions ({cause})": count for cause, count in found.pop("evictions", {}).items()}}
    flat.pop("evictions", None)
    print_table(("counter", "value"), [(name, str(value)) for name, value in flat.items()], right=(1,))


@app.command(epilog="Example:\n\n[bold]zerocost memory keys cache.safetensors[/]")
def keys(target: Target, as_json: AsJson = False) -> None:
    """List the keys of a cache; in a snapshot and a served instance the next to go first."""
    from zerocost.cli.values import json_text

    found = _run(target, "keys")
    if as_json:
        typer.echo(json_text(found))
        return
    for key in found:
        typer.echo(key)


@app.command(epilog="Example:\n\n[bold]zerocost memory clear http://localhost:8000[/]")
def clear(target: Target) -> None:
    """Remove every entry of a cache; of a Redis server only those of zerocost."""
    _run(target, "clear")
    typer.echo(f"cleared {target}")


def _run(target: str, operation: str) -> Any:
    scheme = urlsplit(target).scheme
    if scheme in ("http", "https"):
        return _ask(target, operation)
    if scheme in ("redis", "rediss", "unix"):
        from zerocost.artifacts.memory.redis_cache import RedisCacheArtifact

        return _execute(RedisCacheArtifact(target), operation)
    return _in_file(Path(target), operation)


def _execute(artifact: Artifact, operation: str) -> Any:
    context = ExecutionContext(_NAME, "memory", "zero_cost")
    return artifact.execute({"operation": operation}, context)["result"]


def _in_file(path: Path, operation: str) -> Any:
    from zerocost._kernels import LRUCache
    from zerocost.artifacts.memory.lru_cache import LRUCacheArtifact

    if not path.is_file():
        raise InvalidInput(f"TARGET: {path} is no file; a snapshot, an http:// or a redis:// URL is needed", "target")
    cache: LRUCache[Any, Any] = LRUCache(max_bytes=2**63)
    cache.restore(path)
    result = _execute(LRUCacheArtifact(cache), operation)
    if operation == "clear":
        cache.snapshot(path)
    return result


def _ask(url: str, operation: str) -> Any:
    """One call of the artifact over HTTP. A path in the URL names another artifact than the built-in one."""
    # Only who asks a server pays for the import.
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    address = url.rstrip("/") if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/artifacts/{_NAME}"
    body = json.dumps({"operation": operation}).encode()
    request = Request(  # noqa: S310  the scheme is http or https, checked by the caller
        f"{address}/execute", data=body, headers={"content-type": "application/json", "accept": "application/json"}
    )
    try:
        with urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310  as above
            data = json.load(answer)
    except HTTPError as error:
        with error:
            text = error.read().decode(errors="replace")
        raise InvalidInput(f"{address} answers {error.code}: {text[:500]}", "target") from None
    except (URLError, OSError) as error:
        raise ServiceUnavailable(f"{address} cannot be reached ({error})") from None
    return data.get("data", data)["result"]
