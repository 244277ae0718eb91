"""A value arrives as it was, or is an error row: types by readers, verbs, sinks and cuts."""

from __future__ import annotations

import itertools
import json
import tempfile
from datetime import datetime

import arrow_values as av
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batchflow as bf
from batchflow.errors import SchemaError
from batchflow.io.arrow.convert import NotTabularError, table_to_rows, values_to_table
from batchflow.io.arrow.precision import annotated_schema
from batchflow.io.arrow.schema import conform, table_without_views, unify

STEADY = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
CUTS = (1, 2, 100)
SINKS = ("out.parquet", "out.arrow")
NO_PARQUET = {"month_day_nano_interval", "run_end_encoded<run_ends: int32, values: int64>"}


def read(path):
    return pq.read_table(path) if str(path).endswith(".parquet") else pa.ipc.open_file(path).read_all()


def through(fn, source, sink, chunk, verb=bf.map_records):
    """Return the meanings of the rows of a job by number of record, and its failures."""
    with tempfile.TemporaryDirectory() as folder:
        result = verb(fn, source, into=f"{folder}/{sink}", executor="serial", chunk=chunk)
        table = read(result.path)
        rows = av.exact(table["c"]) if "c" in table.column_names else [None] * table.num_rows
        return rows, dict(
            zip(result.errors["record"].to_pylist(), result.errors["message"].to_pylist(), strict=True)
        )


# --- Arrow types ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("name", av.TYPES)
@given(data=st.data(), chunk=st.sampled_from(CUTS))
@settings(STEADY, max_examples=2)
def test_arrow_value_through_records_is_the_same(name, sink, data, chunk):
    array = data.draw(av.arrays(av.TYPES[name], 4))
    rows, failed = through(lambda row: row, bf.records(pa.table({"c": array})), sink, chunk)
    if name in NO_PARQUET and sink == "out.parquet" and failed:
        assert all("'c'" in message for message in failed.values())
        return
    assert (rows, failed) == (av.exact(array), {})


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("name", av.TYPES)
@given(data=st.data(), chunk=st.sampled_from(CUTS))
@settings(STEADY, max_examples=2)
def test_arrow_value_through_batches_is_the_same(name, sink, data, chunk):
    array = data.draw(av.arrays(av.TYPES[name], 4))
    rows, failed = through(lambda table: table, bf.records(pa.table({"c": array})), sink, chunk, bf.map_batches)
    if name in NO_PARQUET and sink == "out.parquet" and failed:
        assert len(failed) == 4 - len(rows)
        return
    assert (rows, failed) == (av.exact(array), {})


WRAPPED = {
    "column": lambda column: column,
    "struct": lambda column: pa.StructArray.from_arrays([column], ["s"]),
    "list": lambda column: pa.ListArray.from_arrays(pa.array(range(len(column) + 1), pa.int32()), column),
}
WORDS = [None, None, "b", "a", "c", None, "a", "é", "b"]


def encode_words(numbers):
    """Return words as a dictionary of just these."""
    return pa.array([WORDS[number] for number in numbers], pa.string()).dictionary_encode()


def encode_categories(numbers):
    """Return words as pandas encodes them: without any word the categories are floats."""
    return pa.array(pd.Categorical([WORDS[number] for number in numbers]))


def encode_later_words(numbers):
    return pa.array([WORDS[number] for number in numbers], pa.string()) if 0 in numbers else encode_words(numbers)


def encode_words_and_null(numbers):
    """Return words as a dictionary that has null among its values."""
    words = list(dict.fromkeys(WORDS[number] for number in numbers))
    indices = [words.index(WORDS[number]) for number in numbers]
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), pa.array(words, pa.string()))


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("encode", [encode_words, encode_categories, encode_later_words, encode_words_and_null])
@pytest.mark.parametrize("into", ["out/parquet", "out.arrow", "out/arrow", "out.csv", "out.jsonl", ""])
def test_dictionaries_of_any_cut_are_the_words(tmp_path, into, encode, wrap):
    if wrap != "column" and (into == "out.csv" or encode is encode_categories):
        return
    words = pa.array(WORDS, pa.string())
    for chunk in CUTS:
        result = bf.map_batches(
            lambda batch: pa.table(
                {"n": batch.column(0), "c": WRAPPED[wrap](encode(batch.column(0).to_pylist()))}
            ),
            bf.records(range(len(WORDS))),
            into=tmp_path / into.partition("/")[0] if into else None,
            format=into.partition("/")[2] or None,
            part_size="500B",
            chunk=chunk,
            executor="serial",
            fresh=bool(into),
        )
        assert result.table["c"].to_pylist() == WRAPPED[wrap](words).to_pylist()


