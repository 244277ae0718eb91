"""Results read back: what was written comes back in its order, with its types, whatever the text looks like."""

from array import array
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from batchflow.checkpoint.destination import Destination
from batchflow.combiner.error_table import ErrorTable
from batchflow.combiner.result import Result
from batchflow.core.chunks import Piece
from batchflow.io.arrow.rows import Rows
from batchflow.io.formats.base import format_of
from batchflow.reporting.report import Report


@pytest.fixture
def written(tmp_path):
    """Write tables as parts, which have numbers, and return the result as a job does."""

    def write(name, parts, schema, *, with_schema=True):
        form = format_of(name)
        for number, table in parts.items():
            form.write_piece(table, f"{tmp_path}/piece")
            part = f"{tmp_path}/part-{number:05d}{form.suffix}"
            form.assemble([Piece(f"{tmp_path}/piece", 0, 0, table.schema)], table.schema, part)
        report = Report(rows_out=sum(table.num_rows for table in parts.values()))
        destination = Destination(tmp_path, name, one_file=False)
        return Result(ErrorTable(), report, (), destination, schema if with_schema else None)

    return write


def both_ways(result):
    """Return the table of a result, as it is and through its stream."""
    assert pa.table(result).equals(result.table)
    return result.table


@pytest.mark.parametrize("name", ["parquet", "arrow", "csv", "jsonl"])
@pytest.mark.parametrize("with_schema", [True, False])
def test_parts_come_in_the_order_of_their_numbers(written, name, with_schema):
    parts = {number: pa.table({"n": [number]}) for number in (100_000, 99_999, 2)}
    result = written(name, parts, parts[2].schema, with_schema=with_schema)
    assert both_ways(result)["n"].to_pylist() == [2, 99_999, 100_000]


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_text_stays_text(written, name):
    cells = ["007", "", "2024-01-02", "2024-01-02T03:04:05Z", "true", "NA", "nan", "null", "line\nbreak", "1.50"]
    table = pa.table({"text": cells, "large": pa.array(cells, pa.large_string()), "n": range(10)})
    assert both_ways(written(name, {0: table}, table.schema)).equals(table)


def test_a_column_that_only_a_later_part_of_json_has(written):
    parts = {0: pa.table({"a": [1]}), 1: pa.table({"a": [2], "b": ["x"]})}
    result = written("jsonl", parts, parts[1].schema)
    assert both_ways(result).to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_rows_of_many_megabytes_with_line_breaks(written, name):
    table = pa.table({"n": range(3), "text": ["a", "bc\n" * 1_000_000, "d\n" * 700_000]})
    assert both_ways(written(name, {0: table}, table.schema)).equals(table)
    assert written(name, {0: table}, table.schema, with_schema=False).table.equals(table)


@pytest.mark.parametrize("name", ["csv", "jsonl"])
@pytest.mark.parametrize("schema", [pa.schema({}), pa.schema({"a": pa.string()}), None])
def test_no_rows(written, name, schema):
    known = pa.schema({}) if schema is None else schema
    result = written(name, {0: known.empty_table()}, known, with_schema=schema is not None)
    assert both_ways(result).equals(known.empty_table())
    assert (len(result), result.values) == (0, [])


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_rows_without_columns_count(written, name):
    table = pa.table({"a": [1, 2]}).select([])
    result = written(name, {0: table}, table.schema)
    assert (both_ways(result).num_rows, result.values) == (2, [{}, {}])


PLAIN = {
    "when": [datetime(2024, 1, 2, 3, 4, 5, 6), None],
    "zoned": [datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC), None],
    "day": [date(2024, 1, 2), None],
    "price": [Decimal("1.20"), None],
    "yes": [True, None],
    "float": [1.5, None],
    "large": pa.array([2**64 - 1, None], pa.uint64()),
    "none": pa.nulls(2),
    "kind": pa.array(["a", "b"]).dictionary_encode(),
}
NESTED = {
    "days": [[date(2024, 1, 2)], None],
    "large_list": pa.array([["2024-01-02"], []], pa.large_list(pa.large_string())),
    "struct": [{"day": date(2024, 1, 2), "of": [{"x": 1}]}, None],
}


@pytest.mark.parametrize(("name", "columns"), [("csv", PLAIN), ("jsonl", PLAIN | NESTED)])
def test_types_come_back(written, name, columns):
    table = pa.table(columns)
    assert both_ways(written(name, {0: table}, table.schema)).equals(table)


def test_bytes_and_times_come_back_as_the_text_that_json_shows(written):
    table = pa.table(
        {"raw": [b"ab"], "hour": [time(1, 2)], "long": [timedelta(seconds=3)], "all": [{"raw": [b"ab"]}]}
    )
    result = written("jsonl", {0: table}, table.schema)
    assert both_ways(result).to_pylist() == [
        {"raw": "YWI=", "hour": "01:02:00", "long": "PT3S", "all": {"raw": ["YWI="]}}
    ]


def test_length_is_that_of_the_rows_there_are():
    rows = [Rows([array("q", [1, 2]), pa.table({"a": [3]})]), Rows([[object()]])]
    assert len(Result(ErrorTable(), Report(rows_out=99), rows)) == 4


def test_values_are_the_same_after_the_table_was_used():
    result = Result(ErrorTable(), Report(), [Rows([array("q", [1])]), Rows([pa.table({"a": [2]})])])
    before = result.values
    assert result.table.num_rows == 2
    assert result.values == before == [1, {"a": 2}]
