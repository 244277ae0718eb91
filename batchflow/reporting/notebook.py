"""What results look like in a notebook: small tables that take colours and letters from the page they stand in.

Everything is escaped and cut: a page holds a few rows and columns, whatever a result holds. No script,
nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from reprlib import Repr
from typing import Any

from batchflow.core.text import printable

ROWS = 10
"""Maximum rows of a result that are shown."""
_COLUMNS = 20
_LETTERS = 80
_STYLE = """
.bf-look{font-family:inherit;max-width:100%;overflow-x:auto}
.bf-look table{border-collapse:collapse;margin:.4em 0;border:0}
.bf-look caption{text-align:left;font-weight:600;padding:.2em 0;white-space:nowrap}
.bf-look th,.bf-look td{padding:.15em .7em;border:0;border-bottom:1px solid rgba(128,128,128,.35);text-align:left}
.bf-look th{font-weight:600}.bf-look .bf-none{opacity:.65}
.bf-look .bf-number{text-align:right;font-variant-numeric:tabular-nums}
"""


def page(*parts: str) -> str:
    """Join HTML parts to one block."""
    return f'<div class="bf-look"><style>{_STYLE}</style>{"".join(parts)}</div>'


def line(text: str) -> str:
    """Return a line of text."""
    return f"<div>{escape(printable(text))}</div>"


def facts(title: str, values: Mapping[str, Any]) -> str:
    """Return a list of names and values as HTML."""
    rows = (f'<tr><th scope="row">{_shown(name)}</th>{_cell(value)}</tr>' for name, value in values.items())
    return f"<table>{_caption(title)}<tbody>{''.join(rows)}</tbody></table>"


def table(what: str, count: int, rows: Sequence[Any]) -> str:
    """Return the first few rows of so many, mappings or other values, as a table; columns are bounded too."""
    if not rows:
        return ""
    names = list(dict.fromkeys(key for row in rows if isinstance(row, Mapping) for key in row))
    if not all(isinstance(row, Mapping) for row in rows):
        names, rows = ["value"], [{"value": row} for row in rows]
    title = f"{count:,} {what}{'s' if count > 1 else ''}"
    title = title if count <= len(rows) else f"first {len(rows)} of {title}"
    more = f" ({len(names) - _COLUMNS:,} more columns)" if len(names) > _COLUMNS else ""
    names = names[:_COLUMNS]
    head = "".join(_head(name, rows) for name in names)
    body = "".join(f"<tr>{_cells(row, names)}</tr>" for row in rows)
    return f"<table>{_caption(title + more)}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _caption(text: str) -> str:
    return f"<caption>{escape(printable(text))}</caption>"


def _head(name: Any, rows: Iterable[Mapping[Any, Any]]) -> str:
    kind = ' class="bf-number"' if all(_is_number(row.get(name)) for row in rows) else ""
    return f'<th scope="col"{kind}>{_shown(name)}</th>'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cells(row: Mapping[Any, Any], names: Iterable[Any]) -> str:
    return "".join(_cell(row.get(name)) for name in names)


def _cell(value: Any) -> str:
    if value is None:
        return '<td class="bf-none">null</td>'
    return f'<td class="bf-number">{_shown(value)}</td>' if _is_number(value) else f"<td>{_shown(value)}</td>"


_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _LETTERS


def _shown(value: Any) -> str:
    """Return a value as text, escaped and cut, however large it is and whatever it says of itself."""
    text = value if isinstance(value, str) else _SHORT.repr(value)
    text = text if len(text) <= _LETTERS else text[: _LETTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return escape(printable(text))
