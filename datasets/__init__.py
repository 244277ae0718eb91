"""Data for the tests, the benchmarks and the demo: made from a seed, once, then found in `MADE`.

>>> from datasets import events_gz, events_jsonl
>>> path = events_jsonl(250_000_000)
"""

from datasets.events import events_gz, events_jsonl
from datasets.making import MADE
from datasets.readings import readings_parquet
from datasets.sales import sales_csv

__all__ = ["MADE", "events_gz", "events_jsonl", "readings_parquet", "sales_csv"]
