"""CSV files: read as Python's `csv` module reads them, and typed."""

from __future__ import annotations

import csv
import gzip
from datetime import date, datetime
from itertools import permutations
from pathlib import Path

import pyarrow as pa
import pytest
from reading import WHOLE, draw, halves, read, read_chunks, ready, writer

import batchflow as bf
from batchflow.errors import FormatError
from batchflow.io.readers import guess, read_csv
from batchflow.io.sources import csv_splits as quotes
from batchflow.io.sources.csv_types import CellType

UTF8 = "UTF-8: if the file is in another encoding, pass it, like encoding='latin-1' (--encoding latin-1)"


@pytest.fixture
def write(tmp_path: Path):
    return writer(tmp_path)


@pytest.fixture(params=[WHOLE, 1, 7])
def weight(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def texts(data, write, weight, **options):
    return read(read_csv(write(data), types=str, **options), weight)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a,b", []),
        (b"a,b\r\n", []),
        (b"a,b\n1,2", [{"a": "1", "b": "2"}]),
        (b"a,b\r\n1,2\r\n", [{"a": "1", "b": "2"}]),
        (b"a,b\r1,2\r3,4", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        (b"a,b\r1,2\n3,4\n5,6\n", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}, {"a": "5", "b": "6"}]),
        (b"\xef\xbb\xbfa\n1\n", [{"a": "1"}]),
        (b'\xef\xbb\xbf"a\n,b",c\n1,2\n', [{"a\n,b": "1", "c": "2"}]),
        (b'a,b\n"1\n,""2""\r\n",3\n4,5\n', [{"a": '1\n,"2"\r\n', "b": "3"}, {"a": "4", "b": "5"}]),
        (b'a,b\n1"2,3""\n4,5"6"\n', [{"a": '1"2', "b": '3""'}, {"a": "4", "b": '5"6"'}]),
        (b'a\n"x"y"\nz"\n', [{"a": 'xy"'}, {"a": 'z"'}]),
        (b"a\n\n1\n\n\n2\n\n", [{"a": "1"}, {"a": "2"}]),
        (b"a,b\n,\n", [{"a": "", "b": ""}]),
        (b"a\n\0x\n", [{"a": "\0x"}]),
        ("ä\nö\u2028\x85\x0b\n".encode(), [{"ä": "ö\u2028\x85\x0b"}]),
        (b"a\n 1 \n", [{"a": " 1 "}]),
    ],
)
def test_texts(write, weight, data, expected):
    seen = texts(data, write, weight)
    assert (seen.rows, seen.failures) == (expected, [])


def test_records_are_counted_without_the_header_and_with_blank_lines(write, weight):
    path = write(b'\xef\xbb\xbfa,b\n1,2\n\n"3\n",4\r\n5,6')
    assert read(read_csv(path, types=str), weight).records == [
        (path, 1, (7, 11), {"a": "1", "b": "2"}),
        (path, 3, (12, 20), {"a": "3\n", "b": "4"}),
        (path, 4, (20, 23), {"a": "5", "b": "6"}),
    ]


def test_a_record_of_another_length_is_a_failure_of_its_own(write, weight):
    path = write("a,b\n1,2\n3\n4,5,6\n7,8\n")
    seen = read(read_csv(path), weight)
    assert seen.rows == [{"a": 1, "b": 2}, {"a": 7, "b": 8}]
    assert [failure[1:] for failure in seen.failures] == [
        (2, 8, 10, "3", "1 cells, but the header has 2 columns"),
        (3, 10, 16, "4,5,6", "3 cells, but the header has 2 columns"),
    ]


def test_a_cell_that_does_not_fit_its_type_is_a_failure_that_names_column_and_value(write, weight):
    path = write("n,x\n" + "1,1.5\n" * 1100 + "one,2\n,3\n4,\n")
    seen = read(read_csv(path), weight)
    assert seen.rows == [{"n": 1, "x": 1.5}] * 1100 + [{"n": None, "x": 3.0}, {"n": 4, "x": None}]
    assert [failure[1:] for failure in seen.failures] == [
        (
            1101,
            6604,
            6610,
            "one,2",
            "column 'n': 'one' is not of type int, inferred from the first rows: to keep such cells as they are, "
            "pass types={'n': str} (--types n=str)",
        ),
    ]


