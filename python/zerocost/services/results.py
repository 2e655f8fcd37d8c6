"""What an artifact returned, checked: a stranger's mistake becomes an error that names the artifact, not a vector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.core.arrays import datatype_of
from zerocost.errors import DatatypeError, InvalidInput
from zerocost.services.active import Active

__all__ = ["as_numbers", "blamed"]


@contextmanager
def blamed(active: Active, where: str) -> Iterator[None]:
    """Notes on any exception from inside that it came through the artifact, ``where`` in the model.

    An error that an inner artifact has been blamed for already stays as it is: stages call the attention artifact.
    """
    try:
        yield
    except Exception as error:
        if not any(note.startswith("in layer") for note in getattr(error, "__notes__", ())):
            error.add_note(f"in {where}, through the {active.spec.interface} artifact {active.spec.name!r}")
        raise


def as_numbers(active: Active, result: Any, kinds: str) -> npt.NDArray[Any]:
    """A result as an array whose dtype is of one of ``kinds`` (NumPy's letters), or bfloat16.

    Raises:
        DatatypeError: it is of another kind; complex numbers would lose a part, objects may be anything.
        InvalidInput: it cannot become an array.
    """
    name = active.spec.name
    try:
        array = np.asarray(result)
    except Exception as error:  # whatever a stranger's object raises
        raise InvalidInput(
            f"artifact {name!r} returned {type(result).__name__}, which is no array ({error})"
        ) from error
    if array.dtype.kind not in kinds and datatype_of(array.dtype) != "BF16":
        raise DatatypeError(f"artifact {name!r} returned {array.dtype}, floating-point numbers are needed")
    return array
