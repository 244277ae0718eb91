"""Hints at common mistakes in a function: a missing column, or a table instead of a record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from types import CodeType, TracebackType
from typing import Any

from batchflow.core.text import did_you_mean

_MOST = 20
"""Maximum number of columns to list."""
_VARIABLE = ("LOAD_FAST", "LOAD_DEREF")


_DELIMITERS = ";\t|,"
_MISSING = (
    r"""Field "(.*)" does not exist in schema|Column '(.*)' not found|No match for FieldRef\.Name\((.*?)\)"""
)
"""Messages of Arrow and Polars about a missing column."""
_OF_RECORDS = "; map_records calls the function with one record, map_batches (--per batch) with a table of many"
_OF_TABLES = "; map_batches (--per batch) calls the function with a table of many records, map_records with one"


def of_record(error: BaseException, record: Any) -> str:
    """Return a hint to append to the error message of a function of records.

    A hint is given only if the function certainly misused the record and not an object of its own. It costs
    nothing unless a function raises.
    """
    if not isinstance(record, dict):
        return ""
    if isinstance(error, AttributeError):
        return _OF_RECORDS if _alike(error.obj, record) and _has_table(error.name or "") else ""
    key = error.args[0] if type(error) is KeyError and len(error.args) == 1 else None
    if not isinstance(key, str) or not _looked_for(key, error, record):
        return ""
    return f" is no column of the record: {_columns(key, tuple(record))}"


def of_batch(error: BaseException, record: Any) -> str:
    """Return a hint to append to the error message of a function of batches, given one of its records."""
    told = str(error)
    if not isinstance(record, dict):
        return ""
    if isinstance(error, AttributeError | TypeError):
        of_table = isinstance(error, AttributeError) and hasattr(dict, error.name or "") and "lib.Table'" in told
        return _OF_TABLES if of_table or "pyarrow.lib.ChunkedArray" in told else ""
    found = re.search(_MISSING, told)
    key = next(filter(None, found.groups()), None) if found else error.args[0] if _of_pandas(error) else None
    if not isinstance(key, str) or key in record:
        return ""
    return f"; of the batch {_columns(key, tuple(record))}" if found or did_you_mean(key, map(str, record)) else ""


def _looked_for(key: str, error: BaseException, record: dict[Any, Any]) -> bool:
    """Whether an error was raised by ``row["amout"]``, with ``row`` being the record."""
    trace = _last(error)
    if trace is None:
        return False
    name = _subscripted(trace.tb_frame.f_code, trace.tb_lasti, key)
    looked_in = None if name is None else trace.tb_frame.f_locals.get(name)
    return _alike(looked_in, record) and key not in record


def _alike(value: Any, record: dict[Any, Any]) -> bool:
    return type(value) is dict and value.keys() == record.keys()


def _has_table(name: str) -> bool:
    import pyarrow as pa

    return hasattr(pa.Table, name)


def _of_pandas(error: BaseException) -> bool:
    trace = _last(error)
    module = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return type(error) is KeyError and module.startswith("pandas.")


def _last(error: BaseException) -> TracebackType | None:
    """Return the innermost entry of a traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


@lru_cache(64)
def _columns(key: str, names: tuple[Any, ...]) -> str:
    """List the existing columns, with a suggestion for the missing one."""
    columns = [str(column) for column in names]
    more = f", and {len(columns) - _MOST:,} more" if len(columns) > _MOST else ""
    there = f"the columns are {', '.join(columns[:_MOST])}{more}"
    return (there if columns else "it has none") + (_delimited(key, columns) or did_you_mean(key, columns))


def _delimited(key: str, columns: Sequence[str]) -> str:
    """Suggest another delimiter if the only column is an undivided line of a CSV file."""
    for mark in _DELIMITERS if len(columns) == 1 else "":
        if key in columns[0].split(mark):
            return f"; is the file delimited by {mark!r}? Pass delimiter={mark!r} (--delimiter)"
    return ""


@lru_cache(64)
def _subscripted(code: CodeType, at: int, key: str) -> str | None:
    """Return the variable name in ``name["key"]``, if that expression ends at an instruction."""
    import dis  # only needed after a failure

    before: list[dis.Instruction] = []
    for one in dis.get_instructions(code):
        if one.offset >= at:
            break
        before = [*before[-1:], one]
    else:
        return None
    if len(before) < 2 or not one.opname.startswith("BINARY_") or before[1].argval != key:
        return None
    name = before[0].argval
    return name if before[0].opname.startswith(_VARIABLE) and isinstance(name, str) else None
