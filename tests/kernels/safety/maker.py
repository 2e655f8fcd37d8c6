"""A scene, and what its arrays are made of."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from kernels.safety import guarded

FLOATS = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


@dataclass
class Scene:
    """A call, and the arrays that are written to while it runs, each with the contents that it takes in turn.

    Quiet is a scene whose arrays all hold their first contents; ``allowed`` are errors that contents may lead to.
    """

    call: Callable[[], Any]
    racing: list[tuple[np.ndarray, list[np.ndarray]]]
    allowed: type[BaseException] | tuple[()] = ()
    check: Callable[[Any], None] = field(default=lambda result: None)

    def calm(self):
        for array, contents in self.racing:
            np.copyto(array, contents[0])


@dataclass
class Maker:
    """Makes guarded arrays of one dtype, and their alternating contents."""

    dtype: np.dtype
    flush: str
    rng: np.random.Generator

    def contents(self, shape):
        """Ordinary numbers, then ties, equal, sorted, infinite and huge ones, zeros and NaNs of both signs."""
        rng, size = self.rng, math.prod(shape)
        ordinary = rng.standard_normal(size)
        ties = rng.integers(0, 3, size).astype(np.float64)
        huge = np.where(rng.random(size) < 0.5, float(ml_dtypes.finfo(self.dtype).max), -1.0)
        infinite = np.where(rng.random(size) < 0.1, rng.choice([-np.inf, np.inf], size), ordinary)
        plain = [ordinary, ties, np.full(size, 2.0), np.sort(ordinary), np.zeros(size), infinite, huge]
        made = [each.astype(self.dtype) for each in plain]
        bits = np.dtype(f"u{self.dtype.itemsize}")
        sign = bits.type(1 << (8 * self.dtype.itemsize - 1))
        signs = rng.integers(0, 2, size).astype(bits) * sign
        made.append((np.zeros(size, bits) | signs).view(self.dtype))
        nans = ties.astype(self.dtype).view(bits)
        nans = np.where(rng.random(size) < 0.3, (sign - bits.type(1)) | signs, nans).astype(bits)
        made.append(nans.view(self.dtype))
        return [each.reshape(shape) for each in made]

    def array(self, shape, contents=None):
        """A guarded array, and its contents in turn."""
        contents = self.contents(shape) if contents is None else contents
        return guarded.copy(contents[0], flush=self.flush), contents

    def out(self, shape):
        return guarded.empty(shape, self.dtype, flush=self.flush), self.contents(shape)