def test_bytes_that_are_not_utf8_are_a_failure_of_their_record(write, weight):
    path = write(b"a,b\n1,x\n2,\xff\n3,y\n")
    for types in (str, None):
        seen = read(read_csv(path, types=types), weight)
        assert [row["b"] for row in seen.rows] == ["x", "y"]
        assert [failure[1:] for failure in seen.failures] == [
            (2, 8, 12, "2,\\xff", f"column 'b': the bytes are not {UTF8}")
        ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,b,a\n1,2,3\n", "the header names the column 'a' more than once"),
        (b"a\xff,b\n1,2\n", f"the header is not {UTF8}"),
    ],
)
def test_a_header_that_cannot_be_is_one_failure_of_the_file(write, weight, data, message):
    path = write(data)
    assert read(read_csv(path), weight).failures == [(path, 1, 0, None, None, message)]


@pytest.mark.parametrize("blank", [b"\n", b"\r\n\r\n", b"\xef\xbb\xbf\n"])
def test_blank_lines_before_the_header_are_left_out(write, weight, blank):
    seen = texts(blank + b"n\n\n1\n2,3\n4\n", write, weight)
    size = len(blank)
    assert seen.rows == [{"n": "1"}, {"n": "4"}]
    assert [failure[2:4] for failure in seen.failures] == [(size + 5, size + 9)]


def test_every_file_has_a_header_of_its_own(write, weight):
    paths = [write("a,b\n1,2\n", "1.csv"), write("b,a\n4,3\n", "2.csv"), write("c\nx\n", "3.csv")]
    assert read(read_csv(paths), weight).rows == [{"a": 1, "b": 2}, {"b": 4, "a": 3}, {"c": "x"}]


def test_a_quote_behind_a_byte_order_mark_opens_a_field(write, monkeypatch):
    monkeypatch.setattr(quotes, "_LEAST_BYTES", 1)
    source = read_csv(write('\ufeff"1\n",x\n2,y\n' * 2), columns=["n", "s"])
    assert read(source, 1) == read(source)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_columns_name_the_cells_of_files_without_a_header(write, weight, mark):
    seen = read(read_csv(write(mark + b"1,x\n2,y\n3,z\n"), columns=["n", "s"]), weight)
    assert seen.rows == [{"n": 1, "s": "x"}, {"n": 2, "s": "y"}, {"n": 3, "s": "z"}]
    assert [place for _, _, place, _ in seen.records] == [
        (start + len(mark), stop + len(mark)) for start, stop in ((0, 4), (4, 8), (8, 12))
    ]


def test_columns_are_inferred_from_the_first_record_on(write):
    assert read(read_csv(write("x\n1\n2\n"), columns=["a"])).rows == [{"a": "x"}, {"a": "1"}, {"a": "2"}]


@pytest.mark.parametrize(("delimiter", "quote"), [("\t", "'"), (";", None), (" ", '"'), ("€", '"'), (",", "»")])
def test_dialects(write, weight, delimiter, quote):
    mark = quote or '"'
    data = f"a{delimiter}b\n{mark}1{mark}{delimiter}2\n{mark}x\n{mark}{delimiter}4\n"
    options = {"quoting": csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE, "quotechar": mark}
    path = write(data)
    with Path(path).open(newline="", encoding="utf-8") as file:
        expected = [row for row in csv.DictReader(file, delimiter=delimiter, **options) if row["b"]]
    assert expected
    assert texts(data, write, weight, delimiter=delimiter, quote=quote).rows == expected


@pytest.mark.parametrize(
    "options",
    [
        {"delimiter": ""},
        {"delimiter": ",,"},
        {"quote": ""},
        {"delimiter": "\n"},
        {"quote": "\r"},
        {"delimiter": '"'},
    ],
)
def test_impossible_dialects_are_refused(options):
    with pytest.raises(FormatError, match="must be one character each"):
        read_csv("x.csv", **options)


