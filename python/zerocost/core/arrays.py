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
from zerocost.core.copies import count_copy
from zerocost.core.datatypes import FLOATING, datatype_of, datatype_refusal, dtype_of, list_datatype
from zerocost.errors import DatatypeError, RangeError, ShapeError

__all__ = ["as_floating", "as_tensor", "is_finite", "is_readable", "is_tensor_like", "read_json", "refuse_zero_one"]

read_json = _kernels.read_json
"""Reads JSON, arrays included; see :func:`zerocost.core.datatypes.list_datatype`."""


def is_tensor_like(value: Any) -> bool:
    """Whether ``value`` is an array of any library (not a list or a number)."""
    if isinstance(value, np.generic):
        return False
    # Looked up on the type: an object that has every attribute (a mock) is not an array.
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


def refuse_zero_one(array: npt.NDArray[Any], argument: str) -> None:
    """Raises DatatypeError if the numbers of a list look like a mask of 0 and 1.

    It is called where booleans are declared beside floats. As floats they would be added to the scores, which is hardly
    intended. Zeros alone change nothing either way. The JSON reader calls it too.
    """
    if array.dtype.kind != "b" and (array == 1).any() and ((array == 0) | (array == 1)).all():
        raise DatatypeError(
            f"{argument}: a list of 0 and 1 was given, which may be a mask or floats; say True and False (in JSON true "
            "and false) for a mask, or give floats as an array (in JSON as a typed tensor)",
            argument,
        )


def _of_list(value: Sequence[Any], argument: str, datatypes: Sequence[str] | None) -> npt.NDArray[Any]:
    if any(is_tensor_like(item) for item in value):
        raise DatatypeError(
            f"{argument}: a list of arrays was given, one array is needed; in a chain 'each' runs a step "
            "once for every element",
            argument,
        )
    kinds = {bool if kind is np.bool_ else kind for kind in _kinds(value)}
    wanted, takes_booleans, is_mask = list_datatype(datatypes)
    if kinds == {bool} and takes_booleans:
        wanted = "BOOL"
    elif kinds and kinds <= {str, bytes} and datatypes is not None and "BYTES" in datatypes:
        return _texts(value, argument)
    allowed, needed = _LISTED.get(wanted, ((int, float, np.number), "numbers"))
    others = [kind for kind in kinds if not issubclass(kind, allowed) or (kind is bool and wanted != "BOOL")]
    if others:
        given = ", ".join(sorted({bool: "booleans", str: "text"}.get(kind, kind.__name__) for kind in others))
        raise DatatypeError(f"{argument}: lists of {given} were given, {needed} are needed", argument)
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":
            array = array.astype(np.float64)  # whole numbers beyond 64 bits
    except ValueError as error:  # NumPy: "inhomogeneous shape"
        raise ShapeError(f"{argument}: ragged lists were given, all rows must have one length", argument) from error
    except OverflowError as error:
        raise _too_large(argument, wanted) from error
    if array.dtype.kind not in "biuf":
        raise DatatypeError(f"{argument}: lists of {array.dtype} were given, {needed} are needed", argument)
    if is_mask and kinds != {bool}:
        refuse_zero_one(array, argument)
    array = _as_datatype(array, value, wanted, argument)
    count_copy(array.nbytes)
    return array


_LISTED: dict[str, tuple[tuple[type, ...], str]] = {"BOOL": ((bool,), "booleans"), "BYTES": ((str, bytes), "texts")}
"""The element types of lists that become each datatype, and their name; other datatypes take numbers."""

_EXACT = 2**53
"""Beyond it float64 does not represent every whole number."""


def _exact(value: Sequence[Any], datatype: str, argument: str) -> npt.NDArray[Any]:
    """The whole numbers of a list as objects, where NumPy made float64 of large ones; raises if one does not fit."""
    exact, limits = np.asarray(value, dtype=object), np.iinfo(dtype_of(datatype))
    for number in exact.flat:
        if isinstance(number, float) and not max(limits.min, -_EXACT) <= number <= min(limits.max, _EXACT):
            # As in JSON, where a number with a point or an exponent is not a whole number.
            raise DatatypeError(f"{argument}: {number} was given, whole numbers ({datatype}) are needed", argument)
        if not limits.min <= number <= limits.max:
            raise _too_large(argument, datatype)
    return exact


def _texts(value: Sequence[Any], argument: str) -> npt.NDArray[Any]:
    texts = np.asarray(value, dtype=object)
    if any(isinstance(text, list | tuple) for text in texts.flat):
        raise ShapeError(f"{argument}: ragged lists were given, all rows must have one length", argument)
    count_copy(texts.nbytes)
    return texts


def _as_datatype(array: npt.NDArray[Any], value: Sequence[Any], datatype: str, argument: str) -> npt.NDArray[Any]:
    """The numbers of a list, already read by NumPy, in the datatype that they become; it must hold each of them."""
    dtype = dtype_of(datatype)
    if dtype.kind in "iu" and array.size:
        is_float, limits = array.dtype.kind == "f", np.iinfo(dtype)
        if is_float and not (is_finite(array) and np.array_equal(array, np.trunc(array))):
            raise DatatypeError(f"{argument}: fractions were given, whole numbers ({datatype}) are needed", argument)
        low, high = (max(limits.min, -_EXACT), min(limits.max, _EXACT)) if is_float else (limits.min, limits.max)
        if int(array.min()) < low or int(array.max()) > high:
            array = _exact(value, datatype, argument)
    with np.errstate(over="ignore"):
        converted = array.astype(dtype, copy=False)
    if dtype.itemsize < array.itemsize and converted.dtype.kind not in "iub" and not is_finite(converted):
        with np.errstate(invalid="ignore"):
            if np.any(np.isinf(converted) & np.isfinite(array)):
                raise _too_large(argument, datatype)
    return converted


def _too_large(argument: str, datatype: str) -> RangeError:
    return RangeError(f"{argument}: a number is outside the range of {datatype}", argument)


def _kinds(value: Sequence[Any]) -> set[type]:
    """The types of the elements of nested lists."""
    kinds = set(map(type, value))
    nested = {kind for kind in kinds if issubclass(kind, list | tuple)}
    if nested:
        kinds -= nested
        kinds = kinds.union(*(_kinds(item) for item in value if type(item) in nested))
    return kinds


def is_finite(*arrays: npt.NDArray[Any]) -> bool:
    """Whether all numbers are finite."""
    # A NaN or an infinity makes the sum non-finite. So may an overflow: then every element is checked.
    with np.errstate(invalid="ignore", over="ignore"):
        return all(bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all()) for array in arrays)
