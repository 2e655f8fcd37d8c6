"""Arrays of other libraries and in other layouts."""

import numpy as np

from support.equality import same
from zerocost.core.copies import counting_copies


class Borrowed:
    """An array of another library: nothing but DLPack."""

    def __init__(self, values):
        self.values = values

    def __dlpack__(self, **keywords):
        return self.values.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


LAYOUTS = {
    "transposed": lambda a: np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2),
    "reversed": lambda a: np.ascontiguousarray(a[..., ::-1, ::-1])[..., ::-1, ::-1],
    "rows apart": lambda a: np.repeat(a, 2, -2)[..., ::2, :],
    "every other": lambda a: np.repeat(np.repeat(a, 2, -1), 2, -2)[..., ::2, ::2],
    "fortran": np.asfortranarray,
    "heads inside": lambda a: np.ascontiguousarray(a.transpose(1, 2, 0, 3)).transpose(2, 0, 1, 3),
}
"""The same values of four axes, differently in memory."""


def assert_same_in_every_layout(call, plain, **parameters):
    """The call gives the same bits for every layout of its matrix and of ``out``, in place too, without a copy."""
    expected = call(plain, **parameters)
    for layout, arranged in LAYOUTS.items():
        strided = arranged(plain)
        assert same(np.ascontiguousarray(strided), plain), layout
        with counting_copies() as copies:
            result = call(strided, **parameters)
        assert copies.bytes == 0, layout
        assert same(result, expected), layout
        out = arranged(np.full_like(plain, 7))
        assert call(plain, out=out, **parameters) is out
        assert same(np.ascontiguousarray(out), expected), layout
        assert call(strided, out=strided, **parameters) is strided
        assert same(np.ascontiguousarray(strided), expected), layout
