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

    from batchflow.core.chunks import InputFile

SAMPLE_RECORDS = 1000
"""Records of a file from which types are inferred."""
SAMPLE_FILES = 5
"""Files that types are inferred from."""
SHOWN_TYPES = 20
"""Columns whose types a plan shows."""
_MOST_FILES = 1000
"""Files that are opened for it at most: some are empty, or have not every column."""

# The only spelling of a whole number: no leading zero (an article number, a postcode), no plus sign, no "-0".
_INTEGER = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)
_REAL = re.compile(r"-?((?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_FRACTION = re.compile(r"\.|e[-+]", re.IGNORECASE)
"""What tells a column of measurements from codes of digits, such as ``1E5``."""
_SHORT = 15
"""Characters of a decimal that a float holds exactly, whatever they are."""
_LEAST, _MOST = -(2**63), 2**63 - 1
_TRUTH = {"true": True, "false": False}
_TRUTHS = frozenset({"true", "false", "True", "False", "TRUE", "FALSE"})
_ARROW = {
    "string": "str",
    "large_string": "str",
    "string_view": "str",
    "double": "float",
    "halffloat": "float",
    "timestamp": "datetime",
}


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

    def cell(self, text: str, *, exact: bool = False) -> Any:
        """Return the value of one cell.

        Parameters
        ----------
        exact
            Accept only cells that `infer` accepts: the value tells how the cell was written. A type that
            the user named is given to every cell that Python converts.

        Raises
        ------
        ValueError
            If the text is not of this type.
        """
        if self is CellType.TEXT:
            return text
        if not text:
            return None
        if "_" in text or not text.isascii():  # Python reads 1_000 and full-width digits, other programs do not
            raise ValueError(text)
        if exact and not _EXACT[self](text):
            raise ValueError(text)
        if self is CellType.DATETIME and _FINER.search(text):  # Python drops further digits
            raise ValueError(text)
        value = _PARSERS[self](text)
        if self is CellType.INTEGER and not _LEAST <= value <= _MOST:
            raise ValueError(text)
        return value

    def column(self, texts: Sequence[str], *, exact: bool = False) -> Sequence[Any]:
        """Return the values of many cells; raises `ValueError` if one of them does not fit."""
        if self is CellType.TEXT:
            return texts
        if self in _QUICK and (_is_plain(texts, self) if exact else _is_ascii(texts)):
            try:
                values = list(map(_PARSERS[self], texts))
                if self is CellType.REAL and exact and max(map(len, texts)) > _SHORT:
                    if all(map(_tells, texts, values)):
                        return values
                elif self is CellType.REAL or _LEAST <= min(values) <= max(values) <= _MOST:
                    return values
            except ValueError:
                pass  # an empty cell, or one that does not fit
        return [self.cell(text, exact=exact) for text in texts]

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
_FINER = re.compile(r"[.,]\d{7}", re.ASCII)
"""A fraction of a second with more digits than microseconds have."""


def _is_exact_real(text: str) -> bool:
    """Whether a float tells all digits of a decimal: those of 12345678901234567890 it does not."""
    match = _REAL.fullmatch(text)
    if match is None:
        return False
    if len(text) <= _SHORT and match[2] is None:
        return True
    digits = match[1].replace(".", "").lstrip("0").rstrip("0")
    if not digits:
        return True
    shown = f"{abs(float(text)):.{len(digits) - 1}e}"
    return shown.partition("e")[0].replace(".", "") == digits


_EXACT: dict[CellType, Callable[[str], Any]] = {
    CellType.INTEGER: _INTEGER.fullmatch,
    CellType.REAL: _is_exact_real,
    CellType.TRUTH: _TRUTHS.__contains__,
    CellType.DATE: bool,  # never inferred
    CellType.DATETIME: bool,
}


def _tells(text: str, value: float) -> bool:
    """Whether a float tells all digits of a decimal; those that Python wrote are found at once."""
    return len(text) <= _SHORT or repr(value) == text or bool(_is_exact_real(text))


def _is_ascii(texts: Sequence[str]) -> bool:
    """Whether there is nothing in cells of numbers that Python takes for a digit and other programs do not."""
    flat = "".join(texts)
    return flat.isascii() and "_" not in flat


def _is_plain(texts: Sequence[str], kind: CellType) -> bool:
    """Whether all cells that are numbers are exact ones, found out at the speed of a few searches.

    A comma on either side marks the ends of each cell: a number holds none. False where only a look at each
    cell can tell.
    """
    if not texts:
        return False
    joined = ",,".join(texts)
    if not joined.isascii():
        return False
    marked = b",%b," % joined.encode()
    if marked.translate(None, _INTEGER_BYTES if kind is CellType.INTEGER else _REAL_BYTES):
        return False
    zeros, negative = marked.count(b",0"), b",-0" in marked
    if kind is CellType.INTEGER:
        return not negative and (not zeros or zeros == marked.count(b",0,"))
    if zeros and zeros != marked.count(b",0.") + marked.count(b",0,"):
        return False
    return not negative or marked.count(b",-0") == marked.count(b",-0.") + marked.count(b",-0,")


_INTEGER_BYTES, _REAL_BYTES = b"0123456789,-", b"0123456789.,-"


_MOSTLY = 0.9
"""Of the filled cells, that are of a type before the others are taken for mistakes."""
_FEWEST = 10
"""Filled cells of which some may be mistakes."""


def spread(inputs: Sequence[InputFile]) -> list[InputFile]:
    """Return inputs in the order in which types are inferred from them, whatever their own order is.

    The first and the last by name come first, and three between them.
    """
    ordered = sorted(inputs, key=lambda item: item.uri)
    last = len(ordered) - 1
    chosen = dict.fromkeys(round(at * last / (SAMPLE_FILES - 1)) for at in range(SAMPLE_FILES) if ordered)
    others = [at for at in range(min(len(ordered), _MOST_FILES)) if at not in chosen]
    return [ordered[at] for at in (*chosen, *others)]


def odd_cell(texts: Sequence[str]) -> tuple[CellType, str] | None:
    """Return the type that nearly all cells of a column of text have, and the first cell that has it not."""
    filled = [text for text in texts if text]
    if len(filled) < _FEWEST:
        return None
    for kind in (CellType.INTEGER, CellType.REAL):
        odd = [text for text in filled if not _EXACT[kind](text)]
        if odd and len(odd) <= (1 - _MOSTLY) * len(filled):
            return kind, odd[0]
    return None


def infer(texts: Sequence[str]) -> CellType:
    """Return the narrowest of int, float, bool and text whose values tell how each cell is written."""
    filled = [text for text in texts if text]
    if not filled:
        return CellType.TEXT
    if all(map(_INTEGER.fullmatch, filled)):
        fits = min(map(int, filled)) >= _LEAST and max(map(int, filled)) <= _MOST
        return CellType.INTEGER if fits else CellType.TEXT
    if all(map(_is_exact_real, filled)):
        return CellType.REAL if any(map(_FRACTION.search, filled)) else CellType.TEXT
    if all(map(_TRUTHS.__contains__, filled)):
        return CellType.TRUTH
    return CellType.TEXT
