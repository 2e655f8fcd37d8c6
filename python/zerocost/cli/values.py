"""JSON values as arrays and back, by the same code as over HTTP.

Tensors are nested lists, or ``{"dtype", "shape", "data"}``, which keeps the dtype. Numbers that JSON does not have are
the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from zerocost._kernels import json_spans, read_json, write_json
from zerocost.core.ports import Ports
from zerocost.core.ports.parameters import from_text
from zerocost.errors import FileError, LimitExceeded, MalformedJSON, ZerocostError

__all__ = ["JsonText", "json_text", "members", "with_arrays"]

_ANY = 1 << 40
"""No limit: the file is on this machine already."""


@dataclass(frozen=True)
class JsonText:
    """A value that is still JSON text: the input that it is for decides whether it is an array."""

    text: bytes

    def read(self) -> Any:
        """The value, without conversion of tensors."""
        return read_json(self.text, None, max_values=_ANY, max_elements=_ANY)

    def read_for(self, name: str, ports: Ports) -> Any:
        """The value of one input of an artifact: an array if a tensor is declared.

        Raises:
            InvalidInput: a list is ragged or holds something other than numbers, or a typed tensor is malformed.
        """
        body = b"{%s:%s}" % (orjson.dumps(name), self.text)
        try:
            return read_json(body, ports.lists, max_values=_ANY, max_elements=_ANY)[name]
        except ZerocostError as error:
            if error.argument is None:
                raise type(error)(f"{name}: {error}", name) from error
            raise


def members(text: bytes, source: str) -> dict[str, JsonText] | list[JsonText] | JsonText:
    """The values of an object by name, or of a list in order. Anything else, typed tensors included, is one value.

    Args:
        text: the JSON; all of it is checked.
        source: the origin of the text, for the error.

    Raises:
        FileError: the text is not JSON; the error tells the byte.
    """
    text = text.removeprefix(b"\xef\xbb\xbf")
    try:
        spans = json_spans(text, max_values=_ANY)
    except (MalformedJSON, LimitExceeded) as error:
        raise FileError(f"{source}: {error}", "input") from error
    if isinstance(spans, dict) and not {"shape", "data"} <= spans.keys():
        return {name: JsonText(text[start:end]) for name, (start, end) in spans.items()}
    if isinstance(spans, list):
        return [JsonText(text[start:end]) for start, end in spans]
    return JsonText(text)


def with_arrays(values: Mapping[str, Any], ports: Ports) -> dict[str, Any]:
    """The inputs with JSON texts read, and tensors as arrays."""
    return {
        name: from_text(
            value.read_for(name, ports) if isinstance(value, JsonText) else value, ports.inputs.get(name, {})
        )
        for name, value in values.items()
    }


def json_text(value: Any, *, typed: bool = False) -> bytes:
    """JSON with arrays as nested lists, or as ``{"dtype", "shape", "data"}`` if ``typed``.

    Raises:
        TypeError: an object has no JSON form.
    """
    return write_json(value, typed=typed)
