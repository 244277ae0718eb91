"""``python -m batchflow``: the command line."""

import sys

from batchflow.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
