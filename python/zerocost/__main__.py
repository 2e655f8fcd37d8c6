"""``python -m zerocost`` is the command ``zerocost``."""

import sys

from zerocost.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
