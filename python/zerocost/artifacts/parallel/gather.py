"""``gather``: the inverse of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost import _kernels
from zerocost.core.arrays import as_tensor
from zerocost.core.copies import count_copy
from zerocost.errors import DatatypeError

__all__ = ["gather"]


def gather(tensors: Sequence[Any], axis: int = -1) -> npt.NDArray[Any]:
    """Joins arrays along an axis, without a copy if they are adjacent in memory.

    Args:
        tensors: at least one array, all of one dtype and, but for ``axis``, of one shape.
        axis: the axis along which they are joined.

    Returns:
        A view if the arrays are adjacent views of one array in this order (as a split gives them), otherwise a copy.

    Raises:
        DatatypeError: not a sequence of arrays, arrays of different dtypes, or an axis that is not an integer.
        RangeError: no array at all, or an axis that the arrays do not have.
        ShapeError: arrays whose shapes do not fit each other.
    """
    if isinstance(tensors, np.ndarray) or not isinstance(tensors, Sequence):
        raise DatatypeError(f"tensors: {type(tensors).__name__} was given, a list of arrays is needed", "tensors")
    arrays = [as_tensor(tensor, f"tensors[{index}]") for index, tensor in enumerate(tensors)]
    for array in arrays:
        if array.dtype != arrays[0].dtype:
            raise DatatypeError(
                f"tensors: dtypes {arrays[0].dtype} and {array.dtype} were given, one is needed", "tensors"
            )
    view = _kernels.gather_view(arrays, axis)
    if view is not None:
        return view
    joined = np.concatenate(arrays, axis)
    count_copy(joined.nbytes)
    return joined
