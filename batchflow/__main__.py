"""``python -m batchflow``: the command line."""

import sys

from batchflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
