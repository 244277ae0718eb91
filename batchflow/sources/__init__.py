"""Inputs, a module for each kind: cut on the driver, read on the workers."""

from batchflow.sources.base import Block, Cursor, Drawn, Source

__all__ = ["Block", "Cursor", "Drawn", "Source"]
