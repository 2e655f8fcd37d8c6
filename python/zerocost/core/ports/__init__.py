"""An artifact's inputs and outputs, read from its schema, and :meth:`Ports.bind`, which every call goes through."""

from zerocost.core.ports.bind import Ports
from zerocost.core.ports.bound import Bound
from zerocost.errors import closest, pointer, shortened

__all__ = ["Bound", "Ports", "closest", "pointer", "shortened"]
