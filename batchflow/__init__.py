"""Run a Python function over a very large set of files or records, on all cores or on a Ray cluster.

Names load what they need when they are first used, so that ``import batchflow`` takes 10 ms and
workers can start while the rest is still loading.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from batchflow.core.package import __version__ as __version__

if TYPE_CHECKING:
    from batchflow.api import map_batches, map_records, stream_batches
    from batchflow.combiner.result import Result
    from batchflow.core.resources import Resources
    from batchflow.core.retry import Retry
    from batchflow.errors import BatchflowError
    from batchflow.executors import Processes, Ray, Serial
    from batchflow.flows.flow import Flow
    from batchflow.io.readers import files, read_csv, read_json, read_parquet, read_text, records
    from batchflow.jobs.job import Job
    from batchflow.reporting.report import Report


_HOMES = {
    "BatchflowError": "errors",
    "Flow": "flows.flow",
    "Job": "jobs.job",
    "Processes": "executors",
    "Ray": "executors",
    "Report": "reporting.report",
    "Resources": "core.resources",
    "Retry": "core.retry",
    "Result": "combiner.result",
    "Serial": "executors",
    "files": "io.readers",
    "map_batches": "api",
    "map_records": "api",
    "read_csv": "io.readers",
    "read_json": "io.readers",
    "read_parquet": "io.readers",
    "read_text": "io.readers",
    "records": "io.readers",
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
