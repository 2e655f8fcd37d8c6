"""Arrays and results in files: ``.npy``, ``.npz``, ``.safetensors``, ``.json``. The suffix decides the format.

A JSON file holds inputs by name; its tensors are nested lists (float64) or ``{"dtype", "shape", "data"}``. A
safetensors file holds arrays by name, a list of arrays as ``result.0``, ``result.1``, …, and everything else as one
JSON text in its metadata. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from zerocost.cli.values import JsonText, json_text, members
from zerocost.core import safetensors
from zerocost.core.arrays import as_tensor, is_tensor_like
from zerocost.core.files import atomic_file
from zerocost.errors import DatatypeError, FileError, ShapeError

__all__ = ["MAIN", "SUFFIXES", "check_destination", "flatten", "read", "read_json", "with_lists", "write"]

SUFFIXES = (".npy", ".npz", ".safetensors", ".json")

MAIN = ""
"""The name that :func:`read` gives to an array without a name."""

Array = npt.NDArray[Any]


def read(path: Path) -> dict[str, Any]:
    """The content of a file by name; an array without a name is :data:`MAIN`. JSON values are still text.

    Args:
        path: a file with one of :data:`SUFFIXES`, or ``-`` for JSON on the standard input.

    Raises:
        FileError: there is no such file, or it does not have the format of its suffix.
    """
    if str(path) == "-":
        return _by_name(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise FileError(f"{path}: suffix {suffix!r} was given, {', '.join(SUFFIXES)} are allowed", "input")
    if not path.is_file():
        raise FileError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}", "input")
    if suffix == ".json":
        return _by_name(path)
    try:
        if suffix == ".safetensors":
            return _read_safetensors(path)
        return _read_numpy(path)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}", "input") from error
    except Exception as error:  # the readers raise several classes for a broken file
        raise FileError(f"{path}: not a readable {suffix} file: {error}", "input") from error


def read_json(path: Path) -> dict[str, JsonText] | list[JsonText] | JsonText:
    """The content of a JSON file; ``-`` is the standard input. See :func:`zerocost.cli.values.members`.

    Raises:
        FileError: the file cannot be read, or is not JSON.
    """
    if str(path) == "-":
        return members(sys.stdin.buffer.read(), "standard input")
    try:
        return members(path.read_bytes(), str(path))
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}", "input") from error


def check_destination(path: Path) -> None:
    """Raises FileError if :func:`write` cannot write there. It is called before any work is done."""
    if path.suffix.lower() not in SUFFIXES:
        raise FileError(f"--out: suffix {path.suffix!r} was given, {', '.join(SUFFIXES)} are allowed", "out")
    if path.is_dir():
        raise FileError(f"--out: {path} is a folder", "out")
    if not path.parent.is_dir():
        raise FileError(f"--out: there is no folder {path.parent}", "out")
    if not os.access(path.parent, os.W_OK):
        raise FileError(f"--out: {path.parent} cannot be written to", "out")


def write(path: Path, outputs: Mapping[str, Any], main_output: str | None) -> None:
    """Writes a result in the format of the suffix. The file appears whole or not at all.

    Args:
        path: ``.npy`` takes the main output, which must be one array; ``.npz`` takes the arrays by name;
            ``.safetensors`` and ``.json`` take everything.
        outputs: an artifact's outputs.
        main_output: the output for ``.npy``; None if none is declared.

    Raises:
        FileError: the format cannot hold the result, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    arrays, others = flatten(outputs)
    if suffix == ".npy":
        name = main_output if main_output is not None else next(iter(outputs), "")
        if name not in arrays:
            raise FileError(
                f"--out: .npy holds one array, and {name!r} is not an array; use .npz or .safetensors", "out"
            )
        arrays = {name: arrays[name]}
    if suffix == ".npz" and not arrays:
        raise FileError("--out: .npz holds arrays, and the result has none; use .json", "out")
    if suffix in (".npy", ".npz"):
        for name, array in arrays.items():
            if array.dtype.kind in "OV":
                # NumPy would write bfloat16 as two bytes of no type, and objects as pickles.
                raise FileError(f"--out: {suffix} cannot hold {name!r} of dtype {array.dtype}; use .safetensors", "out")
    try:
        if suffix == ".safetensors":
            native = {name: array.astype(array.dtype.newbyteorder("="), copy=False) for name, array in arrays.items()}
            safetensors.write(path, native, {"json": json_text(others).decode()})
            return
        with atomic_file(path) as file:
            if suffix == ".npy":
                np.save(file, next(iter(arrays.values())), allow_pickle=False)
            elif suffix == ".npz":
                _write_npz(file, arrays)
            else:
                file.write(json_text(outputs, typed=True) + b"\n")
    except DatatypeError as error:
        raise FileError(f"--out: {error}", "out") from error
    except OSError as error:
        raise FileError(f"--out: {path}: {error.strerror or error}", "out") from error


