"""Checks of an artifact's result: its mistake becomes an error that names it, not a wrong vector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.core.datatypes import datatype_of
from zerocost.errors import DatatypeError, InvalidInput, Place
from zerocost.services.active_artifacts import ActiveArtifact

__all__ = ["as_numbers", "error_note"]


@contextmanager
def error_note(note: str) -> Iterator[None]:
    """Adds a note to any exception that is raised inside: which artifact ran, and where.

    Only the innermost artifact is named: the stages of a parallel artifact call the attention artifact.
    """
    try:
        yield
    except Exception as error:
        if not getattr(error, "_zerocost_noted", False):
            error._zerocost_noted = True  # type: ignore[attr-defined]  # exceptions take attributes
            error.add_note(Place(note))
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
