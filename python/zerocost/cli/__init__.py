"""The command line ``zerocost``: one module for each command, named like it.

- ``app`` puts the commands together and turns errors into exit codes.
- ``options`` holds the options that commands share, ``output`` what they print.
- ``inputs`` reads ``--input`` and ``--param``, ``files`` the files, ``values`` JSON, ``chain_file`` a chain.
- ``asgi_transport`` calls a server's app without a network, for ``validate``.
"""

from zerocost.cli.app import main

__all__ = ["main"]
