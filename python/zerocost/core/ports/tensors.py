"""Checks of declared tensors: whether an array fits as it is, and whether shapes agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zerocost.core.arrays import is_readable
from zerocost.core.datatypes import datatype_of, dtype_of
from zerocost.core.ports.checks import Check
from zerocost.errors import ShapeError

__all__ = ["agreement", "match_shape", "tensor_check"]

Shape = list[str | int]
Sizes = dict[str, tuple[int, str]]


def tensor_check(tensor: Mapping[str, Any], *, is_required: bool) -> Check:
    """Accepts the arrays that fit an ``x-tensor`` as they are; also None, unless the tensor is required.

    Symbols that several tensors share are checked by :func:`agreement`.
    """
    names, declared = tensor.get("datatypes"), tensor.get("shape")
    if names is None and declared is None:
        # Subclasses of ndarray (masked arrays) may be more than arrays: they take the slow way.
        return lambda value: type(value) is np.ndarray or (value is None and not is_required)
    lowest, highest = _ranks(declared)
    fixed, equal = _axes(declared or [])
    any_dtype, ndarray = names is None, np.ndarray
    dtypes = {dtype_of(name) for name in names or () if name not in ("BF16", "BYTES")}

    def is_declared(dtype: np.dtype[Any]) -> bool:
        if names is None or datatype_of(dtype) not in names:
            return names is None
        dtypes.add(dtype)  # bfloat16: ml_dtypes is imported by its users only
        return True

    def fits(value: Any) -> bool:
        if type(value) is not ndarray:
            return value is None and not is_required
        if not ((value.dtype in dtypes or is_declared(value.dtype)) and lowest <= value.ndim <= highest):
            return False
        flags = value.flags
        # Without declared dtypes any layout is accepted.
        is_laid_out = any_dtype or (flags.c_contiguous and flags.aligned) or is_readable(value)
        if fixed or equal:
            shape = value.shape
            for axis, length in fixed:
                if shape[axis] != length:
                    return False
            for axis, other in equal:
                if shape[axis] != shape[other]:
                    return False
        return is_laid_out

    return fits


def _ranks(declared: Shape | None) -> tuple[int, float]:
    """The fewest and the most axes of a declared shape."""
    if declared is None:
        return 0, math.inf
    axes = declared[1:] if declared[:1] == ["..."] else declared
    return len(axes), len(axes) if axes is declared else math.inf


def _axes(declared: Shape) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The axes of fixed length, and pairs of axes with the same symbol; counted from the end."""
    fixed: list[tuple[int, int]] = []
    equal: list[tuple[int, int]] = []
    first: dict[str, int] = {}
    for index, axis in enumerate(declared, start=-len(declared)):
        if isinstance(axis, str):
            if first.setdefault(axis, index) != index:
                equal.append((first[axis], index))
        elif axis >= 0:
            fixed.append((index, axis))
    return fixed, equal


def agreement(tensors: Mapping[str, Mapping[str, Any]]) -> Callable[[Mapping[str, Any]], bool] | None:
    """A check whether symbols that several tensors share stand for one length each; None if they share none.

    It is called with inputs that :func:`tensor_check` has accepted.
    """
    places: dict[str, list[tuple[str, int]]] = {}
    for name, tensor in tensors.items():
        shape = tensor.get("shape") or []
        for index, axis in enumerate(shape):
            if isinstance(axis, str) and axis != "...":
                places.setdefault(axis, []).append((name, index - len(shape)))
    shared = [tuple(found) for found in places.values() if len({name for name, _ in found}) > 1]
    if not shared:
        return None

    def agree(values: Mapping[str, Any]) -> bool:
        for found in shared:
            size = None
            for name, axis in found:
                array = values.get(name)
                if array is not None:
                    length = array.shape[axis]
                    if size is None:
                        size = length
                    elif length != size:
                        return False
        return True

    return agree


def match_shape(name: str, shape: tuple[int, ...], declared: Shape | None, sizes: Sizes) -> None:
    """Raises ShapeError if ``shape`` does not fit ``declared``; equal symbols must agree within ``sizes``.

    Args:
        name: the tensor's name.
        shape: its shape.
        declared: a list of sizes and symbols; a leading ``"..."`` stands for any leading axes, -1 for any size.
        sizes: the length of each symbol so far, with the tensor that it came from. New symbols are added.
    """
    if declared is None:
        return
    axes = declared[1:] if declared[:1] == ["..."] else declared
    if len(shape) < len(axes) or (axes is declared and len(shape) != len(axes)):
        raise _wrong_shape(name, shape, declared)
    for axis, length in zip(axes, shape[len(shape) - len(axes) :], strict=True):
        if isinstance(axis, int):
            if axis not in (-1, length):
                raise _wrong_shape(name, shape, declared)
        else:
            known, origin = sizes.setdefault(axis, (length, name))
            if known != length:
                detail = "" if origin == name else f" with {axis} = {known} as in {origin}"
                raise _wrong_shape(name, shape, declared, detail)


def _wrong_shape(name: str, shape: tuple[int, ...], declared: Shape, detail: str = "") -> ShapeError:
    text = "[" + ", ".join(str(axis) for axis in declared) + "]"
    return ShapeError(f"{name}: shape {list(shape)} was given, {text} is needed{detail}", name)
