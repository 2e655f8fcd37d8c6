"""A ``model.safetensors`` file, memory-mapped: tensors are views of the file's pages, read when they are used."""

from __future__ import annotations

import hashlib
import mmap
import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zerocost.core.arrays import is_finite
from zerocost.core.copies import count_copy
from zerocost.core.safetensors import Message
from zerocost.errors import InvalidModel, ZerocostError

__all__ = ["Checkpoint"]

_PIECE = 1 << 20
"""Numbers that are checked at a time."""


class Checkpoint:
    """The tensors of one file, by name.

    Args:
        path: the file.

    Raises:
        InvalidModel: there is no such file, or it is truncated or not in this format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._written = _written(os.fstat(file.fileno()))
                self._file = Message.of_file(file)
        except OSError as error:
            parts = path.with_name(f"{path.name}.index.json")
            if parts.is_file() and not path.exists():
                raise InvalidModel(
                    f"{parts}: a checkpoint in several files is not supported, only one {path.name}"
                ) from None
            raise InvalidModel(f"{path}: cannot be read ({error.strerror or error})") from error
        except ZerocostError as error:
            raise InvalidModel(f"{path}: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._file.slots

    def tensor(self, name: str, shape: tuple[int, ...], *, is_table: bool = False) -> npt.NDArray[np.float32]:
        """The tensor ``name`` as float32 of ``shape``, read-only.

        float32 is a view of the file; float16 and bfloat16 are converted.

        Args:
            name: the name in the file.
            shape: the shape that it must have.
            is_table: whether single rows are read later; the memory of the table is released at once.

        Raises:
            InvalidModel: there is no such tensor, or it has another shape or dtype, or numbers that are not finite.
        """
        if name not in self:
            raise InvalidModel(f"{self.path}: there is no tensor {name!r}; {self._instead(name)}")
        slot = self._file.slots[name]
        if slot.shape != shape:
            raise InvalidModel(
                f"{self.path}: tensor {name!r} has shape {list(slot.shape)}, the configuration needs {list(shape)}"
            )
        if slot.format not in ("F32", "F16", "BF16"):
            raise InvalidModel(f"{self.path}: tensor {name!r} is {slot.format}; F32, F16 and BF16 are supported")
        array = _converted(self._file.raw(name), slot.format).reshape(shape)
        numbers = array.reshape(-1)
        for start in range(0, numbers.size, _PIECE):
            if not is_finite(numbers[start : start + _PIECE]):
                raise InvalidModel(f"{self.path}: tensor {name!r} has numbers that are not finite")
            if is_table:
                self.release()
        array.flags.writeable = False
        return array

    def release(self) -> None:
        """Releases the memory of the file's pages. Later reads come from the cache of the system."""
        if hasattr(mmap, "MADV_DONTNEED") and isinstance(self._file.data, mmap.mmap):
            self._file.data.madvise(mmap.MADV_DONTNEED)

    @property
    def digest(self) -> str:
        """SHA-256 of the file in hexadecimal, computed on first use.

        Raises:
            InvalidModel: the file was written to or touched after it was opened. Another file under its name does not
                count.
        """
        with suppress(OSError):  # the file was removed; the mapping still holds it
            now = _written(self.path.stat())
            if now[0] == self._written[0] and now != self._written:
                raise InvalidModel(f"{self.path}: was written to or touched after it was loaded; load it again")
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self._file.data).hexdigest()

    def _instead(self, name: str) -> str:
        similar = [known for known in self._file.slots if known.endswith(name)] or list(self._file.slots)
        return f"there is {similar[0]!r}" if similar else "the file holds no tensors"


def _written(status: os.stat_result) -> tuple[tuple[int, int], int, int]:
    """The identity of a file, and its size and time of the last write."""
    return (status.st_dev, status.st_ino), status.st_size, status.st_mtime_ns


def _converted(raw: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "BF16":
        count_copy(2 * raw.nbytes)
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype == "F16":
        count_copy(2 * raw.nbytes)
        return raw.view(np.float16).astype(np.float32)
    array = raw.view(np.float32)
    if not array.flags.aligned:  # old writers did not pad the header
        count_copy(array.nbytes)
        return array.copy()
    return array
