"""Arrays at the door: what comes in becomes one NumPy array, without a copy wherever NumPy can.

Copies that cannot be avoided (a list, a layout that no kernel can read) are made here and counted here; a chain's trace
shows them. Datatypes carry their Open Inference Protocol names (``"FP32"``, ``"INT64"``, …).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost import _kernels
from zerocost.errors import DatatypeError, LimitExceeded, ShapeError

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
    "dtype_of",
    "is_finite",
    "is_tensor_like",
    "refuse_zero_one",
    "takes_masks",
]

FLOATING = ("FP64", "FP32", "FP16", "BF16")
"""What floating-point ports take; the first is what nested lists become."""

_DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(numpy_name) for name, numpy_name in _kernels.DATATYPES if name != "BF16"
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

DATATYPES = (*_DTYPES, "BF16", "BYTES")
"""Every datatype name of the Open Inference Protocol that an artifact may declare."""


def dtype_of(datatype: str) -> np.dtype[Any]:
    """The NumPy dtype of an Open Inference datatype. ``"BF16"`` is ml_dtypes', ``"BYTES"`` is object."""
    if datatype == "BF16":
        import ml_dtypes  # only who uses bfloat16 pays for the import

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
    """The Open Inference datatype of a dtype; None where there is none (complex, dates, big-endian, structured)."""
    name = _NAMES.get(dtype)
    if name is None and dtype.itemsize == 2 and dtype.name == "bfloat16":
        return "BF16"
    if name is None and dtype.kind in "OSU":
        return "BYTES"
    return name


def check_size(name: str, shape: Sequence[int], itemsize: int, max_elements: int) -> None:
    """Raises LimitExceeded for a tensor that a caller announces and that cannot or may not be made.

    Args:
        name: the tensor's name.
        shape: whole numbers from 0 up, of any size.
        itemsize: bytes of an element.
        max_elements: how many there may be, each axis counting at least one.
    """
    # An axis of 0 hides nothing: an array has strides where it has no elements, and written out it is that many lists.
    span = math.prod(max(axis, 1) for axis in shape)
    if span > max_elements or span * itemsize >= 1 << 63:
        raise LimitExceeded(f"{name}: more than {max_elements} elements", name)