@pytest.mark.parametrize("column", ["c", "l"])
def test_dictionary_scalars_and_arrays_of_records_are_the_words(tmp_path, column):
    arrays = [encode_words([number]) for number in range(len(WORDS))]
    fns = {"c": lambda n: {"c": arrays[n][0]}, "l": lambda n: {"l": arrays[n]}}
    for chunk in CUTS:
        for sink in SINKS:
            result = bf.map_records(
                fns[column],
                bf.records(range(len(WORDS))),
                into=tmp_path / sink,
                chunk=chunk,
                executor="serial",
                fresh=True,
            )
            words = WORDS if column == "c" else [[word] for word in WORDS]
            assert (result.table[column].to_pylist(), result.errors.num_rows) == (words, 0)


def united(one, other):
    """Return the schema of two tables, or the error."""
    try:
        return unify(unify(None, annotated_schema(one)), annotated_schema(other))
    except SchemaError as error:
        return str(error)


@pytest.mark.parametrize("first", av.TYPES)
@given(data=st.data())
@settings(STEADY, max_examples=1)
def test_two_types_unite_without_loss_or_are_refused(first, data):
    one = table_without_views(pa.table({"c": data.draw(av.arrays(av.TYPES[first], 2))}))
    for second, kind in av.TYPES.items():
        other = table_without_views(pa.table({"c": data.draw(av.arrays(kind, 2))}))
        schema, swapped = united(one, other), united(other, one)
        if isinstance(schema, str):
            assert schema.startswith("column 'c' is "), second
            assert isinstance(swapped, str), second
            continue
        for table in (one, other):
            assert av.exact(conform(table, schema)["c"]) == av.exact(table["c"]), second
        assert "struct" in str(schema) or swapped.equals(schema, check_metadata=True), second


# --- extension types ------------------------------------------------------------------------------

EXTENSIONS = av.extension_arrays()
NESTS = {
    "flat": lambda array: array,
    "in a list": lambda array: pa.ListArray.from_arrays(pa.array(range(len(array) + 1), pa.int32()), array),
    "in a struct": lambda array: pa.StructArray.from_arrays([array], ["f"]),
}
COLUMNS = {f"{name} {nest}": NESTS[nest](array) for name, array in EXTENSIONS.items() for nest in NESTS}
GIVEN = {
    "table": (bf.map_batches, pa.table(COLUMNS), lambda table: table),
    "columns": (
        bf.map_batches,
        pa.table({"n": range(3)}),
        lambda table: {key: array.take(table["n"].combine_chunks()) for key, array in COLUMNS.items()},
    ),
    "scalars": (bf.map_records, range(3), lambda at: {key: array[at] for key, array in COLUMNS.items()}),
    "arrays": (bf.map_records, range(3), lambda at: {key: array[at : at + 1] for key, array in COLUMNS.items()}),
}


@pytest.fixture(params=["registered", "not registered"])
def registered(request):
    if request.param == "not registered":
        yield False
        return
    pa.register_extension_type(av.Length())
    yield True
    pa.unregister_extension_type("batchflow.tests.length")


def read_registered(path, registered):
    """Return a file as a program reads it that has the type registered."""
    if registered:
        return read(path)
    pa.register_extension_type(av.Length())
    try:
        return read(path)
    finally:
        pa.unregister_extension_type("batchflow.tests.length")


@pytest.mark.parametrize("chunk", [1, 100])
@pytest.mark.parametrize("given_as", GIVEN)
def test_extension_types_in_memory_and_in_sinks_are_the_same(given_as, chunk, registered, tmp_path):
    verb, records, fn = GIVEN[given_as]
    in_lists = given_as == "arrays"
    bf.map_records(
        lambda n: {"c": [n], "d": {"f": n}}, bf.records([1]), into=tmp_path / "plain.parquet", executor="serial"
    )
    for into in ("o.parquet", "o.arrow", None):
        options = {"into": tmp_path / into} if into else {}
        result = verb(fn, bf.records(records), executor="serial", chunk=chunk, **options)
        assert result.errors["message"].to_pylist() == []
        if into or registered:
            table = read_registered(result.path, registered) if into else result.table
            for name, array in COLUMNS.items():
                assert same_column(table[name], NESTS["in a list"](array) if in_lists else array), name


def same_column(column, array):
    column = column.combine_chunks()
    return (
        column.type.equals(array.type)
        and column.equals(array)
        and getattr(column.type, "unit", "") == getattr(array.type, "unit", "")
    )


