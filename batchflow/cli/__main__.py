"""``python -m batchflow.cli``: what a submitted job starts."""

import sys

from batchflow.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
