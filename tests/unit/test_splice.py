"""Parquet files put together without decoding them, and the Thrift of their footers."""

from __future__ import annotations

import datetime as dt
import io
import random
import tempfile
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchflow.io.formats import parquet_concat as splicing
from batchflow.io.formats import thrift
from batchflow.io.formats.parquet_concat import splice
from batchflow.io.formats.thrift import Elements, Type

EPOCH = dt.datetime(1970, 1, 1)


def moment(rnd: random.Random) -> dt.datetime:
    return EPOCH + dt.timedelta(microseconds=rnd.randrange(-(10**16), 10**16))


def text(rnd: random.Random) -> str:
    return "".join(rnd.choices("aé日😀 \x00\n", k=rnd.randrange(40)))


# name: type, a value; every column but id has nulls as well
COLUMNS = {
    "bool": (pa.bool_(), lambda r: r.random() < 0.5),
    "i8": (pa.int8(), lambda r: r.randrange(-(2**7), 2**7)),
    "u16": (pa.uint16(), lambda r: r.randrange(2**16)),
    "i32": (pa.int32(), lambda r: r.randrange(-(2**31), 2**31)),
    "u64": (pa.uint64(), lambda r: r.randrange(2**64)),
    "f32": (pa.float32(), lambda r: r.choice([0.0, -0.5, float("inf")])),
    "f64": (pa.float64(), lambda r: r.gauss(0, 1e9)),
    "text": (pa.string(), text),
    "large": (pa.large_string(), text),
    "word": (pa.dictionary(pa.int32(), pa.string()), lambda r: r.choice(["x", "yy", "zzz"])),
    "bytes": (pa.binary(), lambda r: r.randbytes(r.randrange(200))),
    "fixed": (pa.binary(5), lambda r: r.randbytes(5)),
    "decimal": (pa.decimal128(20, 3), lambda r: Decimal(r.randrange(-(10**19), 10**19)).scaleb(-3)),
    "day": (pa.date32(), lambda r: moment(r).date()),
    "time": (pa.time64("us"), lambda r: moment(r).time()),
    "local": (pa.timestamp("us"), moment),
    "utc": (pa.timestamp("ms", "UTC"), lambda r: moment(r).replace(microsecond=0, tzinfo=dt.UTC)),
    "list": (pa.list_(pa.int64()), lambda r: [r.choice([None, 1, 2**60]) for _ in range(r.randrange(4))]),
    "struct": (
        pa.struct({"a": pa.string(), "b": pa.list_(pa.struct({"c": pa.float64()}))}),
        lambda r: {"a": text(r), "b": r.choice([None, [], [None, {"c": 1.5}, {"c": None}]])},
    ),
    "map": (pa.map_(pa.string(), pa.int32()), lambda r: [(str(i), None) for i in range(r.randrange(3))]),
    "nulls": (pa.int64(), lambda _: None),
}
SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), *((n, t) for n, (t, _) in COLUMNS.items())])


def random_table(rnd: random.Random, rows: int, first: int) -> pa.Table:
    arrays = [pa.array(range(first, first + rows), pa.int64())]
    for kind, value in COLUMNS.values():
        arrays.append(pa.array([None if rnd.random() < 0.2 else value(rnd) for _ in range(rows)], kind))
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


OPTIONS = st.fixed_dictionaries(
    {
        "compression": st.sampled_from(["none", "snappy", "zstd", "gzip", "lz4", "brotli"]),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "write_statistics": st.booleans() | st.just(["id", "text"]),
        "use_dictionary": st.booleans(),
        "write_page_index": st.booleans(),
        "write_page_checksum": st.booleans(),
        "row_group_size": st.integers(5, 60),
        "data_page_size": st.sampled_from([32, 1 << 20]),
        "bloom_filter_options": st.none() | st.just({"id": {"ndv": 60, "fpp": 0.01}, "text": {"ndv": 60}}),
    }
)
SOURCE = st.tuples(st.integers(0, 2**32), st.just(0) | st.integers(1, 60), OPTIONS)


def footer_bytes(file: bytes) -> bytes:
    return file[-8 - int.from_bytes(file[-8:-4], "little") : -8]


def spliced(folder: Path, *tables: pa.Table, **options) -> Path:
    """Write tables, a file each, and put these together."""
    sources = []
    for number, table in enumerate(tables):
        sources.append(str(folder / f"{number}.parquet"))
        pq.write_table(table, sources[-1], **options)
    with (folder / "all.parquet").open("wb") as destination:
        assert splice(sources, destination) == sum(map(len, tables))
    return folder / "all.parquet"


