"""The command line."""

from batchflow.cli.main import main

__all__ = ["main"]
