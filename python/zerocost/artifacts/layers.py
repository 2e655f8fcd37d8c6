"""The kernels of an encoder's layers, for the services: only this layer imports the compiled module.

They are no artifacts. A forward pass calls them a few dozen times, on arrays that it owns.
"""

from zerocost._kernels import Awake, Linear, __version__, activate, layer_norm

__all__ = ["VERSION", "Awake", "Linear", "activate", "layer_norm"]

VERSION = __version__
"""Of the kernels: another one's numbers may differ by rounding."""