class CopyCount:
    """Bytes copied on the way into kernels since :func:`counting_copies` began."""

    __slots__ = ("_lock", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.Lock()

    def add(self, nbytes: int) -> None:
        """Counts ``nbytes`` more; several threads of one step may."""
        with self._lock:
            self.bytes += nbytes


_counter: ContextVar[CopyCount | None] = ContextVar("zerocost_copies", default=None)


def count_copy(nbytes: int) -> None:
    """Says that ``nbytes`` had to be copied."""
    counter = _counter.get()
    if counter is not None:
        counter.add(nbytes)


class counting_copies:  # noqa: N801 - it is used as a function would be
    """Counts the copies made in this context; what is counted inside also counts for an enclosing counter."""

    __slots__ = ("_counter", "_token")

    def __enter__(self) -> CopyCount:
        """Begins to count."""
        self._counter = CopyCount()
        self._token = _counter.set(self._counter)
        return self._counter

    def __exit__(self, *_: object) -> None:
        """Ends, and tells the enclosing counter."""
        _counter.reset(self._token)
        count_copy(self._counter.bytes)


def is_tensor_like(value: Any) -> bool:
    """Whether :func:`as_tensor` would look at ``value`` as an array of its own kind (not a list or a number)."""
    return isinstance(value, np.ndarray | memoryview) or hasattr(value, "__dlpack__")


def takes_masks(datatypes: Sequence[str] | None) -> bool:
    """Whether booleans are declared beside floats: a mask, of who takes part or of what is added."""
    return datatypes is not None and "BOOL" in datatypes and not set(FLOATING).isdisjoint(datatypes)


def refuse_zero_one(array: npt.NDArray[Any], argument: str) -> None:
    """Raises DatatypeError if the numbers that a list was, where :func:`takes_masks`, look like a mask of 0 and 1.

    As floats they would be added, which is hardly what is meant. Zeros alone change nothing either way.
    """
    if array.dtype.kind != "b" and (array == 1).any() and ((array == 0) | (array == 1)).all():
        raise DatatypeError(
            f"{argument}: a list of 0 and 1 was given, which may be a mask or floats; say True and False (in JSON true "
            "and false) for a mask, or give floats as an array (in JSON as a typed tensor)",
            argument,
        )


def as_floating(value: Any, argument: str) -> npt.NDArray[Any]:
    """An aligned array of float64, float32, float16 or bfloat16 in native byte order that kernels can read.

    Args:
        value: an ndarray, an object with DLPack or the buffer protocol (both without a copy where NumPy can), or
            nested lists of numbers (they become float64, a counted copy).
        argument: the name that errors carry.

    Raises:
        DatatypeError: any other dtype (integers, booleans, complex, big-endian, object), with what to do about it.
        ShapeError: ragged lists.
    """
    return as_tensor(value, argument, FLOATING)


def as_tensor(value: Any, argument: str, datatypes: Sequence[str] | None = None) -> npt.NDArray[Any]:
    """One array of one of ``datatypes`` (None: any). See :func:`as_floating`.

    Lists of only booleans become BOOL where that is allowed, other lists float64, or the first allowed datatype where
    float64 is not allowed.
    """
    array = _from_list(value, argument, datatypes) if isinstance(value, list | tuple) else _borrow(value, argument)
    if datatypes is not None and datatype_of(array.dtype) not in datatypes:
        raise DatatypeError(_refusal(array.dtype, argument, datatypes), argument)
    # Pure views (no declared datatypes) take any layout; kernels need whole, aligned steps.
    if datatypes is not None and not _is_readable(array):
        count_copy(array.nbytes)
        array = array.copy()
    return array


def _is_readable(array: npt.NDArray[Any]) -> bool:
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return True
    whole = all(
        stride % array.itemsize == 0 for length, stride in zip(array.shape, array.strides, strict=True) if length > 1
    )
    return flags.aligned and whole if array.itemsize else True


def _borrow(value: Any, argument: str) -> npt.NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise DatatypeError(f"{argument}: {_dlpack_refusal(value, error)}", argument) from error
    if isinstance(value, bool | int | float | complex | str | bytes) or value is None:
        raise DatatypeError(
            f"{argument}: {type(value).__name__} was given, an array or nested lists are needed", argument
        )
    if isinstance(value, np.generic):
        return np.asarray(value)
    try:
        return np.asarray(memoryview(value))
    except TypeError:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise DatatypeError(
            f"{argument}: {kind} was given; a numpy.ndarray, an object with DLPack or the buffer protocol, or nested "
            "lists are needed",
            argument,
        ) from None


def _dlpack_refusal(value: Any, error: Exception) -> str:
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        return (
            "NumPy cannot borrow a torch.bfloat16 tensor; "
            "pass tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16), which copies nothing"
        )
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"{kind} cannot be borrowed through DLPack ({error}); pass a tensor that is in main memory and detached"


def _from_list(value: Sequence[Any], argument: str, datatypes: Sequence[str] | None) -> npt.NDArray[Any]:
    if any(is_tensor_like(item) for item in value):
        raise DatatypeError(
            f"{argument}: a list of arrays was given, one array is needed; in a chain 'each' runs a step "
            "once for every element",
            argument,
        )
    try:
        array = np.asarray(value)
    except ValueError as error:  # NumPy: "inhomogeneous shape"
        raise ShapeError(f"{argument}: ragged lists were given, all rows must have one length", argument) from error
    if array.dtype.kind == "O" and all(isinstance(leaf, int | float) for leaf in _leaves(value)):
        try:
            array = array.astype(np.float64)  # whole numbers beyond 64 bits
        except OverflowError as error:
            raise DatatypeError(f"{argument}: a number is too large for float64", argument) from error
    if array.dtype.kind == "O":
        kinds = sorted({type(leaf).__name__ for leaf in _leaves(value)})
        raise DatatypeError(f"{argument}: lists of {', '.join(kinds)} were given, numbers are needed", argument)
    if array.dtype.kind in "SU":
        if datatypes is not None and "BYTES" in datatypes:
            return array.astype(object)
        raise DatatypeError(f"{argument}: lists of text were given, numbers are needed", argument)
    if array.dtype.kind not in "biuf":
        raise DatatypeError(f"{argument}: lists of {array.dtype} were given, numbers are needed", argument)
    if takes_masks(datatypes):
        refuse_zero_one(array, argument)
    wanted = _list_datatype(array, datatypes)
    if array.dtype.kind == "b" and wanted != "BOOL":
        raise DatatypeError(f"{argument}: lists of booleans were given, numbers are needed", argument)
    dtype = dtype_of(wanted)
    if dtype.kind in "iu" and array.dtype.kind == "f" and array.size and not np.array_equal(array, np.trunc(array)):
        raise DatatypeError(f"{argument}: fractions were given, whole numbers ({wanted}) are needed", argument)
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise DatatypeError(f"{argument}: a number is outside the range of {wanted}", argument)
    array = array.astype(dtype, copy=False)
    count_copy(array.nbytes)
    return array


def _list_datatype(array: npt.NDArray[Any], datatypes: Sequence[str] | None) -> str:
    if datatypes is None:
        return "BOOL" if array.dtype.kind == "b" else "FP64"
    if array.dtype.kind == "b" and "BOOL" in datatypes:
        return "BOOL"
    if "FP64" in datatypes:
        return "FP64"
    return next((name for name in datatypes if name not in ("BOOL", "BYTES")), datatypes[0])


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _refusal(dtype: np.dtype[Any], argument: str, datatypes: Sequence[str]) -> str:
    allowed = ", ".join(dtype_of(name).name if name != "BF16" else "bfloat16" for name in datatypes)
    if dtype.byteorder == ">" or (dtype.byteorder == "<" and not dtype.isnative):
        advice = "; convert with array.astype(array.dtype.newbyteorder('='))"
    elif dtype.kind in "iu" and takes_masks(datatypes):
        advice = "; for a mask of 0 and 1 say array.astype(bool), where True takes part"
    elif dtype.kind in "iub" and set(datatypes) <= set(FLOATING):
        advice = "; convert with array.astype(numpy.float32)"
    elif dtype.kind == "c":
        advice = "; take array.real, array.imag or numpy.abs(array)"
    else:
        advice = ""
    return f"{argument}: dtype {dtype} was given, {allowed} is allowed{advice}"


def is_finite(*arrays: npt.NDArray[Any]) -> bool:
    """Whether all numbers are finite."""
    # A NaN or an infinity anywhere makes the sum one; it may also overflow, so the search decides.
    with np.errstate(invalid="ignore", over="ignore"):
        return all(bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all()) for array in arrays)
