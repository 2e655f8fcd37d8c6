"""Limits on what one call may produce. The context carries them through every step of a chain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

from zerocost.errors import LimitExceeded

__all__ = ["Limits", "check_fan_out", "count_elements", "limits_of"]


@dataclass(frozen=True)
class Limits:
    """What one call may produce: ``context.metadata["limits"]``.

    Attributes:
        elements: of all outputs of an artifact together, each array counting at least one.
        fan_out: elements that one ``each`` of a chain runs over.
        parts: the number of output arrays, where an input sets it.
        operations: elementary operations, where they grow faster than the inputs and outputs.
    """

    elements: int
    fan_out: int
    parts: int
    operations: int


def limits_of(metadata: Mapping[str, Any]) -> Limits | None:
    """The limits in a context's metadata, or None."""
    limits = metadata.get("limits")
    return limits if isinstance(limits, Limits) else None


def check_fan_out(elements: Sized, name: str, metadata: Mapping[str, Any]) -> None:
    """Raises LimitExceeded if there are limits and ``each`` would run over more elements."""
    limits = limits_of(metadata)
    if limits is not None and len(elements) > limits.fan_out:
        raise LimitExceeded(f"{name}: {len(elements)} elements were given, 'each' takes {limits.fan_out}", name)


def count_elements(value: Any) -> int:
    """The elements of every array and list in ``value``, each array, list and axis counting at least one.

    Empty axes count: written out as JSON, a million empty lists are a million lists.
    """
    if isinstance(value, np.ndarray):
        return value.size or math.prod(max(axis, 1) for axis in value.shape)
    if isinstance(value, dict):
        return sum(map(count_elements, value.values()))
    if isinstance(value, list | tuple):
        return sum(max(count_elements(item), 1) for item in value)
    return 0
