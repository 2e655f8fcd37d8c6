"""Typed JSON as a client without zerocost would write and read it, in NumPy and the json module."""

import json

import ml_dtypes
import numpy as np

DTYPES = {
    "FP64": np.float64,
    "FP32": np.float32,
    "FP16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "BOOL": np.bool_,
    **{f"UINT{bits}": np.dtype(f"uint{bits}").type for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"int{bits}").type for bits in (8, 16, 32, 64)},
}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
TYPED = {"accept": "application/json;tensors=typed"}


def element(value):
    if isinstance(value, bool | np.bool_ | int | np.integer):
        return value.item() if isinstance(value, np.generic) else value
    value = float(value)
    if value != value:
        return "NaN"
    return value if abs(value) != float("inf") else ("Infinity" if value > 0 else "-Infinity")


def typed(array):
    data = [element(value) for value in array.ravel()]
    return {"dtype": NAMES[array.dtype], "shape": list(array.shape), "data": data}


def nested(array):
    return [nested(row) for row in array] if array.ndim else element(array[()])


def encoded(value, tensor=typed):
    if isinstance(value, np.ndarray):
        return tensor(value)
    if isinstance(value, dict):
        return {key: encoded(item, tensor) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encoded(item, tensor) for item in value]
    return value


def decoded(value):
    if isinstance(value, dict):
        if value.keys() == {"dtype", "shape", "data"}:
            dtype = DTYPES[value["dtype"]]
            data = [float(item) if isinstance(item, str) else item for item in value["data"]]
            return (
                np.array(data, dtype=np.float64 if dtype is ml_dtypes.bfloat16 else dtype)
                .astype(dtype)
                .reshape(value["shape"])
            )
        return {key: decoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decoded(item) for item in value]
    return value


def same(a, b):
    """Equal to the last bit, NaN payloads excepted."""
    if isinstance(a, np.ndarray):
        if not isinstance(b, np.ndarray) or (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        if a.dtype.kind in "iub":
            return bool((a == b).all())
        with np.errstate(invalid="ignore"):  # signalling NaNs
            nan, same_nan = a != a, b != b
        return bool((nan == same_nan).all()) and a[~nan].tobytes() == b[~nan].tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(same(*pair) for pair in zip(a, b, strict=True))
    return a == b or (a != a and b != b)


def parsed(response):
    return decoded(json.loads(response.content))