def assert_read_alike(path: Path, expected: pa.Table, reference: Path) -> None:
    """Compare with the rows expected, and in other readers with a file pyarrow wrote of them."""
    pq.write_table(expected, reference)
    read = pq.read_table(path)
    read.validate(full=True)
    assert read.schema.equals(pq.read_schema(reference), check_metadata=True)
    assert read.to_pylist() == expected.to_pylist()
    with duckdb.connect() as db:
        mine, theirs = (db.read_parquet(str(p)).to_arrow_table() for p in (path, reference))
    assert mine.to_pylist() == theirs.to_pylist()
    assert len(mine) == len(expected)
    assert pl.read_parquet(path).equals(pl.read_parquet(reference))


def column_facts(column: pq.ColumnChunkMetaData) -> tuple:
    """Return what must not change."""
    sizes = column.num_values, column.total_compressed_size, column.total_uncompressed_size
    return column.path_in_schema, column.compression, column.encodings, sizes, column.statistics


def group_facts(path: Path) -> list[list[tuple]]:
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    return [[column_facts(g.column(i)) for i in range(g.num_columns)] for g in groups if g.num_rows]


# ---------------------------------------------------------------------------- splice


@settings(max_examples=25, deadline=None)
@given(st.lists(SOURCE, min_size=1, max_size=4))
def test_any_files(drawn):
    with tempfile.TemporaryDirectory() as name:
        folder, tables, sources = Path(name), [], []
        for seed, rows, options in drawn:
            tables.append(random_table(random.Random(seed), rows, sum(map(len, tables))))
            sources.append(folder / f"{len(sources)}.parquet")
            pq.write_table(tables[-1], sources[-1], **options)
        with (folder / "all.parquet").open("wb") as destination:
            assert splice([str(s) for s in sources], destination) == sum(map(len, tables))
        assert_read_alike(folder / "all.parquet", pa.concat_tables(tables), folder / "reference")
        assert group_facts(folder / "all.parquet") == [g for s in sources for g in group_facts(s)]
        # once more: what was put together is as good a source as any
        with (folder / "twice.parquet").open("wb") as destination:
            splice([str(folder / "all.parquet"), *map(str, sources)], destination)
        assert_read_alike(folder / "twice.parquet", pa.concat_tables(tables * 2), folder / "reference")


NUMBERS = [
    pa.table({"n": range(start, start + 100), "s": [f"s{i}" for i in range(start, start + 100)]})
    for start in (0, 1000, 2000)
]


def test_filter_prunes_row_groups(tmp_path):
    path = spliced(tmp_path, *NUMBERS, row_group_size=25)
    wanted = (ds.field("n") >= 1024) & (ds.field("n") < 1051)
    assert ds.dataset(path).to_table(filter=wanted).to_pylist() == NUMBERS[1].slice(24, 27).to_pylist()
    [fragment] = ds.dataset(path).get_fragments()
    assert [f.row_groups[0].id for f in fragment.split_by_row_group(wanted)] == [4, 5, 6]
    assert pl.scan_parquet(path).filter(pl.col("s") == "s2077").collect().rows() == [(2077, "s2077")]
    with duckdb.connect() as db:
        assert db.sql(f"SELECT * FROM '{path}' WHERE n IN (3, 1099)").fetchall() == [
            (3, "s3"),
            (1099, "s1099"),
        ]


def test_bloom_filters_are_found(tmp_path):
    path = spliced(tmp_path, *NUMBERS, bloom_filter_options={"s": {"ndv": 100, "fpp": 1e-6}})
    with duckdb.connect() as db:
        probe = db.sql(f"SELECT bloom_filter_excludes FROM parquet_bloom_probe('{path}', 's', 's1050')")
        assert probe.fetchall() == [(True,), (False,), (True,)]


def test_page_indexes_are_left_out(tmp_path):
    path = spliced(tmp_path, *NUMBERS, write_page_index=True)
    assert pq.read_metadata(tmp_path / "0.parquet").row_group(0).column(0).has_offset_index
    column = pq.read_metadata(path).row_group(1).column(0)
    assert not column.has_offset_index
    assert not column.has_column_index


@pytest.mark.parametrize("tables", [[NUMBERS[0][:0]], [NUMBERS[0][:0], NUMBERS[1], NUMBERS[2][:0]]])
def test_files_without_rows(tmp_path, tables):
    pq.ParquetWriter(tmp_path / "none.parquet", NUMBERS[0].schema).close()
    path = spliced(tmp_path, *tables)
    with (tmp_path / "more.parquet").open("wb") as more:
        rows = splice([str(tmp_path / "none.parquet"), str(path)], more)
    assert rows == sum(map(len, tables))
    assert pq.read_metadata(more.name).num_row_groups == bool(rows)
    assert_read_alike(tmp_path / "more.parquet", pa.concat_tables(tables), tmp_path / "reference")


