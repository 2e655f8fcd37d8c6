"""Limits on what one call may produce, carried by the context through every step of a chain."""

from __future__ import annotations

import math
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

from zerocost.core.artifact_base import Artifact, ExecutionContext
from zerocost.errors import LimitExceeded, RangeError

__all__ = ["Limits", "check_fan_out", "check_inputs", "count_elements"]


@dataclass(frozen=True)
class Limits:
    """What one call may produce: ``context.metadata["limits"]``.

    Attributes:
        elements: of all outputs of an artifact together, each array counting at least one.
        fan_out: elements that one ``each`` of a chain runs through.
        parts: arrays that an artifact's outputs have, where an input says how many.
        operations: elementary operations of an artifact, where they are more than its inputs and outputs are large.
    """

    elements: int
    fan_out: int
    parts: int
    operations: int


def _limits(context: ExecutionContext) -> Limits | None:
    limits = context.metadata.get("limits")
    return limits if isinstance(limits, Limits) else None


def check_inputs(artifact: Artifact, input_data: dict[str, Any], context: ExecutionContext) -> None:
    """Raises if the context has limits and the outputs would be beyond them. Nothing is computed.

    Raises:
        RangeError: an input that says how many arrays come out, and is larger than servers take.
        LimitExceeded: more elements.
    """
    limits = _limits(context)
    if limits is None:
        return
    for name in artifact._ports.parts:
        parts = input_data.get(name)
        if isinstance(parts, int) and parts > limits.parts:
            raise RangeError(f"{name}: {parts} was given, at most {limits.parts} is allowed here", name)
    operations = artifact.operations(input_data)
    if operations is not None and operations > limits.operations:
        raise LimitExceeded(f"this would take {operations} operations, {limits.operations} are allowed")
    elements = artifact.output_elements(input_data)
    if elements is not None and elements > limits.elements:
        raise LimitExceeded(f"the outputs would have {elements} elements, {limits.elements} are allowed")


def check_fan_out(elements: Sized, name: str, context: ExecutionContext) -> None:
    """Raises LimitExceeded if the context has limits and ``each`` would run through more elements."""
    limits = _limits(context)
    if limits is not None and len(elements) > limits.fan_out:
        raise LimitExceeded(f"{name}: {len(elements)} elements were given, 'each' takes {limits.fan_out}", name)


def count_elements(value: Any) -> int:
    """The elements of every array and list in ``value``, each array, list and axis counting at least one.

    Axes without elements count, for a million empty lists are a million lists when they are written out.
    """
    if isinstance(value, np.ndarray):
        return value.size or math.prod(max(axis, 1) for axis in value.shape)
    if isinstance(value, dict):
        return sum(map(count_elements, value.values()))
    if isinstance(value, list | tuple):
        return sum(max(count_elements(item), 1) for item in value)
    return 0
