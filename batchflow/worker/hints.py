"""What a mistake in a function may come of: a column that is not there, or a table where it expects a record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from types import CodeType, TracebackType
from typing import Any

from batchflow.core.text import did_you_mean

_MOST = 20
"""Columns that are named."""
_VARIABLE = ("LOAD_FAST", "LOAD_DEREF")


_DELIMITERS = ";\t|,"
_MISSING = (
    r"""Field "(.*)" does not exist in schema|Column '(.*)' not found|No match for FieldRef\.Name\((.*?)\)"""
)
"""As Arrow and Polars tell of a column that a table has not."""
_OF_RECORDS = "; map_records calls the function with one record, map_batches (--per batch) with a table of many"
_OF_TABLES = "; map_batches (--per batch) calls the function with a table of many records, map_records with one"


def of_record(error: BaseException, record: Any) -> str:
    """Return the end of the message of an error that a function of records raised.

    Nothing is said unless it is sure that it was the record that the function used wrongly, and nothing
    of the user's own. It costs nothing until a function has raised.
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
    """Return the end of the message of an error that a function of batches raised, of which this is a record."""
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
    """Whether an error came of ``row["amout"]``, where ``row`` is the record."""
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
    """Return where an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


@lru_cache(64)
def _columns(key: str, names: tuple[Any, ...]) -> str:
    """Return the columns that there are instead of one, and what helps."""
    columns = [str(column) for column in names]
    more = f", and {len(columns) - _MOST:,} more" if len(columns) > _MOST else ""
    there = f"the columns are {', '.join(columns[:_MOST])}{more}"
    return (there if columns else "it has none") + (_delimited(key, columns) or did_you_mean(key, columns))


def _delimited(key: str, columns: Sequence[str]) -> str:
    """Return what to say where the only column is a line of a CSV file that has another delimiter."""
    for mark in _DELIMITERS if len(columns) == 1 else "":
        if key in columns[0].split(mark):
            return f"; is the file delimited by {mark!r}? Pass delimiter={mark!r} (--delimiter)"
    return ""


@lru_cache(64)
def _subscripted(code: CodeType, at: int, key: str) -> str | None:
    """Return the name of the variable in ``name["key"]``, if that is what an instruction is the end of."""
    import dis  # only where something failed

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
