"""Nested lists as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.core.copies import count_copy
from zerocost.core.datatypes import dtype_of, list_datatype
from zerocost.errors import DatatypeError, RangeError, ShapeError

__all__ = ["array_of_list", "refuse_zero_one"]


def refuse_zero_one(array: npt.NDArray[Any], argument: str) -> None:
    """Raises DatatypeError if the numbers of a list look like a mask of 0 and 1, where :func:`takes_masks`.

    As floats they would be added to the scores, which is hardly intended. Zeros alone change nothing either way. The
    JSON reader calls it too.
    """
    if array.dtype.kind != "b" and (array == 1).any() and ((array == 0) | (array == 1)).all():
        raise DatatypeError(
            f"{argument}: a list of 0 and 1 was given, which may be a mask or floats; say True and False (in JSON true "
            "and false) for a mask, or give floats as an array (in JSON as a typed tensor)",
            argument,
        )


def array_of_list(value: Sequence[Any], argument: str, datatypes: Sequence[str] | None) -> npt.NDArray[Any]:
    """Nested lists as one array, a counted copy; they become what :func:`list_datatype` says.

    Raises:
        DatatypeError: other elements than are needed, fractions for whole numbers among them.
        RangeError: a number that the datatype does not hold.
        ShapeError: ragged lists.
    """
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
            # As in JSON, where a number with a point or an exponent is no whole number.
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
        if is_float and not (np.isfinite(array).all() and np.array_equal(array, np.trunc(array))):
            raise DatatypeError(f"{argument}: fractions were given, whole numbers ({datatype}) are needed", argument)
        low, high = (max(limits.min, -_EXACT), min(limits.max, _EXACT)) if is_float else (limits.min, limits.max)
        if int(array.min()) < low or int(array.max()) > high:
            array = _exact(value, datatype, argument)
    with np.errstate(over="ignore"):
        converted = array.astype(dtype, copy=False)
    if dtype.itemsize < array.itemsize and converted.dtype.kind not in "iub" and not np.isfinite(converted).all():
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
