"""JSON values as arrays and back.

Tensors are nested lists, or ``{"dtype", "shape", "data"}``, which loses nothing. Numbers that JSON does not have
travel as the strings ``"NaN"``, ``"Infinity"``, ``"-Infinity"``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from zerocost.core.arrays import DATATYPES, as_tensor, dtype_of, is_tensor_like
from zerocost.core.ports import Ports
from zerocost.errors import DatatypeError, InvalidInput, ShapeError

__all__ = ["json_text", "with_arrays"]

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_DTYPES = {dtype_of(name).name: name for name in DATATYPES if name not in ("BF16", "BYTES")} | {"bfloat16": "BF16"}


def with_arrays(values: Mapping[str, Any], ports: Ports) -> dict[str, Any]:
    """The inputs with every tensor as an array: nested lists and typed objects, where the artifact declares a tensor.

    Raises:
        InvalidInput: a list that is ragged or holds no numbers, a typed object that is wrong.
    """
    result = {}
    for name, value in values.items():
        if ports.is_tensor(name) and isinstance(value, dict):
            result[name] = _from_typed(name, value)
        elif ports.is_tensor(name) and isinstance(value, list):
            result[name] = as_tensor(_numbers(value), name, ports.datatypes(name))
        else:
            result[name] = value
    return result


def json_text(value: Any, *, typed: bool = False) -> bytes:
    """JSON with arrays as nested lists, or as ``{"dtype", "shape", "data"}`` where ``typed``."""
    import orjson

    def plain(value: Any) -> Any:
        if is_tensor_like(value):
            array = as_tensor(value, "result")
            data = plain((array.ravel() if typed else array).tolist())
            return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data} if typed else data
        if isinstance(value, np.generic):
            return plain(value.item())
        if isinstance(value, float) and not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        return value

    return orjson.dumps(plain(value), default=str)


def _from_typed(name: str, value: dict[str, Any]) -> Any:
    if value.keys() != {"dtype", "shape", "data"}:
        raise InvalidInput(
            f"{name}: an object with {sorted(value)} was given, 'dtype', 'shape', 'data' are needed", name
        )
    datatype = _DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if datatype is None:
        raise DatatypeError(f"{name}: dtype {value['dtype']!r} was given, {', '.join(_DTYPES)} are allowed", name)
    array = np.asarray(_numbers(value["data"])).astype(dtype_of(datatype)).ravel()
    try:
        return array.reshape(value["shape"])
    except (TypeError, ValueError):
        raise ShapeError(f"{name}: shape {value['shape']} was given for {array.size} numbers", name) from None


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value