def flatten(outputs: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays of a result by dotted name (``result.0``, ``result.1``, …), and everything else unchanged."""
    arrays: dict[str, Array] = {}
    others: dict[str, Any] = {}

    def visit(name: str, value: Any) -> None:
        if is_tensor_like(value):
            arrays[name] = as_tensor(value, name)
        elif isinstance(value, list | tuple) and _holds_arrays(value):
            for part, item in safetensors.numbered(name, value).items():
                visit(part, item)
        elif isinstance(value, Mapping) and _holds_arrays(value.values()):
            for key, item in value.items():
                visit(f"{name}.{key}", item)
        else:
            others[name] = value

    for name, value in outputs.items():
        visit(str(name), value)
    return arrays, others


def with_lists(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file with ``name.0``, ``name.1``, … as lists; other writers' names may stay as they are."""
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    try:
        return {**safetensors.grouped(arrays), **{name: values[name] for name in values if name not in arrays}}
    except ShapeError:
        return dict(values)


def _holds_arrays(values: Any) -> bool:
    return any(
        is_tensor_like(value)
        or (isinstance(value, list | tuple) and _holds_arrays(value))
        or (isinstance(value, Mapping) and _holds_arrays(value.values()))
        for value in values
    )


def _by_name(path: Path) -> dict[str, Any]:
    """A JSON file as inputs by name. Anything but an object is the main input, and so is a typed tensor."""
    content = read_json(path)
    if isinstance(content, dict):
        return dict(content)
    if isinstance(content, JsonText):
        return {MAIN: content}
    return {MAIN: JsonText(b"[" + b",".join(item.text for item in content) + b"]")}


def _read_numpy(path: Path) -> dict[str, Any]:
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            _check_dtype(path, file)
        # The file is mapped: kernels read it from the page cache.
        return {MAIN: np.lib.format.open_memmap(path, "r").view(np.ndarray)}
    if not zipfile.is_zipfile(path):
        raise FileError(f"{path}: not a readable .npz file: not a zip archive", "input")
    arrays: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                _check_dtype(path, file)
                file.seek(0)
                arrays[name.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


def _check_dtype(path: Path, file: IO[bytes]) -> None:
    """Raises FileError if an array in NumPy's format has objects or bytes of no type."""
    header = np.lib.format
    version = header.read_magic(file)
    *_, dtype = (header.read_array_header_1_0 if version == (1, 0) else header.read_array_header_2_0)(file)
    if dtype.hasobject:
        raise FileError(f"{path}: holds Python objects, which would have to be unpickled: numbers are needed")
    if dtype.kind == "V" and dtype.names is None:
        raise FileError(f"{path}: dtype {dtype} has no meaning; NumPy's files cannot hold bfloat16, .safetensors can")


def _read_safetensors(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        message = safetensors.Message.of_file(file)
    arrays = {name: message.array(name) for name in message.slots}
    return {**arrays, **json.loads(message.metadata.get("json", "{}"))}


def _write_npz(target: BinaryIO, arrays: Mapping[str, Array]) -> None:
    # numpy.savez takes the names as keywords, so it refuses an array named "file".
    with zipfile.ZipFile(target, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
