"""What the tests run locally and on Ray."""

import numpy as np

import zerocost
from support.contract import context


class Scale(zerocost.ParallelArtifact):
    """Multiplies."""

    def process_parallel(self, tensor, factor: float = 2.0):
        """Multiplies.

        Args:
            tensor: any.
            factor: by what.
        """
        return np.asarray(tensor) * factor


def run(registry, name, **data):
    return registry[name].implementation.execute(data, context(name))["result"]