def test_metadata_is_that_of_the_first(tmp_path):
    for name in "ab":
        with pq.ParquetWriter(tmp_path / name, NUMBERS[0].schema) as writer:
            writer.write_table(NUMBERS[0])
            writer.add_key_value_metadata({"who": name})
    destination = io.BytesIO()
    splice([str(tmp_path / "a"), str(tmp_path / "b")], destination)
    metadata = pq.read_metadata(destination)
    assert metadata.metadata[b"who"] == b"a"
    assert metadata.created_by == pq.read_metadata(tmp_path / "a").created_by
    assert (metadata.format_version, metadata.num_rows) == ("2.6", 200)


def rewrite_footer(path: Path, change: Callable[[thrift.Struct], object]) -> None:
    data = path.read_bytes()
    footer = thrift.decode(footer_bytes(data))
    change(footer)
    encoded = thrift.encode(footer)
    body = data[: -8 - len(footer_bytes(data))]
    path.write_bytes(body + encoded + len(encoded).to_bytes(4, "little") + b"PAR1")


def groups_of(path: Path) -> list[thrift.Struct]:
    return thrift.decode(footer_bytes(path.read_bytes()))[4][1].items


def test_row_groups_are_numbered_and_placed(tmp_path):
    groups = groups_of(spliced(tmp_path, *NUMBERS, row_group_size=50, compression="none"))
    assert [g[7] for g in groups] == [(Type.I16, i) for i in range(6)]
    for before, after in pairwise(groups):
        assert after[5][1] >= before[5][1] + before[6][1]
        assert after[1][1].items[0][3][1][11][1] == after[5][1]  # its dictionary comes first


def test_no_ordinal_past_the_largest(tmp_path, monkeypatch):
    monkeypatch.setattr(splicing, "_MAX_ORDINAL", 1)
    numbered = tmp_path / "0.parquet"
    pq.write_table(NUMBERS[0], numbered)
    rewrite_footer(numbered, lambda footer: footer[4][1].items[0].update({7: (Type.I16, 0)}))
    with (tmp_path / "all").open("wb") as destination:
        splice([str(numbered)] * 3, destination)
    assert [g.get(7) for g in groups_of(tmp_path / "all")] == [(Type.I16, 0), (Type.I16, 1), None]


def test_deprecated_file_offset_of_a_chunk(tmp_path):
    source = tmp_path / "a"
    pq.write_table(NUMBERS[0], source)
    # older writers set it
    rewrite_footer(source, lambda footer: footer[4][1].items[0][1][1].items[0].update({2: (Type.I64, 400)}))
    with (tmp_path / "b").open("wb") as destination:
        splice([str(source)] * 2, destination)
    chunks = [chunk for group in groups_of(tmp_path / "b") for chunk in group[1][1].items]
    assert [chunk[2][1] for chunk in chunks] == [400, 0, 400 + splicing._read_footer(str(source))[1], 0]


def write_duckdb(table: pa.Table, path: str) -> None:
    with duckdb.connect() as db:
        db.register("t", table)
        db.execute(f"COPY t TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 50)")


def write_polars(table: pa.Table, path: str) -> None:
    pl.DataFrame(table).write_parquet(path, row_group_size=50)


@pytest.mark.parametrize("write", [write_duckdb, write_polars])
def test_files_of_other_writers(tmp_path, write):
    sources = []
    for number, table in enumerate(NUMBERS):
        sources.append(str(tmp_path / str(number)))
        write(table, sources[-1])
    footer = footer_bytes(Path(sources[0]).read_bytes())
    assert thrift.encode(thrift.decode(footer)) == footer
    destination = io.BytesIO()
    assert splice(sources, destination) == 300
    assert pq.read_table(destination).to_pylist() == pa.concat_tables(NUMBERS).to_pylist()


def test_memory_does_not_grow_with_the_data(tmp_path):
    table = pa.table({"b": [random.Random(1).randbytes(1 << 20)] * 24})
    pq.write_table(table, tmp_path / "a", compression="none", use_dictionary=False)
    assert (tmp_path / "a").stat().st_size > 24 << 20
    with (tmp_path / "b").open("wb") as destination:
        tracemalloc.start()
        splice([str(tmp_path / "a")] * 2, destination)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 3 << 20
    assert pq.read_table(tmp_path / "b").equals(pa.concat_tables([table] * 2))


# ---------------------------------------------------------------------------- refusals


