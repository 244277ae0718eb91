"""Inputs, a module for each kind: cut on the driver, read on the workers."""

from batchflow.io.sources.base import Block, ChunkCursor, KeyedChunk, Source

__all__ = ["Block", "ChunkCursor", "KeyedChunk", "Source"]
