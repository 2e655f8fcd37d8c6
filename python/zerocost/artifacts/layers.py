"""The kernels of an encoder's layers, for the services: only this layer imports the compiled module.

They are no artifacts. A forward pass calls them a few dozen times, on arrays that it owns.
"""

from zerocost._kernels import activate, dense, layer_norm

__all__ = ["activate", "dense", "layer_norm"]
