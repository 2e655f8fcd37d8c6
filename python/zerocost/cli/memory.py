"""``zerocost memory``: the content of a cache in a file, on a server or on Redis."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import typer

from zerocost.cli.options import AsJson
from zerocost.core.artifact_base import Artifact, ExecutionContext
from zerocost.errors import InvalidInput

app = typer.Typer(name="memory", help="Inspect a cache: a snapshot file, a served instance, or a Redis server.")

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
    from zerocost.cli.output import print_json, print_table

    found = _run(target, "stats")
    if as_json:
        print_json(found)
        return
    flat = {**found, **{f"evictions ({cause})": count for cause, count in found.pop("evictions", {}).items()}}
    flat.pop("evictions", None)
    print_table(("counter", "value"), [(name, str(value)) for name, value in flat.items()], right=(1,))


@app.command(epilog="Example:\n\n[bold]zerocost memory keys cache.safetensors[/]")
def keys(target: Target, as_json: AsJson = False) -> None:
    """List the keys of a cache. Those of a snapshot or a served instance start with the next to be evicted."""
    from zerocost.cli.output import print_json

    found = _run(target, "keys")
    if as_json:
        print_json(found)
        return
    for key in found:
        typer.echo(key)


@app.command(epilog="Example:\n\n[bold]zerocost memory clear http://localhost:8000[/]")
def clear(target: Target) -> None:
    """Remove every entry of a cache. On a Redis server only the entries of zerocost are removed."""
    _run(target, "clear")
    typer.echo(f"cleared {target}")


def _run(target: str, operation: str) -> Any:
    scheme = urlsplit(target).scheme
    if scheme in ("http", "https"):
        return _served(target, operation)
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
        raise InvalidInput(
            f"TARGET: {path} is not a file; a snapshot file, an http:// or a redis:// URL is needed", "target"
        )
    cache: LRUCache[Any, Any] = LRUCache(max_bytes=2**63)
    cache.restore(path)
    result = _execute(LRUCacheArtifact(cache), operation)
    if operation == "clear":
        cache.snapshot(path)
    return result


def _served(url: str, operation: str) -> Any:
    """Calls the cache of a server. A URL that ends in /artifacts/NAME chooses another artifact."""
    from zerocost.client import RemoteArtifact

    server, _, name = url.rstrip("/").rpartition("/artifacts/")
    remote = RemoteArtifact(
        server or url, unquote(name) if server else _NAME, token=os.environ.get("ZEROCOST_TOKEN"), timeout=_TIMEOUT
    )
    try:
        return _execute(remote, operation)
    finally:
        remote.close()