@pytest.mark.parametrize("given_as", ["table", "scalars"])
def test_extension_types_in_json_lines_are_their_values(given_as, registered, tmp_path):
    verb, records, fn = GIVEN[given_as]
    result = verb(fn, bf.records(records), into=tmp_path / "o.jsonl", executor="serial")
    assert result.errors["message"].to_pylist() == []
    for name, array in COLUMNS.items():
        assert result.table[name].to_pylist() == [
            json.loads(json.dumps(value, default=str)) for value in array.to_pylist()
        ], name


def test_extension_type_in_csv_is_an_error_row(tmp_path):
    for array in EXTENSIONS.values():
        result = bf.map_records(
            lambda at, array=array: {"c": array[at]},
            bf.records([0]),
            into=tmp_path / "o.csv",
            executor="serial",
            fresh=True,
        )
        (message,) = result.errors["message"].to_pylist()
        assert (
            message
            == f"column 'c' is {array.type}, which a CSV cell cannot hold: use format='jsonl' or 'parquet', or return text"
        )


def test_unregistered_extension_type_does_not_unite_with_another_type(tmp_path):
    values = [EXTENSIONS["length"][0], 5, EXTENSIONS["feet"][0], None, EXTENSIONS["length"][2]]
    for chunk in (1, 100):
        result = bf.map_records(
            lambda at: {"c": values[at]},
            bf.records(range(5)),
            into=tmp_path / "o.arrow",
            executor="serial",
            chunk=chunk,
            fresh=True,
        )
        assert result.errors["record"].to_pylist()[0] == 2
        assert result.table.schema.field("c").metadata[b"ARROW:extension:name"] == b"batchflow.tests.length"


@pytest.mark.parametrize("registered", ["registered"], indirect=True)
def test_extension_type_of_the_driver_is_alike_on_every_executor(executor, registered, tmp_path):
    def lengths(table):
        return {"c": pa.ExtensionArray.from_storage(av.Length("ft"), table["n"].combine_chunks())}

    records = bf.records(pa.table({"n": [1, None, 3]}))
    wanted = pa.ExtensionArray.from_storage(av.Length("ft"), pa.array([1, None, 3]))
    for options in ({}, {"into": tmp_path / "o.parquet"}):
        assert same_column(
            bf.map_batches(lengths, records, executor=executor, chunk=2, **options).table["c"], wanted
        )


# --- Python, NumPy and pandas values --------------------------------------------------------------

WRAPS = {
    "flat": lambda value: value,
    "in a list": lambda value: [value],
    "in a struct": lambda value: {"in": value},
}


def converted(values):
    """Return the meanings of values after a table, or the error."""
    try:
        table = values_to_table([{"c": value} for value in values])
    except (SchemaError, NotTabularError) as error:
        return str(error)
    return av.exact(table["c"])


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("name", av.SCALARS)
def test_value_in_a_table_is_the_same_or_an_error(name, wrap):
    value = WRAPS[wrap](av.SCALARS[name])
    got = converted([value])
    assert "column 'c': " in got if isinstance(got, str) else got == [av.meaning(value)]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("first", av.SCALARS)
def test_two_values_in_a_column_are_the_same_or_an_error(first, wrap):
    one = WRAPS[wrap](av.SCALARS[first])
    for second in av.SCALARS:
        other = WRAPS[wrap](av.SCALARS[second])
        got = converted([one, other])
        if isinstance(got, str):
            assert "column 'c': " in got, second
        else:
            assert got == [av.meaning(one), av.meaning(other)], second
            assert isinstance(converted([other, one]), list), second


@pytest.mark.parametrize("sink", SINKS)
@given(
    names=st.lists(st.sampled_from(list(av.SCALARS)), min_size=1, max_size=5),
    wrap=st.sampled_from(list(WRAPS)),
    chunk=st.integers(1, 3),
)
@settings(STEADY, max_examples=60)
def test_mixed_column_in_a_sink_does_not_depend_on_the_cut(sink, names, wrap, chunk):
    values = [WRAPS[wrap](av.SCALARS[name]) for name in names]
    source = bf.records(range(len(values)))
    rows, failed = through(lambda at: {"c": values[at]}, source, sink, chunk)
    assert rows == [av.meaning(value) for at, value in enumerate(values, 1) if at not in failed]
    assert all("'c'" in message for message in failed.values())
    again = through(lambda at: {"c": values[at]}, source, sink, 100)
    assert (rows, list(failed)) == (again[0], list(again[1]))