def refusal(*sources: Path) -> str:
    """Return the message; nothing may have been written."""
    destination = io.BytesIO()
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        splice([str(s) for s in sources], destination)
    assert destination.getvalue() == b""
    return str(caught.value)


def test_no_sources():
    assert "no Parquet files" in refusal()


@pytest.mark.parametrize(
    "other",
    [
        pa.table({"n": pa.array([1], pa.int32()), "s": ["a"]}),
        pa.table({"n": [1]}),
        pa.table({"s": ["a"], "n": [1]}),
        pa.table({"n": [1], "S": ["a"]}),
        pa.table({"n": [1], "s": pa.array(["a"], pa.large_string())}),  # differs in ARROW:schema only
        NUMBERS[0][:1].cast(pa.schema([pa.field("n", pa.int64(), nullable=False), ("s", pa.string())])),
    ],
)
def test_other_schema(tmp_path, other):
    pq.write_table(NUMBERS[0], tmp_path / "a")
    pq.write_table(other, tmp_path / "b")
    message = refusal(tmp_path / "a", tmp_path / "a", tmp_path / "b")
    assert message == f"{tmp_path / 'b'}: its schema differs from that of the first file"


def test_cut_anywhere(tmp_path):
    whole, cut = tmp_path / "a", tmp_path / "cut.parquet"
    pq.write_table(NUMBERS[0][:3], whole)
    data = whole.read_bytes()
    for size in range(len(data)):
        cut.write_bytes(data[:size])
        assert refusal(whole, cut).startswith(f"{cut}: ")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PAR1",
        b"n,s\n1,a\n2,b\n",
        b"PAR1" + (1000).to_bytes(4, "little") + b"PAR1",
        b"PAR1\x00" + (1).to_bytes(4, "little") + b"PAR1",
        b"PAR1" + b"\x1c" * 5000 + (5000).to_bytes(4, "little") + b"PAR1",
        b"PAR1" + b"\x19\xfc\xff\xff\xff\xff\x7f" + (7).to_bytes(4, "little") + b"PAR1",
    ],
)
def test_garbage(tmp_path, data):
    (tmp_path / "junk").write_bytes(data)
    assert refusal(tmp_path / "junk").startswith(f"{tmp_path / 'junk'}: ")


def test_damaged_footers_raise_nothing_else(tmp_path):
    source, damaged = tmp_path / "a", tmp_path / "damaged"
    pq.write_table(NUMBERS[0][:3], source, store_schema=False)
    data, rnd = source.read_bytes(), random.Random(7)
    for position in range(len(data) - 8 - len(footer_bytes(data)), len(data)):
        wrong = bytearray(data)
        wrong[position] ^= rnd.randrange(1, 256)
        damaged.write_bytes(wrong)
        try:
            splice([str(damaged)], io.BytesIO())
        except ValueError as error:
            assert str(error).startswith(f"{damaged}: ")  # noqa: PT017


@pytest.mark.parametrize(("field", "name"), [(2, "schema"), (3, "num_rows"), (4, "row_groups")])
def test_fields_of_other_types(tmp_path, field, name):
    source = tmp_path / "a"
    for wrong in ((Type.LIST, Elements(Type.I64, [1])), (Type.BINARY, b"1")):
        pq.write_table(NUMBERS[0], source)
        rewrite_footer(source, lambda footer, wrong=wrong: footer.update({field: wrong}))
        assert refusal(source) == f"{source}: its footer has no valid {name}"


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.parquet"):
        splice([str(tmp_path / "absent.parquet")], io.BytesIO())


class NoKms(pe.KmsClient):
    def wrap_key(self, key_bytes, master_key_identifier):
        return key_bytes

    def unwrap_key(self, wrapped_key, master_key_identifier):
        return wrapped_key


@pytest.mark.parametrize(("plaintext_footer", "what"), [(False, "its footer is"), (True, "its columns are")])
def test_encrypted(tmp_path, plaintext_footer, what):
    config = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["n"]}, plaintext_footer=plaintext_footer, double_wrapping=False
    )
    factory = pe.CryptoFactory(lambda _: NoKms())
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), config)
    pq.write_table(NUMBERS[0], tmp_path / "secret", encryption_properties=properties)
    assert refusal(tmp_path / "secret") == f"{tmp_path / 'secret'}: {what} encrypted"


def test_metadata_file_of_a_folder(tmp_path):
    collected: list[pq.FileMetaData] = []
    pq.write_table(NUMBERS[0], tmp_path / "a", metadata_collector=collected)
    collected[0].set_file_path("a")
    collected[0].write_metadata_file(tmp_path / "_metadata")
    assert "its column chunks are in other files" in refusal(tmp_path / "_metadata")


