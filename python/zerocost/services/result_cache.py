"""A service's results in a memory artifact."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any

from zerocost.services.active_artifacts import ActiveArtifact
from zerocost.services.artifact_output import error_note

__all__ = ["cache_key", "load", "store"]


def cache_key(kind: str, *content: bytes) -> tuple[str, str]:
    """The key of a result: the same in every process, and short however long the content is.

    It is a tuple. The keys of requests are text, so no request over the network can name it.
    """
    digest = hashlib.sha256()
    for part in content:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return f"zerocost.{kind}", digest.hexdigest()


def load(memory: ActiveArtifact, key: Hashable) -> Any:
    """The value that a memory artifact holds under ``key``, or None."""
    with error_note(f"in the memory artifact {memory.spec.name!r}"):
        return memory.execute({"operation": "get", "key": key}).get("result")


def store(memory: ActiveArtifact, key: Hashable, value: Any) -> None:
    """Puts a value into a memory artifact, which may refuse it because it is too large."""
    with error_note(f"in the memory artifact {memory.spec.name!r}"):
        memory.execute({"operation": "put", "key": key, "value": value})