@given(
    names=st.lists(st.sampled_from(list(av.SCALARS)), min_size=1, max_size=5),
    keys=st.lists(st.sampled_from("ab"), min_size=5, max_size=5),
    chunk=st.integers(1, 3),
)
@settings(STEADY, max_examples=60)
def test_values_in_memory_are_those_of_the_function(names, keys, chunk):
    values = [{key: av.SCALARS[name]} for name, key in zip(names, keys, strict=False)]
    source = bf.records(range(len(values)))
    results = [bf.map_records(lambda at: values[at], source, executor="serial", chunk=cut) for cut in (chunk, 100)]
    for result in results:
        got = result.values
        assert [list(row) for row in got] == [list(row) for row in values]
        for (mine,), (given_,) in zip(map(dict.values, got), map(dict.values, values), strict=True):
            assert mine is given_ or (type(mine) is type(given_) and (mine == given_ or mine != mine))
    assert tabled(results[0]) == tabled(results[1])


def tabled(result):
    try:
        table = result.table
    except SchemaError as error:
        return str(error)
    return table.schema.types, [tuple(av.exact(column)) for column in table.columns]


def test_rows_of_every_type_come_back_from_their_table():
    for first, second in itertools.combinations([2**40, "x", 0.5, b"y", True, None], 2):
        rows = [{"a": first, "b": second}, {"a": None, "b": second}]
        assert table_to_rows(values_to_table(rows)) == rows


# --- executors ------------------------------------------------------------------------------------

PORTABLE = {
    name: value
    for name, value in av.SCALARS.items()
    if name not in {"loop", "tree", "object", "interval", "np.none", "memoryview"}
}
"""Values that can be pickled and compared."""
SUMMER = [f"2024-{month:02}-15T12:00:00+0{2 if 4 <= month <= 10 else 1}:00" for month in range(1, 13)] * 50


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_values_in_memory_are_alike_on_every_executor(executor, chunk):
    values = list(PORTABLE.values())
    got = bf.map_records(
        lambda value: {"v": value, "w": [value]}, bf.records(values), executor=executor, chunk=chunk
    ).values
    assert [list(row) for row in got] == [["v", "w"]] * len(values)
    for row, value in zip(got, values, strict=True):
        assert type(row["v"]) is type(value) is type(row["w"][0])
        assert (
            av.meaning(row["v"]) == av.meaning(value)
            if type(value).__name__ not in UNMEANT
            else str(row["v"]) == str(value)
        )


UNMEANT = {"Colour", "Point", "set", "complex", "complex128", "Pair", "MonthDayNano"}


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_offsets_of_summer_time_are_instants_on_every_executor(executor, chunk, tmp_path):
    source = bf.records(SUMMER)
    result = bf.map_records(
        lambda text: {"t": datetime.fromisoformat(text)},
        source,
        into=tmp_path / "out/",
        executor=executor,
        chunk=chunk,
    )
    assert result.table.schema.field("t").type == pa.timestamp("us", "UTC")
    assert result.table["t"].to_pylist() == [datetime.fromisoformat(text) for text in SUMMER]
    assert result.report.failed == 0


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_mixed_column_in_a_sink_is_alike_on_every_executor(executor, chunk, tmp_path):
    values = [value for value in PORTABLE.values() if type(value).__name__ not in UNMEANT]
    result = bf.map_records(
        lambda value: {"c": value}, bf.records(values), into=tmp_path / "out.arrow", executor=executor, chunk=chunk
    )
    failed = result.errors["record"].to_pylist()
    assert av.exact(read(result.path)["c"]) == [
        av.meaning(value) for at, value in enumerate(values, 1) if at not in failed
    ]
    serial = bf.map_records(
        lambda value: {"c": value},
        bf.records(values),
        into=tmp_path / "serial.arrow",
        executor="serial",
        chunk=1000,
    )
    assert failed == serial.errors["record"].to_pylist()
    assert result.errors["message"].to_pylist() == serial.errors["message"].to_pylist()


def test_value_that_contains_itself_is_an_error_row(executor, tmp_path):
    def loop(at):
        value: list = [at]
        if at % 2:
            value.append({"again": value})
        return {"c": value}

    result = bf.map_records(loop, bf.records(range(4)), into=tmp_path / "out.parquet", executor=executor, chunk=2)
    assert result.table.to_pylist() == [{"c": [0]}, {"c": [2]}]
    assert result.errors.select(["record", "message"]).to_pylist() == [
        {"record": at, "message": "column 'c': a value that contains itself"} for at in (2, 4)
    ]
