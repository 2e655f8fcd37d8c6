"""The inputs of an artifact from ``--input`` and ``--param``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zerocost.cli.files import MAIN, SUFFIXES, read, with_lists
from zerocost.cli.values import JsonText, with_arrays
from zerocost.core.arrays import is_tensor_like
from zerocost.core.ports import Ports, closest
from zerocost.errors import FileError, InvalidInput, MissingInput, ZerocostError

__all__ = ["name_errors", "parse_parameters", "read_inputs"]

_SUFFIX = "|".join(re.escape(suffix) for suffix in SUFFIXES)
_SOURCE = re.compile(rf"(?:(?P<name>[\w.-]+)=)?(?P<file>-|.*?(?:{_SUFFIX}))(?::(?P<array>.+))?", re.IGNORECASE)

_NAMED = 5
"""The largest number of arrays that an error names."""


def read_inputs(sources: Sequence[str], parameters: Sequence[str], ports: Ports) -> dict[str, Any]:
    """The inputs of ``--input`` and ``--param`` by name, with tensors as arrays.

    Args:
        sources: ``[NAME=]FILE[:ARRAY]`` each.
        parameters: ``NAME=JSON`` each.
        ports: the ports of the artifact.

    Raises:
        FileError: a file cannot be read, or does not hold the array.
        InvalidInput: an input is given twice, or lists are not a tensor.
    """
    values: dict[str, Any] = {}
    for source in sources:
        _add(values, _read(source, ports), f"--input {source}")
    _add(values, parse_parameters(parameters), "--param")
    return with_arrays(values, ports)


def parse_parameters(parameters: Sequence[str]) -> dict[str, Any]:
    """``NAME=JSON`` by name, still as text. Anything but JSON is a string, so ``operation=stats`` needs no quotes."""
    values: dict[str, Any] = {}
    for text in parameters:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise InvalidInput(f"--param: {text!r} was given, NAME=VALUE is needed", name or None)
        try:
            whole: Any = JsonText(value.encode())
            whole.read()
        except ZerocostError:
            whole = value
        _add(values, {name: whole}, "--param")
    return values


@contextmanager
def name_errors(name: str) -> Iterator[None]:
    """Errors that are raised inside name the artifact, and tell where inputs come from if one is missing."""
    try:
        yield
    except InvalidInput as error:
        hint = "; inputs come from --input FILE and --param NAME=VALUE" if isinstance(error, MissingInput) else ""
        raise type(error)(f"{name}: {error}{hint}", error.argument, error.errors) from error


def _read(source: str, ports: Ports) -> dict[str, Any]:
    name, path, array = _parts(source)
    held = read(path)
    if path.suffix.lower() == ".safetensors" and not ports.is_open:
        # The file of a result holds more than arrays. As in a chain, undeclared values are left out.
        held = {key: value for key, value in held.items() if key in ports.inputs or is_tensor_like(value)}
    elements, held = held, with_lists(held)
    if array is not None:
        if array not in (elements := {**elements, **held}):
            raise FileError(f"{path}: it holds no array {array!r}; {closest(array, elements)}", "input")
        held = {MAIN: elements[array]}
    if name is not None:
        if len(held) != 1:
            raise FileError(f"{path}: holds {len(held)} arrays; choose one with {name}={path}:ARRAY", "input")
        return {name: next(iter(held.values()))}
    # A single array of an unknown name is the main input: NumPy calls an array without a name "arr_0".
    if len(held) == 1 and not ports.is_open and not held.keys() <= ports.inputs.keys():
        only = next(iter(held))
        if path.suffix.lower() != ".json" or only == MAIN:
            held = {MAIN: held[only]}
    if MAIN not in held:
        if path.suffix.lower() != ".json":
            _refuse_other_arrays(path, held, ports)
        return held
    if ports.main_input is None:
        raise InvalidInput(f"--input {source}: the artifact has no main input; bind it with NAME={source}", "input")
    return {(ports.main_input if key == MAIN else key): value for key, value in held.items()}


def _refuse_other_arrays(path: Path, held: Mapping[str, Any], ports: Ports) -> None:
    others = [name for name in held if not ports.is_open and name not in ports.inputs]
    if others:
        shown = ", ".join(repr(name) for name in others[:_NAMED]) + (", …" if len(others) > _NAMED else "")
        inputs = ", ".join(ports.inputs)
        raise FileError(
            f"{path}: {shown} in it are not inputs (the inputs are {inputs}); choose arrays with {path}:ARRAY for the "
            f"main input or NAME={path}:ARRAY",
            "input",
        )


def _parts(source: str) -> tuple[str | None, Path, str | None]:
    if Path(source).is_file():  # its name may have = and : in it
        return None, Path(source), None
    match = _SOURCE.fullmatch(source)
    if match is None:
        name, separator, file = source.rpartition("=")
        return (name if separator else None), Path(file), None
    return match["name"], Path(match["file"]), match["array"]


def _add(values: dict[str, Any], more: Mapping[str, Any], origin: str) -> None:
    for name, value in more.items():
        if name in values:
            raise InvalidInput(f"{origin}: {name} is given twice", name)
        values[name] = value
