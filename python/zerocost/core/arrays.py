"""Arrays at the door: what comes in becomes one NumPy array, without a copy wherever NumPy can.

Copies that cannot be avoided (a list, a layout that no kernel can read) are made here and counted here; a chain's trace
shows them. Datatypes carry their Open Inference Protocol names (``"FP32"``, ``"INT64"``, …).
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost import _kernels
from zerocost.errors import DatatypeError, LimitExceeded, RangeError, ShapeError

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

FLOATING = ("FP64", "FP32", "FP16", "BF16")
"""What floating-point ports take; the first is what nested lists become."""

_DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(text) for name, text in _kernels.DATATYPES if name != "BF16"}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

read_json = _kernels.read_json
"""Reads JSON, arrays included; see :func:`list_datatype`."""

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
    if isinstance(value, np.generic):
        return False
    # On the type: an object that has an answer to every name is no array.
    return isinstance(value, memoryview) or hasattr(type(value), "__array__") or hasattr(type(value), "__dlpack__")


def list_datatype(datatypes: Sequence[str] | None) -> tuple[str, bool, bool]:
    """What lists become where a tensor of ``datatypes`` (None: any) is declared, wherever they are read.

    Returns:
        The datatype of lists of numbers (float64 where that is allowed, otherwise the first that is), whether lists of
        booleans become BOOL, and whether lists of 0 and 1 are refused, which may mean either.
    """
    if datatypes is None or "FP64" in datatypes:
        return "FP64", datatypes is None or "BOOL" in datatypes, _takes_masks(datatypes)
    numbers = [datatype for datatype in datatypes if datatype not in ("BOOL", "BYTES")]
    return (numbers or list(datatypes))[0], "BOOL" in datatypes, _takes_masks(datatypes)


def _takes_masks(datatypes: Sequence[str] | None) -> bool:
    """Whether booleans are declared beside floats: a mask, of who takes part or of what is added."""
    return datatypes is not None and "BOOL" in datatypes and not set(FLOATING).isdisjoint(datatypes)


def refuse_zero_one(array: npt.NDArray[Any], argument: str) -> None:
    """Raises DatatypeError if the numbers that a list was, where :func:`_takes_masks`, look like a mask of 0 and 1.

    As floats they would be added, which is hardly what is meant. Zeros alone change nothing either way. The reader of
    JSON calls it too.
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
        value: an ndarray, an object with DLPack, ``__array__`` or the buffer protocol (without a copy where NumPy can;
            a fresh array is counted), or nested lists of numbers (they become float64, a counted copy).
        argument: the name that errors carry.

    Raises:
        DatatypeError: any other dtype (integers, booleans, complex, big-endian, object), with what to do about it;
            a masked array.
        RangeError: lists of numbers that the datatype does not hold.
        ShapeError: ragged lists.
    """
    return as_tensor(value, argument, FLOATING)


def as_tensor(value: Any, argument: str, datatypes: Sequence[str] | None = None) -> npt.NDArray[Any]:
    """One array of one of ``datatypes`` (None: any). See :func:`as_floating`.

    Lists become what :func:`list_datatype` says. Subclasses of ndarray come back as they are.
    """
    array = _from_list(value, argument, datatypes) if isinstance(value, list | tuple) else _borrow(value, argument)
    if datatypes is not None and datatype_of(array.dtype) not in datatypes:
        raise DatatypeError(datatype_refusal(array.dtype, argument, datatypes), argument)
    # Pure views (no declared datatypes) take any layout; kernels need whole, aligned steps.
    if datatypes is not None and not is_readable(array):
        count_copy(array.nbytes)
        array = array.copy()
    return array


def is_readable(array: npt.NDArray[Any]) -> bool:
    """Whether kernels can read the array where it is: aligned, in steps of whole elements."""
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
    # Protocols belong to types: an object that has an answer to every name has none.
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
    if type(array) is np.ndarray or "numpy.ma" not in sys.modules:  # who has a masked array has imported its module
        return
    if isinstance(array, np.ma.MaskedArray):
        raise DatatypeError(
            f"{argument}: a masked array was given, and no kernel sees its mask; give array.filled(…) with the number "
            "that is to stand where it is masked",
            argument,
        )


def _made(value: Any, argument: str) -> npt.NDArray[Any]:
    """What the ``__array__`` of another library's object gives: of pandas, polars, xarray, …."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    try:
        array = np.asarray(value)
    except Exception as error:  # whatever a stranger's __array__ raises
        raise DatatypeError(f"{argument}: {kind} gives no array ({type(error).__name__}: {error})", argument) from error
    if array.dtype.kind == "O":
        raise DatatypeError(
            f"{argument}: {kind} gives an array of objects; values of one type without gaps are needed", argument
        )
    if array.flags.owndata:
        count_copy(array.nbytes)
    return array


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
"""What lists hold that become each datatype, and its name; all others are numbers."""

_EXACT = 2**53
"""Beyond it a float64 does not tell one whole number from the next."""


def _exact(value: Sequence[Any], datatype: str, argument: str) -> npt.NDArray[Any]:
    """The whole numbers of a list one by one, where NumPy made float64 of large ones; raises if one does not fit."""
    exact, limits = np.asarray(value, dtype=object), np.iinfo(dtype_of(datatype))
    for number in exact.flat:
        if isinstance(number, float) and not max(limits.min, -_EXACT) <= number <= min(limits.max, _EXACT):
            # As in JSON: what is written with a point or an exponent is no whole number there.
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
    """The numbers of a list, which NumPy has read, as the datatype that they become; it must hold every one of them."""
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
    """The types of what nested lists hold."""
    kinds = set(map(type, value))
    nested = {kind for kind in kinds if issubclass(kind, list | tuple)}
    if nested:
        kinds -= nested
        kinds = kinds.union(*(_kinds(item) for item in value if type(item) in nested))
    return kinds


def datatype_refusal(dtype: np.dtype[Any], argument: str, datatypes: Sequence[str]) -> str:
    """What an array of another dtype is refused with, and what to do about it."""
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


def is_finite(*arrays: npt.NDArray[Any]) -> bool:
    """Whether all numbers are finite."""
    # A NaN or an infinity anywhere makes the sum one; it may also overflow, so the search decides.
    with np.errstate(invalid="ignore", over="ignore"):
        return all(bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all()) for array in arrays)
