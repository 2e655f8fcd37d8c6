"""Typed JSON as a client without zerocost would write and read it, in NumPy and the json module."""

import json

import ml_dtypes
import numpy as np

from support.dtypes import DTYPES, NAMES

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


def parsed(response):
    return decoded(json.loads(response.content))
