"""Run a Python function over a very large set of files or records, on all cores or on a Ray cluster.

Names load what they need when they are first used, so that ``import batchflow`` takes 10 ms and
workers can start while the rest is still loading.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchflow import errors
    from batchflow.api import map_batches, map_records, stream_batches
    from batchflow.combining.result import Result
    from batchflow.errors import BatchflowError
    from batchflow.executors import Processes, Ray, Serial
    from batchflow.flow import Flow
    from batchflow.job import Job
    from batchflow.readers import files, read_csv, read_json, read_parquet, read_text, records
    from batchflow.report import Report
    from batchflow.resources import Resources
    from batchflow.retry import Retry

__version__ = "0.1.0"

_HOMES = {
    "BatchflowError": "errors",
    "Flow": "flow",
    "Job": "job",
    "Processes": "executors",
    "Ray": "executors",
    "Report": "report",
    "Resources": "resources",
    "Retry": "retry",
    "Result": "combining.result",
    "Serial": "executors",
    "files": "readers",
    "map_batches": "api",
    "map_records": "api",
    "read_csv": "readers",
    "read_json": "readers",
    "read_parquet": "readers",
    "read_text": "readers",
    "records": "readers",
    "stream_batches": "api",
}

__all__ = [
    "BatchflowError",
    "Flow",
    "Job",
    "Processes",
    "Ray",
    "Report",
    "Resources",
    "Result",
    "Retry",
    "Serial",
    "errors",
    "files",
    "map_batches",
    "map_records",
    "read_csv",
    "read_json",
    "read_parquet",
    "read_text",
    "records",
    "stream_batches",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("batchflow.errors")
    if name not in _HOMES:
        message = f"module 'batchflow' has no attribute {name!r}"
        raise AttributeError(message, name=name, obj=sys.modules[__name__])  # Python tells what may be meant
    value = getattr(importlib.import_module(f"batchflow.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
