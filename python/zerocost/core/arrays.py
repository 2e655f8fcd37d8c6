"""From any array-like object to one NumPy array, without a copy wherever NumPy needs none.

Copies that cannot be avoided (of a list, or of a layout that no kernel can read) are counted; a chain's trace shows
them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost import _kernels
from zerocost.core.copies import CopyCount, count_copy, counting_copies
from zerocost.core.datatypes import (
    DATATYPES,
    FLOATING,
    check_size,
    datatype_of,
    datatype_refusal,
    dtype_of,
    list_datatype,
)
from zerocost.core.lists import array_of_list, refuse_zero_one
from zerocost.errors import DatatypeError

__all__ = [
    "DATATYPES",
    "FLOATING",
    "CopyCount",
    "as_floating",
    "as_tensor",
    "check_size",
    "count_copy",
    "counting_copies",
    "datatype_of",
    "datatype_refusal",
    "dtype_of",
    "is_finite",
    "is_readable",
    "is_tensor_like",
    "list_datatype",
    "read_json",
    "refuse_zero_one",
]

read_json = _kernels.read_json
"""Reads JSON, arrays included; see :func:`zerocost.core.datatypes.list_datatype`."""


def is_tensor_like(value: Any) -> bool:
    """Whether ``value`` is an array of any library (not a list or a number)."""
    if isinstance(value, np.generic):
        return False
    # Looked up on the type: an object that has every attribute (a mock) is no array.
    return isinstance(value, memoryview) or hasattr(type(value), "__array__") or hasattr(type(value), "__dlpack__")


def as_floating(value: Any, argument: str) -> npt.NDArray[Any]:
    """An aligned array of float64, float32, float16 or bfloat16 in native byte order that kernels can read.

    Args:
        value: an ndarray, an object with DLPack, ``__array__`` or the buffer protocol (copied only if NumPy must, and
            then counted), or nested lists of numbers (they become float64, a counted copy).
        argument: the name in errors.

    Raises:
        DatatypeError: any other dtype (integers, booleans, complex, big-endian, object), with advice; a masked array.
        RangeError: numbers in lists that the datatype cannot hold.
        ShapeError: ragged lists.
    """
    return as_tensor(value, argument, FLOATING)


def as_tensor(value: Any, argument: str, datatypes: Sequence[str] | None = None) -> npt.NDArray[Any]:
    """One array of one of ``datatypes`` (None: any). See :func:`as_floating`.

    Lists become what :func:`list_datatype` says. Subclasses of ndarray are returned as they are.
    """
    array = _of_list(value, argument, datatypes) if isinstance(value, list | tuple) else _borrow(value, argument)
    if datatypes is not None and datatype_of(array.dtype) not in datatypes:
        raise DatatypeError(datatype_refusal(array.dtype, argument, datatypes), argument)
    # Without declared datatypes any layout will do; kernels need aligned strides of whole elements.
    if datatypes is not None and not is_readable(array):
        count_copy(array.nbytes)
        array = array.copy()
    return array


def is_readable(array: npt.NDArray[Any]) -> bool:
    """Whether kernels can read the array in place: aligned, with strides of whole elements."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return True
    whole = all(
        stride % array.itemsize == 0 for length, stride in zip(array.shape, array.strides, strict=True) if length > 1
    )
    return flags.aligned and whole if array.itemsize else True


def _borrow(value: Any, argument: str) -> npt.NDArray[Any]:
    if isinstance(value, np.ndarray):
        _refuse_masked(value, argument)
        return value
    # Looked up on the type: an object that has every attribute (a mock) has no protocol.
    kind = type(value)
    if hasattr(kind, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise DatatypeError(f"{argument}: {_dlpack_refusal(value, error)}", argument) from error
    if isinstance(value, bool | int | float | complex | str | bytes) or value is None:
        raise DatatypeError(f"{argument}: {kind.__name__} was given, an array or nested lists are needed", argument)
    if isinstance(value, np.generic):
        return np.asarray(value)
    if hasattr(kind, "__array__"):
        return _made(value, argument)
    try:
        return np.asarray(memoryview(value))
    except TypeError:
        raise DatatypeError(
            f"{argument}: {kind.__module__}.{kind.__qualname__} was given; a numpy.ndarray, an object with DLPack, "
            "__array__ or the buffer protocol, or nested lists are needed",
            argument,
        ) from None


def _refuse_masked(array: npt.NDArray[Any], argument: str) -> None:
    if type(array) is np.ndarray or "numpy.ma" not in sys.modules:  # without its module there is no masked array
        return
    if isinstance(array, np.ma.MaskedArray):
        raise DatatypeError(
            f"{argument}: a masked array was given, and no kernel sees its mask; give array.filled(…) with the number "
            "that is to stand where it is masked",
            argument,
        )


def _made(value: Any, argument: str) -> npt.NDArray[Any]:
    """The result of ``__array__``, which pandas, polars, xarray and others have."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    try:
        array = np.asarray(value)
    except Exception as error:  # a third-party __array__ may raise anything
        raise DatatypeError(f"{argument}: {kind} gives no array ({type(error).__name__}: {error})", argument) from error
    if array.dtype.kind == "O":
        raise DatatypeError(
            f"{argument}: {kind} gives an array of objects; values of one type without gaps are needed", argument
        )
    if array.flags.owndata:
        count_copy(array.nbytes)
    return array


def _dlpack_refusal(value: Any, error: Exception) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return (
        f"{kind} cannot be borrowed through DLPack ({error}); pass a tensor that is in main memory and detached, and a "
        "bfloat16 tensor of PyTorch as tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16), which copies nothing"
    )


def _of_list(value: Sequence[Any], argument: str, datatypes: Sequence[str] | None) -> npt.NDArray[Any]:
    if any(is_tensor_like(item) for item in value):
        raise DatatypeError(
            f"{argument}: a list of arrays was given, one array is needed; in a chain 'each' runs a step "
            "once for every element",
            argument,
        )
    return array_of_list(value, argument, datatypes)


def is_finite(*arrays: npt.NDArray[Any]) -> bool:
    """Whether all numbers are finite."""
    # A NaN or an infinity makes the sum non-finite. So may an overflow: then every element is checked.
    with np.errstate(invalid="ignore", over="ignore"):
        return all(bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all()) for array in arrays)
