"""Datatypes by their Open Inference Protocol names (``"FP32"``, ``"INT64"``, …), and what lists become for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zerocost import _kernels
from zerocost.errors import DatatypeError, LimitExceeded

__all__ = ["DATATYPES", "FLOATING", "check_size", "datatype_of", "datatype_refusal", "dtype_of", "list_datatype"]

FLOATING = ("FP64", "FP32", "FP16", "BF16")
"""The datatypes of floating-point ports; nested lists become the first."""

_DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(text) for name, text in _kernels.DATATYPES if name != "BF16"}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

DATATYPES = (*_DTYPES, "BF16", "BYTES")
"""Every datatype name of the Open Inference Protocol that an artifact may declare."""


def dtype_of(datatype: str) -> np.dtype[Any]:
    """The NumPy dtype of an Open Inference datatype. ``"BF16"`` is ml_dtypes', ``"BYTES"`` is object."""
    if datatype == "BF16":
        import ml_dtypes  # imported by users of bfloat16 only

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    if datatype == "BYTES":
        return np.dtype(object)
    try:
        return _DTYPES[datatype]
    except KeyError:
        allowed = ", ".join(DATATYPES)
        raise DatatypeError(f"datatype {datatype!r} is not one of {allowed}", "datatype") from None


def datatype_of(dtype: np.dtype[Any]) -> str | None:
    """The Open Inference datatype of a dtype; None if there is none (complex, dates, big-endian, structured)."""
    name = _NAMES.get(dtype)
    if name is None and dtype.itemsize == 2 and dtype.name == "bfloat16":
        return "BF16"
    if name is None and dtype.kind in "OSU":
        return "BYTES"
    return name


def check_size(name: str, shape: Sequence[int], itemsize: int, max_elements: int) -> None:
    """Raises LimitExceeded for an announced tensor that cannot or may not be allocated.

    Args:
        name: the tensor's name.
        shape: whole numbers from 0 up, of any size.
        itemsize: bytes of an element.
        max_elements: the limit, each axis counting at least one.
    """
    # Axes beside an empty one count: an empty array has strides too, and as JSON it is that many lists.
    span = math.prod(max(axis, 1) for axis in shape)
    if span > max_elements or span * itemsize >= 1 << 63:
        raise LimitExceeded(f"{name}: more than {max_elements} elements", name)


def list_datatype(datatypes: Sequence[str] | None) -> tuple[str, bool, bool]:
    """What lists become where a tensor of ``datatypes`` (None: any) is declared, in Python and in JSON.

    Returns:
        The datatype of lists of numbers (float64 if allowed, otherwise the first allowed one), whether lists of
        booleans become BOOL, and whether lists of 0 and 1 are refused because they may be a mask or floats.
    """
    if datatypes is None or "FP64" in datatypes:
        return "FP64", datatypes is None or "BOOL" in datatypes, _takes_masks(datatypes)
    numbers = [datatype for datatype in datatypes if datatype not in ("BOOL", "BYTES")]
    return (numbers or list(datatypes))[0], "BOOL" in datatypes, _takes_masks(datatypes)


def _takes_masks(datatypes: Sequence[str] | None) -> bool:
    """Whether booleans are declared beside floats: a mask, either of participants or to be added."""
    return datatypes is not None and "BOOL" in datatypes and not set(FLOATING).isdisjoint(datatypes)


def datatype_refusal(dtype: np.dtype[Any], argument: str, datatypes: Sequence[str]) -> str:
    """The message for an array of another dtype, with advice."""
    allowed = ", ".join(dtype_of(name).name if name != "BF16" else "bfloat16" for name in datatypes)
    if dtype.byteorder == ">" or (dtype.byteorder == "<" and not dtype.isnative):
        advice = "; convert with array.astype(array.dtype.newbyteorder('='))"
    elif dtype.kind in "iu" and _takes_masks(datatypes):
        advice = "; for a mask of 0 and 1 say array.astype(bool), where True takes part"
    elif dtype.kind in "iub" and set(datatypes) <= set(FLOATING):
        advice = "; convert with array.astype(numpy.float32)"
    elif dtype.kind == "c":
        advice = "; take array.real, array.imag or numpy.abs(array)"
    else:
        advice = ""
    return f"{argument}: dtype {dtype} was given, {allowed} is allowed{advice}"
