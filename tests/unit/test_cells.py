"""Types of CSV cells."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchflow.io.sources.csv_types import CellType, infer

TEXT, INTEGER, REAL, TRUTH = CellType.TEXT, CellType.INTEGER, CellType.REAL, CellType.TRUTH
DATE, DATETIME = CellType.DATE, CellType.DATETIME


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        ([], TEXT),
        ([""], TEXT),
        (["", "1"], INTEGER),
        (["0", "-7", "123"], INTEGER),
        (["9223372036854775807"], INTEGER),
        (["-9223372036854775808"], INTEGER),
        (["1700000000123456789"], INTEGER),  # nanoseconds since 1970
        (["9223372036854775808"], TEXT),  # a float would change it
        (["1", "12345678901234567890"], TEXT),
        (["1234567890123456", "0.5"], REAL),
        (["12345678901234567", "0.5"], TEXT),
        (["123456789012345", "0.5"], REAL),
        (["007"], TEXT),
        (["-0"], TEXT),
        (["-0", "0.5"], REAL),
        (["+1"], TEXT),
        (["1_000"], TEXT),
        (["1,5"], TEXT),
        ([" 1"], TEXT),
        (["1", "2.5"], REAL),
        (["1."], REAL),
        ([".5"], REAL),
        (["-.5e-7"], REAL),
        (["1E5"], TEXT),
        (["1E5", "2E7"], TEXT),
        (["1E+5"], REAL),
        (["0.5", "1E5"], REAL),
        (["01.5"], TEXT),
        (["E12"], TEXT),
        (["e5", "1"], TEXT),
        (["."], TEXT),
        ([".e5"], TEXT),
        (["-"], TEXT),
        (["nan"], TEXT),
        (["inf"], TEXT),
        (["٣"], TEXT),
        (["1\n"], TEXT),
        (["true", "False", "TRUE", ""], TRUTH),
        (["true", "tRUE"], TEXT),
        (["true", "1"], TEXT),
        (["yes"], TEXT),
        (["2024-01-01"], TEXT),
    ],
)
def test_inference_and_every_cell_it_was_made_from_fits(texts, kind):
    assert infer(texts) is kind
    assert list(kind.column(texts, exact=True)) == [kind.cell(text, exact=True) for text in texts]


NUMBERS = st.from_regex(r"-?[0-9]{0,20}\.?[0-9]{0,20}(e[-+]?[0-9]{1,2})?", fullmatch=True) | st.floats().map(repr)
CELLS = st.lists(
    NUMBERS | st.integers().map(str) | st.sampled_from(["+33", "1_0", "\uff11\uff12", " 5", "nan", "", "-", "x"])
)


@given(CELLS)
def test_inferred_number_any_cell_tells_its_digits_or_is_refused(texts):
    for kind in (INTEGER, REAL):
        try:
            values = kind.column(texts, exact=True)
        except ValueError:
            with pytest.raises(ValueError, match=r"."):
                [kind.cell(text, exact=True) for text in texts]
            continue
        assert list(values) == [kind.cell(text, exact=True) for text in texts]
        for text, value in zip(texts, values, strict=True):
            if kind is INTEGER:
                assert ("" if value is None else str(value)) == text
            elif value is not None:
                digits = len("".join(map(str, Decimal(text).as_tuple().digits)).rstrip("0")) or 1
                assert Decimal(f"{value:.{digits - 1}e}") == Decimal(text), text
                assert not text.lstrip("-").startswith("00")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (TEXT, "", ""),
        (INTEGER, "", None),
        (DATE, "", None),
        (INTEGER, "007", 7),
        (REAL, "nan", None),
        (REAL, "1e3", 1000.0),
        (TRUTH, "fAlSe", False),
        (DATE, "2024-02-29", date(2024, 2, 29)),
        (DATETIME, "2024-02-29 01:02:03.5", datetime(2024, 2, 29, 1, 2, 3, 500_000)),
    ],
)
def test_values(kind, text, value):
    got = kind.cell(text)
    assert got == value or (text == "nan" and got != got)
    assert type(got) is type(value) or text == "nan"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (INTEGER, "1.0"),
        (INTEGER, "1_000"),
        (INTEGER, str(2**63)),
        (INTEGER, "9" * 5000),
        (REAL, "1_0.5"),
        (REAL, "x"),
        (TRUTH, "1"),
        (DATE, "2024-02-30"),
        (DATE, "2024-02-29T00:00:00"),
        (DATETIME, "noon"),
        (DATETIME, "2024-01-01T00:00:00.1234567"),
        (INTEGER, "\uff11\uff12"),
        (REAL, "\uff11.\uff15"),
    ],
)
def test_what_does_not_fit(kind, text):
    with pytest.raises(ValueError, match=r"."):
        kind.cell(text)
    with pytest.raises(ValueError, match=r"."):
        kind.column(["", text])
    with pytest.raises(ValueError, match=r"."):
        kind.column([text])


@pytest.mark.parametrize(
    ("named", "kind"),
    [
        (str, TEXT),
        (int, INTEGER),
        (float, REAL),
        (bool, TRUTH),
        (date, DATE),
        (datetime, DATETIME),
        ("int", INTEGER),
        (np.int64, INTEGER),
        (np.float32, REAL),
        (pa.string(), TEXT),
        (pa.large_string(), TEXT),
        (pa.string_view(), TEXT),
        (pa.int8(), INTEGER),
        (pa.float16(), REAL),
        (pa.float32(), REAL),
        (pa.float64(), REAL),
        (pa.bool_(), TRUTH),
        (pa.date32(), DATE),
        (pa.date64(), DATE),
        (pa.timestamp("ns"), DATETIME),
    ],
)
def test_names_of_types(named, kind):
    assert CellType.of(named) is kind
