"""The kernels of an encoder's layers. They are no artifacts: a forward pass calls them on arrays that it owns."""

from zerocost._kernels import Awake, Linear, __version__, activate, layer_norm

__all__ = ["VERSION", "Awake", "Linear", "activate", "layer_norm"]

VERSION = __version__
"""Of the kernels: another one's numbers may differ by rounding."""
