"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_file"]


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, sync: bool = False) -> Iterator[BinaryIO]:
    """A temporary file beside ``path`` that takes its place when the block has succeeded.

    Its mode is what the umask gives. If the block raises, ``path`` stays as it was.

    Args:
        path: the file to write.
        sync: whether the content is on the disk before the file takes its place.

    Raises:
        OSError: the file cannot be written.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.urandom(8).hex()}.part")
    try:
        with part.open("xb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