def test_a_cell_of_any_size(write):
    data = "a,b\n1," + "x" * 5_000_000 + '\n2,"' + "y\n" * 100_000 + '"\n'
    path = write(data)
    whole = read(read_csv(path))
    assert whole.rows == [{"a": 1, "b": "x" * 5_000_000}, {"a": 2, "b": "y\n" * 100_000}]
    assert read(read_csv(path), 10_000) == whole
    assert csv.field_size_limit() == 131_072


def test_a_header_of_any_size(write):
    names = [f"column {at}" for at in range(40_000)]
    path = write(",".join(names) + "\n" + ",".join(map(str, range(40_000))) + "\n")
    for weight in (WHOLE, 1000):
        assert read(read_csv(path), weight).rows == [dict(zip(names, range(40_000), strict=True))]


def test_a_damage_comes_after_all_records_before_it(write):
    path = write(gzip.compress(b"a,b\n" + b"1,x\n" * 5000)[:-3], "x.csv.gz")
    source = read_csv(path)
    whole = read(source)
    assert whole.rows == [{"a": 1, "b": "x"}] * 5000
    assert [failure[1:4] for failure in whole.failures] == [(5001, 20_004, None)]
    (drawn,) = draw(source)
    one, other = drawn.chunk.halve(5001)
    assert read_chunks(ready(source), [(one, None), (other, None)]) == whole


def test_places_over_many_blocks(write):
    rows = [f"{at},{'é' * (at % 50)}\r\n" for at in range(30_000)]
    path = write("a,b\n" + "".join(rows))
    seen = read(read_csv(path, types=str), 500_000)
    start = 4
    for at, (_, number, place, record) in enumerate(seen.records):
        stop = start + len(rows[at].encode())
        assert (number, place, record["a"]) == (at + 1, (start, stop), str(at))
        start = stop
    assert len(seen.records) == 30_000


def test_halves(write, monkeypatch):
    monkeypatch.setattr(quotes, "_LEAST_BYTES", 1)
    path = write('a,b\n1,2\n\n"x\ny",3\n4\n5,6\n' * 5)
    source = read_csv(path, types=str)
    drawn = draw(source, 30)
    assert len(drawn) == 3
    assert read_chunks(source, [half for one in drawn for half in halves(source, one.chunk)]) == read(source)


def test_types_any_order_of_files_are_the_same(write):
    cells = ["1", "2", "3", "4.5", "5", "6", "x", "8", "9"]  # of nine, the 1st, 3rd, 5th, 7th and 9th tell
    paths = [write(f"n\n{cell}\n", f"{at}.csv") for at, cell in enumerate(cells)]
    assert {ready(read_csv(order)).types["n"] for order in permutations(paths[2:7])} == {CellType.TEXT}
    assert {ready(read_csv(order)).types["n"] for order in (paths, paths[::-1])} == {CellType.TEXT}
    assert {ready(read_csv(order)).types["n"] for order in permutations(paths[:5])} == {CellType.REAL}


def test_types_files_without_records_leave_it_to_others(write):
    paths = [
        write("n\n", "0.csv"),
        write("", "1.csv"),
        write("n\n1\n", "2.csv"),
        write(b"n,n\n1,2\n", "3.csv"),
        write("n\n2.5\n", "4.csv"),
        write("n\n\n", "5.csv"),
        write("n\n3\n", "6.csv"),
        write("n\n", "7.csv"),
    ]
    seen = read(read_csv(paths))
    assert seen.rows == [{"n": 1.0}, {"n": 2.5}, {"n": 3.0}]
    assert [(failure[0], failure[1]) for failure in seen.failures] == [(paths[3], 1)]


ODD = [
    "02134",
    "+33",
    "12345678901234567890",
    "1_000",
    "\uff11\uff12",
    " 5",
    "5 ",
    "1e5",
    "1.0",
    "TRUE",
    "nan",
    "-0",
    "2024-01-01",
]


@pytest.mark.parametrize("odd", ODD)
def test_odd_cell_of_whole_numbers_is_an_error_row(write, weight, odd):
    seen = read(read_csv(write("n,s\n" + "7,x\n" * 1000 + f"{odd},y\n" + "8,z\n")), weight)
    assert seen.rows == [{"n": 7, "s": "x"}] * 1000 + [{"n": 8, "s": "z"}]
    (failure,) = seen.failures
    assert failure[-1].startswith(f"column 'n': {odd!r} is not of type int")
    assert failure[-1].endswith("pass types={'n': str} (--types n=str)")
    assert read(read_csv(write(f"n,s\n{odd},y\n"), types={"n": str})).rows == [{"n": odd, "s": "y"}]


