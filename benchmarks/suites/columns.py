"""How fast is a vectorised function, where the work is mostly reading columns?

2 GB of Parquet (three of four columns), a function of each batch that filters and converts, and the sum of
what it gives for each of 5,000 sensors. With Arrow's compute functions for those who call a Python function;
Polars, DuckDB and Daft do the same with expressions of their own, which never enter Python. The limit is two
processes by hand with half of the files each.
"""

from __future__ import annotations

from benchmarks.harness import Contestant, Suite
from datasets import readings_parquet

BYTES = 2_000_000_000


def suite(scale: float) -> Suite:
    """Return the race over files, which are made before it starts."""
    files = tuple(map(str, readings_parquet(int(BYTES * scale))))
    peers = [
        ("limit: two processes by hand", "limit", None, None),
        ("Ray Data", "ray_data", 0.3, "pandas"),
        ("Daft, expressions", "daft", 1.0, "daft"),
        ("Polars, expressions", "polars", None, "polars"),
        ("DuckDB, SQL", "duckdb", None, "duckdb"),
    ]
    contestants = [
        Contestant("batchflow", "columns.py", ("batchflow", *files)),
        *(Contestant(name, "columns.py", (way, *files), target, needs) for name, way, target, needs in peers),
    ]
    return Suite(__doc__ or "", contestants)
