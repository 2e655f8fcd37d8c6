"""safetensors bodies on the native routes: read as they arrive, answered out of the arrays' own memory."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import numpy as np

from zerocost._kernels import read_json, write_json
from zerocost.api.settings import Settings
from zerocost.api.wire.chunks import BodyStream
from zerocost.core.safetensors import (
    MEDIA_TYPE,
    Slot,
    aligned_empty,
    grouped,
    parse_header,
    split_values,
    to_pieces,
)
from zerocost.errors import DatatypeError, InvalidInput, LimitExceeded, MalformedJSON, ShapeError

__all__ = ["MEDIA_TYPE", "answer_pieces", "read_safetensors", "read_tensors", "wants_safetensors"]

Result = TypeVar("Result")

_HEADER = 1 << 20
_ENTRY = 200
"""Bytes that a header may have, and more of them for each tensor that a body may have."""

_ENTRY_VALUES = 38
"""JSON values of a tensor's entry: itself, its dtype, two lists, 32 axes and two offsets."""


class Offload(Protocol):
    """Reads a text of so many bytes, a long one where it does not hold up the event loop."""

    def __call__(self, size: int, job: Callable[[], Result]) -> Coroutine[Any, Any, Result]: ...


async def read_tensors(chunks: BodyStream, settings: Settings, aside: Offload) -> tuple[dict[str, Any], bytes, int]:
    """The tensors in a body by name, the text of the JSON in its metadata, and the bytes of the tensors.

    Raises:
        MalformedJSON: the header is no JSON.
        InvalidInput: the header does not describe the body.
        LimitExceeded: a tensor is beyond a limit.
        HTTPError: the body is too large, or damaged.
    """
    chunks.open()
    start = await chunks.read(8)
    if start is None:
        raise ShapeError("the safetensors header is longer than the body")
    size = int.from_bytes(start, "little")
    if size > (settings.max_body if chunks.length is None else chunks.length - 8):
        raise ShapeError("the safetensors header is longer than the body")
    largest = _HEADER + _ENTRY * settings.max_parts
    if size > largest:
        raise LimitExceeded(f"the safetensors header has {size} bytes, {largest} are allowed")
    text = await chunks.read(size)
    if text is None:
        raise ShapeError("the safetensors header is longer than the body")
    slots, json = await aside(size, lambda: _slots(text, settings))
    total = sum(slot.nbytes for slot in slots)
    if chunks.length is not None and chunks.length != 8 + size + total:
        raise ShapeError(f"the body has {chunks.length} bytes, its header announces {8 + size + total}")
    if total > settings.max_body:
        raise ShapeError(f"the header announces {total} bytes of tensors")
    tensors = {}
    for slot in slots:
        array = tensors[slot.name] = aligned_empty(slot.shape, slot.dtype)
        if slot.nbytes and not await chunks.read_into(array.reshape(-1).view(np.uint8).data):
            raise ShapeError(f"{slot.name}: the body ends early", slot.name)
    if not await chunks.is_at_end():
        raise ShapeError("there is more after the last tensor")
    return grouped(tensors), json.encode(), total


def _slots(text: bytes, settings: Settings) -> tuple[list[Slot], str]:
    try:
        header = read_json(text, max_depth=3, max_values=100 + _ENTRY_VALUES * settings.max_parts)
    except MalformedJSON as error:
        raise MalformedJSON(f"the safetensors header: {error.message}") from None
    return parse_header(header, settings.max_elements, settings.max_parts)


async def read_safetensors(chunks: BodyStream, settings: Settings, aside: Offload) -> tuple[dict[str, Any], int]:
    """The inputs in a body, and the bytes of its tensors.

    Raises:
        MalformedJSON: the header or the JSON in the metadata is no JSON.
        InvalidInput: the header does not describe the body, or an input is there twice.
        LimitExceeded, HTTPError: as :func:`read_tensors`.
    """
    inputs, text, total = await read_tensors(chunks, settings, aside)
    limits = {"max_depth": settings.max_depth, "max_values": settings.max_values}
    others = await aside(len(text), lambda: read_json(text, None, **limits))
    if not isinstance(others, dict):
        raise DatatypeError("the JSON in the metadata must be an object")
    for name, value in others.items():
        if name in inputs:
            raise InvalidInput(f"{name}: given as a tensor and in the JSON", name)
        inputs[name] = value
    return inputs, total


@lru_cache(64)
def wants_safetensors(accept: str | None) -> bool:
    """Whether ``Accept`` asks for safetensors."""
    return accept is not None and any(
        choice.partition(";")[0].strip().lower() == MEDIA_TYPE for choice in accept.split(",")
    )


def answer_pieces(outputs: dict[str, Any]) -> list[bytes | memoryview]:
    """The body of an answer."""
    tensors, others = split_values(outputs)
    return to_pieces(tensors, write_json(others).decode())