@pytest.mark.parametrize(
    "odd",
    [
        "02.5",
        "+3.5",
        "12345678901234567891",
        "1.2345678901234567890",
        "1_0.5",
        "\uff11.\uff15",
        " 5.5",
        "nan",
        "inf",
        "1e999",
        "0x10",
        "TRUE",
        "9007199254740993",
        "0.1234567890123456789",
    ],
)
def test_odd_cell_of_decimals_is_an_error_row(write, odd):
    seen = read(read_csv(write("n\n" + "7.25\n" * 1000 + f"{odd}\n" + "8\n-0.5\n1e-7\n0.30000000000000004\n")))
    assert seen.rows == [{"n": 7.25}] * 1000 + [{"n": 8.0}, {"n": -0.5}, {"n": 1e-7}, {"n": 0.30000000000000004}]
    assert len(seen.failures) == 1


def test_named_type_leading_zeros_are_read_as_asked(write):
    seen = read(read_csv(write("n,x\n02134,nan\n+33,12345678901234567890\n"), types={"n": int, "x": float}))
    assert [row["n"] for row in seen.rows] == [2134, 33]
    assert seen.rows[1]["x"] == 12345678901234567890.0


def test_unclosed_quote_is_one_error_row_that_names_its_line(write, weight):
    path = write('a,b\n1,x\n2,"x\n' + "3,x\n" * 10_000)
    seen = read(read_csv(path), weight if weight == WHOLE else 10_000)
    assert seen.rows == [{"a": 1, "b": "x"}]
    (failure,) = seen.failures
    assert failure[1:4] == (2, 8, 13 + 40_000)
    assert failure[-1] == (
        "a quote opens in line 3 and is never closed: it takes in 10,001 lines; "
        "close it, or pass quote=None (--quote '') if quotes are text"
    )
    assert len(read(read_csv(path, quote=None)).rows) == 10_002


@pytest.mark.parametrize("content", ['"a,b\n1,2\n', '"'])
def test_unclosed_quote_in_the_header_is_one_failure(write, weight, content):
    (failure,) = read(read_csv(write(content)), weight).failures
    assert failure[-1].startswith("a quote opens in the header and is never closed")


def test_encoding_of_one_byte_is_cut_like_utf8(write, weight):
    path = write("n,x\n1,é\n2,€\n".encode("cp1252"))
    seen = read(read_csv(path, encoding="cp1252"), weight)
    assert [(place, row) for _, _, place, row in seen.records] == [
        ((4, 8), {"n": 1, "x": "é"}),
        ((8, 12), {"n": 2, "x": "€"}),
    ]
    assert len(read(read_csv(path)).failures) == 2


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "shift_jis", "gb18030", "utf-7", "cp037"])
def test_encoding_of_several_bytes_is_read_as_a_whole(write, weight, encoding):
    path = write('n,x\n1,"あ,\n"\n2,b\n'.encode("gb18030" if encoding == "cp037" else encoding, "replace"))
    if encoding == "cp037":
        path = write("n,x\n2,b\n".encode(encoding))
        assert read(read_csv(path, encoding=encoding), weight).rows == [{"n": 2, "x": "b"}]
        return
    seen = read(read_csv(path, encoding=encoding), weight)
    assert seen.rows == [{"n": 1, "x": "あ,\n"}, {"n": 2, "x": "b"}]


def test_types_are_inferred_from_what_comes_before_a_damage(write):
    path = write(gzip.compress(b"a\n" + b"7\n" * 500)[:-3], "x.csv.gz")
    assert read(read_csv(path)).rows == [{"a": 7}] * 500


def test_types_are_the_same_in_every_chunk(write):
    path = write("a,b\n" + "1,\n" * 50 + "2.5,x\n" * 50)
    assert read(read_csv(path), 20) == read(read_csv(path))
    assert read(read_csv(path), 20).rows == [{"a": 1.0, "b": ""}] * 50 + [{"a": 2.5, "b": "x"}] * 50