def test_file_shrinks_before_it_is_copied(tmp_path, monkeypatch):
    pq.write_table(NUMBERS[0], tmp_path / "a")
    footer, _ = splicing._read_footer(str(tmp_path / "a"))
    monkeypatch.setattr(splicing, "_read_footer", lambda _: (footer, 10**6))
    with pytest.raises(ValueError, match="a: it has become shorter"):
        splice([str(tmp_path / "a")], io.BytesIO())


# ---------------------------------------------------------------------------- thrift


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 80), OPTIONS)
def test_footers_of_pyarrow_are_encoded_to_the_same_bytes(seed, rows, options):
    file = io.BytesIO()
    pq.write_table(
        random_table(random.Random(seed), rows, 0), file, sorting_columns=[pq.SortingColumn(0)], **options
    )
    footer = footer_bytes(file.getvalue())
    assert thrift.encode(thrift.decode(footer)) == footer


I64 = st.integers(-(2**63), 2**63 - 1)
VALUES = {
    Type.I8: st.integers(-128, 127),
    Type.I16: st.integers(-(2**15), 2**15 - 1),
    Type.I32: st.integers(-(2**31), 2**31 - 1),
    Type.I64: I64,
    Type.DOUBLE: st.floats(allow_nan=False),
    Type.BINARY: st.binary(max_size=200),
}


def structs(values):
    fields = values | st.sampled_from([(Type.TRUE, True), (Type.FALSE, False)])
    return st.dictionaries(st.integers(-(2**15), 2**15 - 1) | st.integers(1, 20), fields, max_size=8)


def nested(values):
    return st.one_of(
        structs(values).map(lambda fields: (Type.STRUCT, fields)),
        st.lists(structs(values), max_size=20).map(lambda items: (Type.LIST, Elements(Type.STRUCT, items))),
        st.lists(st.booleans(), max_size=20).map(lambda items: (Type.LIST, Elements(Type.TRUE, items))),
        st.lists(I64, max_size=20).map(lambda items: (Type.LIST, Elements(Type.I64, items))),
    )


SCALARS = st.one_of([values.map(lambda value, kind=kind: (kind, value)) for kind, values in VALUES.items()])
STRUCTS = structs(st.recursive(SCALARS, nested, max_leaves=8))


@settings(max_examples=100, deadline=None)
@given(STRUCTS)
def test_what_is_encoded_is_decoded(fields):
    data = thrift.encode(fields)
    assert thrift.decode(data) == fields
    assert list(thrift.decode(data)) == list(fields)
    for size in range(0, len(data), 7):
        with pytest.raises(ValueError, match="cut off"):
            thrift.decode(data[:size])
    assert thrift.decode(data + b"signature") == fields


@given(st.binary())
def test_any_bytes_are_a_struct_or_refused(data):
    try:
        fields = thrift.decode(data)
    except ValueError:
        return
    assert thrift.decode(thrift.encode(fields)) == fields


@pytest.mark.parametrize(
    ("fields", "data"),  # by the specification
    [
        ({}, "00"),
        ({1: (Type.I32, 1), 3: (Type.I64, -1)}, "15 02 26 01 00"),
        ({16: (Type.I8, -1), 1: (Type.TRUE, True), 2: (Type.FALSE, False)}, "03 20 ff 01 02 12 00"),
        ({15: (Type.I16, 150)}, "f4 ac 02 00"),
        ({1: (Type.BINARY, b"hi")}, "18 02 68 69 00"),
        ({1: (Type.DOUBLE, 1.0)}, "17 00 00 00 00 00 00 f0 3f 00"),
        ({1: (Type.LIST, Elements(Type.TRUE, [True, False]))}, "19 21 01 02 00"),
        ({1: (Type.LIST, Elements(Type.I32, [0] * 15))}, "19 f5 0f" + "00" * 15 + "00"),
        ({1: (Type.STRUCT, {1: (Type.I64, 2**63 - 1)})}, "1c 16 fe ff ff ff ff ff ff ff ff 01 00 00"),
    ],
)
def test_bytes_of_the_specification(fields, data):
    assert thrift.encode(fields) == bytes.fromhex(data)
    assert thrift.decode(bytes.fromhex(data)) == fields


def test_structs_given_as_bytes():
    inner = {1: (Type.I32, 5)}
    given_as_bytes = {1: (Type.LIST, Elements(Type.STRUCT, [thrift.encode(inner)]))}
    assert thrift.encode(given_as_bytes) == thrift.encode({1: (Type.LIST, Elements(Type.STRUCT, [inner]))})
