"""Limits on what a request may ask of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zerocost.core.limits import Limits
from zerocost.errors import LimitExceeded, RangeError
from zerocost.models.architecture import Architecture
from zerocost.services.active_artifacts import ActiveArtifact

__all__ = ["check_output_elements", "check_work"]


def check_output_elements(elements: int, limits: Limits) -> None:
    """Raises LimitExceeded if an output would have too many elements."""
    if elements > limits.elements:
        raise LimitExceeded(f"the output would have {elements} elements, {limits.elements} are allowed")


def check_work(
    lengths: Sequence[int], active: Mapping[str, ActiveArtifact], limits: Limits, model: Architecture
) -> None:
    """Raises if a forward pass over sequences of these lengths would exceed the limits.

    Raises:
        LimitExceeded: too many operations. A multiplication and an addition are two. Attention counts as dense,
            whichever artifact computes it.
        RangeError: an artifact is to cut its work into too many parts.
    """
    linear = 2 * model.width * (4 * model.width + 2 * model.inner_width)
    attention = 4 * model.width
    operations = model.layers * (linear * sum(lengths) + attention * sum(n * n for n in lengths))
    if operations > limits.operations:
        raise LimitExceeded(f"this would take {operations} operations, {limits.operations} are allowed")
    for artifact in active.values():
        for name in artifact.spec.ports.parts:
            parts = artifact.params.get(name)
            if isinstance(parts, int) and parts > limits.parts:
                raise RangeError(f"{name}: {parts} was given, at most {limits.parts} is allowed here", name)
