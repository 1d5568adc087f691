"""`python -m mixln`, as torchrun starts it."""

import sys

from mixln.cli import main

if __name__ == "__main__":
    sys.exit(main())