@pytest.mark.parametrize(
    "types",
    [
        {"a": int, "c": bool, "d": date, "t": datetime},
        {"a": "int", "c": "bool", "d": "date", "t": "datetime"},
        pa.schema([("a", pa.int32()), ("c", pa.bool_()), ("d", pa.date32()), ("t", pa.timestamp("ms"))]),
    ],
)
def test_types_that_are_named(write, types):
    source = ready(read_csv(write("a,b,c,d,t\n1,2,TRUE,2024-02-29,2024-02-29T12:00:00\n,,,,\n"), types=types))
    seen = read(source)
    assert seen.rows == [
        {"a": 1, "b": 2, "c": True, "d": date(2024, 2, 29), "t": datetime(2024, 2, 29, 12)},
        {"a": None, "b": None, "c": None, "d": None, "t": None},
    ]
    arrow = [pa.int64(), pa.int64(), pa.bool_(), pa.date32(), pa.timestamp("us")]
    assert source.table(seen.rows).schema.types == source.table(seen.rows[1:]).schema.types == arrow


def test_a_column_of_types_that_is_not_there_is_refused(write):
    paths = [write("id,amount\n1,2\n", "a.csv"), write("id,more\n1,2\n", "b.csv")]
    assert ready(read_csv(paths, types={"more": str})).types["more"] == CellType.TEXT  # of some files
    told = r"types= names a column 'amuont', which '.*a.csv' has not: the columns are id, amount, more; did you mean 'amount'\?"
    with pytest.raises(FormatError, match=told):
        ready(read_csv(paths, types={"amuont": float}))
    later = [*paths, write("id\n1\n", "d.csv"), write("id\n1\n", "e.csv"), write("late\n1\n", "f.csv")]
    assert ready(read_csv(later, types={"late": str})).types["late"] == CellType.TEXT
    empty = read_csv(write("", "c.csv"), types={"n": str})
    assert ready(empty).types == {"n": CellType.TEXT}


@pytest.mark.parametrize("kind", [list, "decimal", pa.decimal128(5, 2), pa.list_(pa.int8()), None])
def test_types_that_no_cell_has_are_refused(kind):
    with pytest.raises(FormatError, match="is not a type that a CSV column can have: use one of str, int"):
        read_csv("x", types={"a": kind})


def test_the_kind_of_tabs_is_guessed(write):
    for name in ("a.tsv", "b.TSV", "c.tsv.gz"):
        data = b"a\tb\n1\t2\n"
        path = write(gzip.compress(data) if name.endswith("gz") else data, name)
        assert read(guess(path)).rows == [{"a": 1, "b": 2}]


def test_a_file_that_cannot_be_read_is_no_sample(write):
    source = ready(read_csv(["/no/such/file.csv", write("a\n1\n")][1:]))
    assert source.types == {"a": CellType.INTEGER}


def advice(path, **options):
    return bf.map_records(lambda row: row, read_csv(path, **options), executor="serial").report.advice


def test_a_column_that_few_cells_make_text_is_told(write):
    path = write("a,b\n" + "".join(f"{n},x{n}\n" for n in range(20)) + "n/a,y\n")
    (told,) = advice(path)
    assert told == (
        "column 'a' is read as text, as 'n/a' is no number and nearly all are: with types={'a': int} (--types a=int) "
        "such cells are errors of their records"
    )
    assert advice(path, types={"a": str}) == advice(path, types={"a": int}) == advice(path, types=str) == ()


def test_columns_of_text_and_of_numbers_are_not_told(write):
    assert advice(write("a,b\n" + "".join(f"{n},x{n}\n" for n in range(20)))) == ()
    assert advice(write("a\n" + "1\nx\n" * 20)) == ()


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_an_only_column_that_may_be_several_is_told(write, mark):
    path = write(f"a{mark}b\n1{mark}2\n")
    assert advice(path) == (
        f"the only column is {'a' + mark + 'b'!r}: if its cells are parted by {mark!r}, pass delimiter={mark!r} (--delimiter {mark!r})",
    )
    assert advice(path, delimiter=mark) == ()
