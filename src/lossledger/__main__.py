"""`python -m lossledger` is the command `lossledger`."""

import sys

from lossledger.cli import main

if __name__ == "__main__":
    sys.exit(main())
