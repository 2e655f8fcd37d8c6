"""``zerocost demo``: a chain on real data, in the process and over HTTP, with timings and pictures.

``command`` is the command, ``run`` the demo from beginning to end. ``claims`` checks its claims, ``client`` is its HTTP
client, ``sentences`` is its second part, ``picture`` draws, ``real_scores`` is the data.
"""

from zerocost.cli.demo.command import app

__all__ = ["app"]
