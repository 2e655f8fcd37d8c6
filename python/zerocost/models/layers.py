"""The kernels of an encoder's layers. They are not artifacts: a forward pass calls them on its own arrays."""

from zerocost._kernels import Awake, Linear, __version__, activate, layer_norm

__all__ = ["VERSION", "Awake", "Linear", "activate", "layer_norm"]

VERSION = __version__
"""The version of the kernels: numbers of another version may differ by rounding."""
