"""When two results are the same."""

import numpy as np


def same(a, b):
    """Equal to the last bit: dtype, shape and bytes of every array, everything else by ==."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(*pair) for pair in zip(a, b, strict=True))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


def same_values(a, b):
    """As :func:`same`, but any NaN equals any other, and lists equal tuples: what a message carries."""
    if isinstance(a, np.ndarray):
        if not isinstance(b, np.ndarray) or (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        if a.dtype.kind in "iub":
            return bool((a == b).all())
        with np.errstate(invalid="ignore"):  # signalling NaNs
            nan, same_nan = a != a, b != b
        return bool((nan == same_nan).all()) and a[~nan].tobytes() == b[~nan].tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same_values(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return (
            isinstance(b, list | tuple)
            and len(a) == len(b)
            and all(same_values(*pair) for pair in zip(a, b, strict=True))
        )
    return a == b or (a != a and b != b)
