"""Checks of an artifact's result: its mistake becomes an error that names it, not a wrong vector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.core.arrays import is_finite
from zerocost.core.datatypes import datatype_of
from zerocost.errors import DatatypeError, InvalidInput, Place
from zerocost.services.active_artifacts import ActiveArtifact

__all__ = ["as_numbers", "check_finite", "error_note"]


class _ArtifactNote(Place):
    """A note that names the artifact."""

    __slots__ = ()


@contextmanager
def error_note(note: str) -> Iterator[None]:
    """Adds a note to any exception that is raised inside: which artifact ran, and where.

    Only the innermost artifact is named: the stages of a parallel artifact call the attention artifact.
    """
    try:
        yield
    except Exception as error:
        if not any(isinstance(known, _ArtifactNote) for known in getattr(error, "__notes__", ())):
            error.add_note(_ArtifactNote(note))
        raise


def as_numbers(artifact: ActiveArtifact, result: Any, kinds: str) -> npt.NDArray[Any]:
    """A result as an array whose dtype has one of ``kinds`` (NumPy's letters), or is bfloat16.

    Raises:
        DatatypeError: the dtype is of another kind. Complex numbers would lose a part; objects may be anything.
        InvalidInput: the result cannot become an array.
    """
    name = artifact.spec.name
    try:
        array = np.asarray(result)
    except Exception as error:  # a third-party object may raise anything
        raise InvalidInput(
            f"artifact {name!r} returned {type(result).__name__}, which cannot become an array ({error})"
        ) from error
    if array.dtype.kind not in kinds and datatype_of(array.dtype) != "BF16":
        raise DatatypeError(f"artifact {name!r} returned {array.dtype}, floating-point numbers are needed")
    return array


def check_finite(artifact: ActiveArtifact, result: npt.NDArray[Any], *inputs: npt.NDArray[Any]) -> None:
    """Raises InvalidInput if the inputs are finite and the result is not."""
    if not is_finite(result) and is_finite(*inputs):
        raise InvalidInput(f"artifact {artifact.spec.name!r} returned NaN or infinity for finite numbers")
