"""Readings of sensors: Parquet files of whole numbers, which sum up to the same in any order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets.making import SEED, make_once

SENSORS = 5_000
_ROW_BYTES = 20
"""Of a row in a file: the numbers are random, so they hardly compress."""
_GROUP_ROWS = 500_000


def readings_parquet(size: int, files: int = 8, seed: int = SEED) -> list[Path]:
    """Return Parquet files of readings with so many bytes in all, about."""
    rows = max(1, size // files // _ROW_BYTES)
    names = (f"readings-{size}-{files}-{at}-{seed}.parquet" for at in range(files))
    return [make_once(name, _content(rows, seed * 1_000 + at)) for at, name in enumerate(names)]


def _content(rows: int, seed: int) -> Iterator[bytes]:
    """Yield a whole file at once."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    table = pa.table(
        {
            "sensor": rng.integers(0, SENSORS, rows, dtype=np.int32),
            "time": rng.integers(0, 1 << 50, rows, dtype=np.int64),
            "value": rng.integers(-40_000, 60_000, rows, dtype=np.int32),
            "quality": rng.integers(0, 1 << 30, rows, dtype=np.int32),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=_GROUP_ROWS, use_dictionary=False)
    yield sink.getvalue().to_pybytes()
