"""What a server lets a request ask of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zerocost.core.limits import Limits
from zerocost.errors import LimitExceeded, RangeError
from zerocost.models.architecture import Architecture
from zerocost.services.active import Active

__all__ = ["check_elements", "check_work"]


def check_elements(elements: int, limits: Limits) -> None:
    """Raises LimitExceeded if an output would have more elements."""
    if elements > limits.elements:
        raise LimitExceeded(f"the output would have {elements} elements, {limits.elements} are allowed")


def check_work(lengths: Sequence[int], active: Mapping[str, Active], limits: Limits, model: Architecture) -> None:
    """Raises if a pass over sequences of these lengths would be more than the limits allow.

    Raises:
        LimitExceeded: multiplications and additions (two for each product of a sum), those of dense attention
            whatever artifact attends.
        RangeError: an artifact is told to cut its work into more parts.
    """
    linear = 2 * model.width * (4 * model.width + 2 * model.inner_width)
    attention = 4 * model.width
    operations = model.layers * (linear * sum(lengths) + attention * sum(n * n for n in lengths))
    if operations > limits.operations:
        raise LimitExceeded(f"this would take {operations} operations, {limits.operations} are allowed")
    for choice in active.values():
        for name in choice.spec.ports.parts:
            parts = choice.params.get(name)
            if isinstance(parts, int) and parts > limits.parts:
                raise RangeError(f"{name}: {parts} was given, at most {limits.parts} is allowed here", name)
