"""JSON bodies: declared tensors become arrays on the way in, everything else stays what it is."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from zerocost._kernels import json_spans, read_json
from zerocost.api.settings import Settings
from zerocost.api.wire.problems import HTTPError
from zerocost.errors import DatatypeError

__all__ = ["LazyJSON", "TensorTable", "check_json_type", "read_document", "read_inputs", "wants_typed_tensors"]

TensorTable = dict[str, tuple[str, bool, bool]]
"""What lists become, for each name that is read as a tensor: :attr:`zerocost.core.ports.Ports.lists`."""


def check_json_type(kind: str) -> None:
    """Raises HTTPError (415) for a media type that is not JSON's."""
    if kind != "application/json" and not kind.endswith("+json"):
        given = repr(kind[:100]) if kind else "none"
        raise HTTPError(415, "unsupported_media_type", f"Content-Type: {given} was given, application/json is needed")


def read_document(body: bytes | bytearray, settings: Settings) -> Any:
    """A body without tensors."""
    return read_json(body, None, max_depth=settings.max_depth, max_values=settings.max_values)


def read_inputs(
    body: bytes | bytearray | memoryview, table: TensorTable, settings: Settings, what: str = "the body"
) -> dict[str, Any]:
    """The object in ``body``, which errors call ``what``, with arrays for the tensors in ``table``.

    Raises:
        MalformedJSON: the body is no JSON.
        DatatypeError: it is no object.
        ShapeError, DatatypeError, RangeError: a tensor that cannot be read.
        LimitExceeded: it is beyond a limit.
    """
    value = read_json(
        body,
        table,
        max_depth=settings.max_depth,
        max_values=settings.max_values,
        max_elements=settings.max_elements,
    )
    if not isinstance(value, dict):
        raise DatatypeError(f"{what} is {_kind(value)}, an object is needed")
    return value


class LazyJSON:
    """The members of an object, or the elements of an array, each read when it is asked for."""

    def __init__(self, text: bytes | bytearray | memoryview, settings: Settings, what: str, kind: type) -> None:
        """Finds where the values are; checks all of the text.

        Raises:
            MalformedJSON: the text is no JSON.
            DatatypeError: it is no ``kind`` (dict or list); ``what`` names it.
        """
        # Parts of bytes are read where they are; of anything else each would be copied.
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
        settings = self._settings
        return read_json(self.text(key), None, max_depth=settings.max_depth, max_values=settings.max_values)

    def inputs(self, key: str | int, table: TensorTable) -> dict[str, Any]:
        """A value that is an object, with arrays for the tensors in ``table``."""
        return read_inputs(self.text(key), table, self._settings, what=str(key))


@lru_cache(64)
def wants_typed_tensors(accept: str | None) -> bool:
    """Whether ``Accept`` asks for typed tensors: ``application/json;tensors=typed``."""
    if accept is None:
        return False
    for choice in accept.split(","):
        media, *parameters = (part.strip().lower() for part in choice.split(";"))
        if media == "application/json" and "tensors=typed" in (parameter.replace('"', "") for parameter in parameters):
            return True
    return False


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return {type(None): "null", str: "text", bool: "a boolean"}.get(type(value), "a number")
