"""A column that a record has not: which one may have been meant."""

from __future__ import annotations

from functools import lru_cache
from types import CodeType
from typing import Any

from batchflow.suggesting import did_you_mean

_MOST = 20
"""Columns that are named."""
_VARIABLE = ("LOAD_FAST", "LOAD_DEREF")


def column_hint(error: BaseException, record: Any) -> str:
    """Return the end of the message of a `KeyError` that came of ``row["amout"]``, with the columns there are.

    Nothing is said unless it is sure that it was the record in which the key was looked for, and no table
    of the user's own. It costs nothing until a function has raised.
    """
    key = error.args[0] if type(error) is KeyError and len(error.args) == 1 else None
    trace = error.__traceback__
    if not isinstance(key, str) or not isinstance(record, dict) or trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    name = _subscripted(trace.tb_frame.f_code, trace.tb_lasti, key)
    looked_in = None if name is None else trace.tb_frame.f_locals.get(name)
    if type(looked_in) is not dict or key in looked_in or looked_in.keys() != record.keys():
        return ""
    columns = [str(column) for column in looked_in]
    more = f", and {len(columns) - _MOST:,} more" if len(columns) > _MOST else ""
    there = f"the columns are {', '.join(columns[:_MOST])}{more}" if columns else "it has none"
    return f" is no column of the record: {there}{did_you_mean(key, columns)}"


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
