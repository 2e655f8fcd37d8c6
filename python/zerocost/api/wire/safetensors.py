"""safetensors bodies, read as they arrive into the arrays that kernels will use."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import numpy as np

from zerocost._kernels import read_json
from zerocost.api.settings import Settings
from zerocost.api.wire.body import BodyStream
from zerocost.api.wire.json import read_document
from zerocost.api.wire.request import Request
from zerocost.core.safetensors import Slot, aligned_empty, grouped, header_size, parse_header
from zerocost.errors import DatatypeError, InvalidInput, LimitExceeded, MalformedJSON, ShapeError

__all__ = ["add_tensors", "read_safetensors", "read_tensors"]

Result = TypeVar("Result")

_HEADER = 1 << 20
_ENTRY = 200
"""Bytes that a header may have, and how many more for each tensor that a body may have."""

_ENTRY_VALUES = 38
"""JSON values of a tensor's entry: itself, its dtype, two lists, 32 axes and two offsets."""


class Offload(Protocol):
    """Runs a job that parses a text of so many bytes: on a thread, if it would hold up the event loop."""

    def __call__(self, size: int, job: Callable[[], Result]) -> Coroutine[Any, Any, Result]: ...


async def read_tensors(request: Request, settings: Settings, offload: Offload) -> tuple[dict[str, Any], bytes, int]:
    """The tensors in a body by name, the text of the JSON in its metadata, and the bytes of the tensors.

    Raises:
        MalformedJSON: the header is not JSON.
        InvalidInput: the header does not describe the body.
        LimitExceeded: a tensor is beyond a limit.
        HTTPError: the body is too large, or damaged.
    """
    stream = BodyStream(request, settings)
    start = await stream.read(8)
    if start is None:
        raise ShapeError("the safetensors header is longer than the body")
    size = header_size(start, settings.max_body if stream.length is None else stream.length - 8)
    largest = _HEADER + _ENTRY * settings.max_parts
    if size > largest:
        raise LimitExceeded(f"the safetensors header has {size} bytes, {largest} are allowed")
    text = await stream.read(size)
    if text is None:
        raise ShapeError("the safetensors header is longer than the body")
    slots, metadata = await offload(size, lambda: _slots(text, settings))
    total = sum(slot.nbytes for slot in slots)
    if stream.length is not None and stream.length != 8 + size + total:
        raise ShapeError(f"the body has {stream.length} bytes, its header announces {8 + size + total}")
    if total > settings.max_body:
        raise ShapeError(f"the header announces {total} bytes of tensors")
    tensors = {}
    for slot in slots:
        array = tensors[slot.name] = aligned_empty(slot.shape, slot.dtype)
        if slot.nbytes and not await stream.read_into(array.reshape(-1).view(np.uint8).data):
            raise ShapeError(f"{slot.name}: the body ends early", slot.name)
    if not await stream.is_at_end():
        raise ShapeError("more bytes follow the last tensor")
    return grouped(tensors), metadata.get("json", "{}").encode(), total


def _slots(text: bytes, settings: Settings) -> tuple[list[Slot], dict[str, str]]:
    try:
        header = read_json(text, max_depth=3, max_values=100 + _ENTRY_VALUES * settings.max_parts)
    except MalformedJSON as error:
        raise MalformedJSON(f"the safetensors header: {error.message}") from None
    return parse_header(header, settings.max_elements, settings.max_parts)


async def read_safetensors(request: Request, settings: Settings, offload: Offload) -> tuple[dict[str, Any], int]:
    """The inputs in a body, and the bytes of its tensors.

    Raises:
        MalformedJSON: the header or the JSON in the metadata is not JSON.
        InvalidInput: the header does not describe the body, or an input is given twice.
        LimitExceeded, HTTPError: as :func:`read_tensors`.
    """
    tensors, text, total = await read_tensors(request, settings, offload)
    others = await offload(len(text), lambda: read_document(text, settings))
    if not isinstance(others, dict):
        raise DatatypeError("the JSON in the metadata must be an object")
    return add_tensors(others, tensors), total


def add_tensors(values: dict[str, Any], tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors of a body and the values in its JSON together; raises InvalidInput for a name in both."""
    for name in tensors:
        if name in values:
            raise InvalidInput(f"{name}: given as a tensor and in the JSON", name)
    return {**tensors, **values}
