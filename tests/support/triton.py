"""Tensors for Triton's client. Where it is not installed, modules that import this one are skipped."""

import numpy as np
import pytest

from support.dtypes import values
from support.equality import same_values

tritonclient = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
from tritonclient.utils import InferenceServerException  # noqa: E402, F401 -- only where tritonclient is installed


def tensor(name, array, datatype, *, binary=True):
    made = tritonclient.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def sample(datatype, shape, *, binary):
    """An array of the datatype; as JSON, its texts are without NUL, at which the client ends a text."""
    array = values(datatype, shape)
    if datatype == "BYTES" and not binary:
        return np.array([item.replace(b"\x00", b"") for item in array.ravel()], dtype=object).reshape(shape)
    return array


def assert_echoed(result, name, array):
    """The result is of version 7 and request r1, and has the array's values, shape and dtype."""
    assert result.get_response()["id"] == "r1"
    assert result.get_response()["model_version"] == "7"
    received = result.as_numpy(name)
    if array.dtype == object:
        texts = [item if isinstance(item, bytes) else item.encode() for item in received.ravel()]
        assert texts == list(array.ravel())
        assert result.get_output(name)["shape"] == list(array.shape)
    elif array.size:
        assert same_values(array, received.astype(array.dtype))
        assert received.dtype == array.dtype
    else:
        assert received.shape == array.shape
