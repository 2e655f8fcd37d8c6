"""The command line: ``zerocost list | describe | run | chain | validate | serve | info | demo``."""

from zerocost.cli.app import main

__all__ = ["main"]
