"""JSON bodies: declared tensors are parsed into arrays, everything else stays what it is."""

from __future__ import annotations

from typing import Any

from zerocost._kernels import json_spans, read_json
from zerocost.api.settings import Settings
from zerocost.errors import DatatypeError

__all__ = ["LazyJSON", "TensorTable", "read_document", "read_inputs"]

TensorTable = dict[str, tuple[str, bool, bool]]
"""What lists become, for each name that is read as a tensor: :attr:`zerocost.core.ports.Ports.lists`."""


def read_document(body: bytes | bytearray | memoryview, settings: Settings) -> Any:
    """A document without tensors."""
    return read_json(body, None, max_depth=settings.max_depth, max_values=settings.max_values)


def read_inputs(
    body: bytes | bytearray | memoryview, table: TensorTable, settings: Settings, what: str = "the body"
) -> dict[str, Any]:
    """The object in ``body``, which errors call ``what``, with arrays for the tensors in ``table``.

    Raises:
        MalformedJSON: the body is not JSON.
        DatatypeError: it is not an object.
        ShapeError, DatatypeError, RangeError: a tensor that cannot be read.
        LimitExceeded: it is beyond a limit.
    """
    value = read_json(
        body, table, max_depth=settings.max_depth, max_values=settings.max_values, max_elements=settings.max_elements
    )
    if not isinstance(value, dict):
        raise DatatypeError(f"{what} is {_name_of(value)}, an object is needed")
    return value


class LazyJSON:
    """An object or an array, checked as a whole; each of its values is read when it is asked for."""

    def __init__(self, text: bytes | bytearray | memoryview, settings: Settings, what: str, kind: type) -> None:
        """Finds where the values are.

        Raises:
            MalformedJSON: the text is not JSON.
            DatatypeError: it is not of ``kind`` (dict or list); ``what`` names it.
        """
        # Parts of bytes are read in place; parts of anything else would be copied.
        self._view = memoryview(bytes(text) if isinstance(text, bytearray) else text)
        self._settings = settings
        spans = json_spans(self._view, max_depth=settings.max_depth, max_values=settings.max_values)
        if not isinstance(spans, kind):
            needed = "an object" if kind is dict else "a list"
            raise DatatypeError(f"{what}: {needed} is needed", what)
        self.spans: Any = spans
        """Where the values are: by name in an object, by index in an array."""

    def text(self, key: str | int) -> memoryview:
        """The text of a value."""
        start, end = self.spans[key]
        return self._view[start:end]

    def value(self, key: str | int) -> Any:
        """A value without tensors."""
        return read_document(self.text(key), self._settings)

    def values(self, *names: str) -> dict[str, Any]:
        """The values of these names, without tensors, of those that are there."""
        view, spans, settings = self._view, self.spans, self._settings
        return {name: read_document(view[slice(*spans[name])], settings) for name in names if name in spans}

    def inputs(self, key: str | int, table: TensorTable) -> dict[str, Any]:
        """A value that is an object, with arrays for the tensors in ``table``."""
        return read_inputs(self.text(key), table, self._settings, what=str(key))


def _name_of(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return {type(None): "null", str: "text", bool: "a boolean"}.get(type(value), "a number")
