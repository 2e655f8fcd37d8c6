"""Arrays and results in files: ``.npy``, ``.npz``, ``.safetensors``, ``.json``. The suffix says the form.

A JSON file holds the inputs by name; tensors in it are nested lists (float64) or ``{"dtype", "shape", "data"}``. A
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
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from zerocost.cli.values import JsonText, json_text, members
from zerocost.core import safetensors
from zerocost.core.arrays import as_tensor, is_tensor_like
from zerocost.core.files import atomic_file
from zerocost.errors import DatatypeError, FileError

__all__ = ["MAIN", "SUFFIXES", "check_destination", "flatten", "read", "read_json", "write"]

SUFFIXES = (".npy", ".npz", ".safetensors", ".json")

MAIN = ""
"""The name under which :func:`read` gives an array that has none."""

Array = npt.NDArray[Any]


def read(path: Path) -> dict[str, Any]:
    """What a file holds, by name; an array without a name stands under :data:`MAIN`. JSON values are not read yet.

    Args:
        path: a file with one of :data:`SUFFIXES`, or ``-`` for JSON on the standard input.

    Raises:
        FileError: there is no such file, its suffix is another one, or it is not what its suffix says.
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
    except Exception as error:  # what the readers raise for a broken file is not one class
        if "bject" in str(error) and suffix != ".safetensors":
            raise FileError(
                f"{path}: holds Python objects, which would have to be unpickled: numbers are needed"
            ) from error
        raise FileError(f"{path}: not a readable {suffix} file: {error}", "input") from error


def read_json(path: Path) -> dict[str, JsonText] | list[JsonText] | JsonText:
    """What a JSON file holds; ``-`` is the standard input. See :func:`zerocost.cli.values.members`.

    Raises:
        FileError: it cannot be read, or it is no JSON.
    """
    if str(path) == "-":
        return members(sys.stdin.buffer.read(), "standard input")
    try:
        return members(path.read_bytes(), str(path))
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}", "input") from error


def check_destination(path: Path) -> None:
    """Raises FileError if :func:`write` could not write there: asked before any work is done."""
    if path.suffix.lower() not in SUFFIXES:
        raise FileError(f"--out: suffix {path.suffix!r} was given, {', '.join(SUFFIXES)} are allowed", "out")
    if path.is_dir():
        raise FileError(f"--out: {path} is a folder", "out")
    if not path.parent.is_dir():
        raise FileError(f"--out: there is no folder {path.parent}", "out")
    if not os.access(path.parent, os.W_OK):
        raise FileError(f"--out: {path.parent} cannot be written to", "out")


def write(path: Path, outputs: Mapping[str, Any], main_output: str | None) -> None:
    """Writes a result in the form that the suffix says. The file appears whole or not at all.

    Args:
        path: ``.npy`` holds the main output, which must be one array; ``.npz`` the arrays by name; ``.safetensors`` and
            ``.json`` everything.
        outputs: an artifact's outputs.
        main_output: the output that ``.npy`` holds; None if it is not declared.

    Raises:
        FileError: the result does not fit into that form, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    arrays, others = flatten(outputs)
    if suffix == ".npy":
        name = main_output if main_output is not None else next(iter(outputs), "")
        if name not in arrays:
            raise FileError(f"--out: .npy holds one array and {name!r} is none; use .npz or .safetensors", "out")
        arrays = {name: arrays[name]}
    if suffix == ".npz" and not arrays:
        raise FileError("--out: .npz holds arrays and the result has none; use .json", "out")
    if suffix in (".npy", ".npz"):
        for name, array in arrays.items():
            if array.dtype.kind in "OV":
                # NumPy would write bfloat16 as two bytes without a meaning, objects as pickles.
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
    """The arrays of a result by dotted name (``result.0``, ``result.1``, …), and everything else as it is."""
    arrays: dict[str, Array] = {}
    others: dict[str, Any] = {}

    def visit(name: str, value: Any) -> None:
        if is_tensor_like(value):
            arrays[name] = as_tensor(value, name)
        elif isinstance(value, list | tuple) and _holds_arrays(value):
            for index, item in enumerate(value):
                visit(f"{name}.{index}", item)
        elif isinstance(value, Mapping) and _holds_arrays(value.values()):
            for key, item in value.items():
                visit(f"{name}.{key}", item)
        else:
            others[name] = value

    for name, value in outputs.items():
        visit(str(name), value)
    return arrays, others


def _holds_arrays(values: Any) -> bool:
    return any(
        is_tensor_like(value)
        or (isinstance(value, list | tuple) and _holds_arrays(value))
        or (isinstance(value, Mapping) and _holds_arrays(value.values()))
        for value in values
    )


def _by_name(path: Path) -> dict[str, Any]:
    """JSON as inputs by name: an object is that already, unless it is a single tensor."""
    content = read_json(path)
    if isinstance(content, dict):
        return dict(content)
    if isinstance(content, JsonText):
        return {MAIN: content}
    return {MAIN: JsonText(b"[" + b",".join(item.text for item in content) + b"]")}


def _read_numpy(path: Path) -> dict[str, Any]:
    if path.suffix.lower() == ".npy":
        # Mapped, not read: kernels take it from the page cache.
        return {MAIN: _known(path, np.lib.format.open_memmap(path, "r").view(np.ndarray))}
    if not zipfile.is_zipfile(path):
        raise FileError(f"{path}: not a readable .npz file: no zip archive", "input")
    with np.load(path, allow_pickle=False) as archive:
        return {name: _known(path, archive[name]) for name in archive.files}


def _known(path: Path, array: Array) -> Array:
    if array.dtype.kind == "V" and array.dtype.names is None:
        raise FileError(
            f"{path}: dtype {array.dtype} says nothing; NumPy's files cannot hold bfloat16, .safetensors can"
        )
    return array


def _read_safetensors(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        message = safetensors.Message.of_file(file)
    arrays = {name: message.array(name) for name in message.slots}
    return {**arrays, **json.loads(message.metadata.get("json", "{}"))}


def _write_npz(target: BinaryIO, arrays: Mapping[str, Array]) -> None:
    # numpy.savez takes the names as keywords, so an array could not be called "file".
    with zipfile.ZipFile(target, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
