"""Types of CSV cells: inferred from a sample, or named by the user."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from batchflow.errors import FormatError

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE_RECORDS = 1000
"""Records of a file from which types are inferred."""

# No leading zeros (an article number, a postcode), no code such as E12, and no number with more
# digits than 64 bits hold.
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,18})", re.ASCII)
_REAL = re.compile(r"-?((0|[1-9]\d{0,14})(\.\d*)?|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_LEAST, _MOST = -(2**63), 2**63 - 1
_TRUTH = {"true": True, "false": False}
_ARROW = {
    "string": "str", "large_string": "str", "string_view": "str",
    "double": "float", "halffloat": "float", "timestamp": "datetime",
}  # fmt: skip


class CellType(Enum):
    """What the cells of a column become; an empty cell becomes ``None``, in a text column it stays."""

    TEXT = "str"
    INTEGER = "int"
    REAL = "float"
    TRUTH = "bool"
    DATE = "date"
    DATETIME = "datetime"

    @classmethod
    def of(cls, kind: Any) -> CellType:
        """Return the type for a Python type or an Arrow type.

        Raises
        ------
        FormatError
            If there is none.
        """
        name = getattr(kind, "__name__", None) or str(kind)
        name = re.sub(r"\d*(\[.*)?$", "", name)
        name = _ARROW.get(name, name)
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(member.value for member in cls)
            message = f"{kind!r} is not a type that a CSV column can have: use one of {known}"
            raise FormatError(message) from None

    def cell(self, text: str) -> Any:
        """Return the value of one cell.

        Raises
        ------
        ValueError
            If the text is not of this type.
        """
        if self is CellType.TEXT:
            return text
        if not text:
            return None
        if "_" in text:  # Python reads 1_000 as a number, other programs do not
            raise ValueError(text)
        value = _PARSERS[self](text)
        if self is CellType.INTEGER and not _LEAST <= value <= _MOST:
            raise ValueError(text)
        return value

    def column(self, texts: Sequence[str]) -> Sequence[Any]:
        """Return the values of many cells; raises `ValueError` if one of them does not fit."""
        if self is CellType.TEXT:
            return texts
        if self in _QUICK and "_" not in "".join(texts):
            try:
                values = list(map(_PARSERS[self], texts))
                if self is CellType.REAL or _LEAST <= min(values) <= max(values) <= _MOST:
                    return values
            except ValueError:
                pass  # an empty cell, or one that does not fit
        return [self.cell(text) for text in texts]

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type of a column."""
        import pyarrow as pa

        names = {"str": "string", "int": "int64", "float": "float64", "bool": "bool_", "date": "date32"}
        return pa.timestamp("us") if self is CellType.DATETIME else getattr(pa, names[self.value])()


def _truth(text: str) -> bool:
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise ValueError(text) from None


_PARSERS: dict[CellType, Callable[[str], Any]] = {
    CellType.INTEGER: int,
    CellType.REAL: float,
    CellType.TRUTH: _truth,
    CellType.DATE: date.fromisoformat,
    CellType.DATETIME: datetime.fromisoformat,
}


_QUICK = {CellType.INTEGER, CellType.REAL}


_MOSTLY = 0.9
"""Of the filled cells, that are of a type before the others are taken for mistakes."""
_FEWEST = 10
"""Filled cells of which some may be mistakes."""


def odd_cell(texts: Sequence[str]) -> tuple[CellType, str] | None:
    """Return the type that nearly all cells of a column of text have, and the first cell that has it not."""
    filled = [text for text in texts if text]
    if len(filled) < _FEWEST:
        return None
    for kind, pattern in ((CellType.INTEGER, _INTEGER), (CellType.REAL, _REAL)):
        odd = [text for text in filled if not pattern.fullmatch(text)]
        if odd and len(odd) <= (1 - _MOSTLY) * len(filled):
            return kind, odd[0]
    return None


def infer(texts: Sequence[str]) -> CellType:
    """Return the narrowest of int, float, bool and text that holds every cell of a sample."""
    filled = [text for text in texts if text]
    if not filled:
        return CellType.TEXT
    if all(map(_INTEGER.fullmatch, filled)):
        fits = min(map(int, filled)) >= _LEAST and max(map(int, filled)) <= _MOST
        return CellType.INTEGER if fits else CellType.TEXT
    if all(map(_REAL.fullmatch, filled)):
        return CellType.REAL
    if all(text.lower() in _TRUTH for text in filled):
        return CellType.TRUTH
    return CellType.TEXT
