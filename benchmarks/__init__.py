"""Races of batchflow against what one would write without it: ``python -m benchmarks --help``."""
