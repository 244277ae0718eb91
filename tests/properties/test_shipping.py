"""What is shipped of a file is enough to read a span of it, wherever it is cut, and little more."""

import csv
import json
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batchflow as bf
from batchflow.core.chunks import InputFile, Span
from batchflow.executors.ray import file_shipping as shipping
from batchflow.executors.ray.file_shipping import Unpacked, sees, shipped

LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12), max_size=40)


def text(path, lines):
    path.write_bytes("\n".join(lines).encode())
    return bf.read_text(str(path))


def json_lines(path, lines):
    path.write_text("\n".join(json.dumps({"t": line}) for line in lines))
    return bf.read_json(str(path))


def comma_separated(path, lines):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["t", "n"], *([line + "\n", at] for at, line in enumerate(lines))])
    return bf.read_csv(str(path))


def parquet(path, lines):
    pq.write_table(
        pa.table({"t": pa.array(lines, pa.string()), "n": range(len(lines))}),
        path,
        row_group_size=7 if len(lines) < 50 else 1000,
    )
    return bf.read_parquet(str(path))


def chunks_of(source, weight):
    inputs = source.inputs()
    cursor = source.prepared(inputs).cursor(inputs, None)
    return [drawn.chunk for drawn in iter(partial(cursor.draw, weight), None)]


def records_of(source, chunk):
    return [block.record(at) for block in source.read(chunk) for at in range(len(block.numbers))]


@pytest.mark.parametrize("make", [text, json_lines, comma_separated, parquet])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES, weight=st.integers(1, 200), block=st.integers(1, 300))
def test_a_span_is_read_of_what_was_shipped(tmp_path, monkeypatch, make, lines, weight, block):
    monkeypatch.setattr(shipping, "BLOCK_BYTES", block)
    source = make(tmp_path / "file", lines)
    source = source.prepared(source.inputs())
    for chunk in chunks_of(source, weight):
        expected = records_of(source, chunk)
        files = Unpacked(shipped(source, chunk, bytes, whole=False), bytes)
        with files.in_place():
            found = records_of(source, chunk)
        assert found == expected
        assert not files.missed
        whole = Unpacked(shipped(source, chunk, bytes, whole=True), bytes)
        with whole.in_place():
            assert records_of(source, chunk) == expected


@pytest.mark.parametrize("make", [text, json_lines, comma_separated, parquet])
def test_no_more_is_shipped_than_is_read(tmp_path, make):
    source = make(tmp_path / "file", [f"{n:0100}" for n in range(20_000)])
    source = source.prepared(source.inputs())
    chunks = chunks_of(source, 200_000)
    sizes = [sum(map(len, shipped(source, chunk, bytes, whole=False).blocks)) for chunk in chunks]
    assert len(chunks) > 4 or make is parquet
    footer = 70_000 * len(chunks) if make is parquet else 0
    assert sum(sizes) <= (tmp_path / "file").stat().st_size + 200 * len(chunks) + footer


def test_small_files_share_a_block_and_a_large_one_has_many(tmp_path, monkeypatch):
    monkeypatch.setattr(shipping, "BLOCK_BYTES", 1000)
    for n in range(50):
        (tmp_path / f"{n:02}").write_bytes(bytes([n]) * 10)
    (tmp_path / "99").write_bytes(bytes(range(256)) * 10)
    source = bf.files(str(tmp_path / "*"))
    (chunk,) = chunks_of(source, 10**9)
    shipment = shipped(source, chunk, bytes, whole=False)
    assert [len(block) for block in shipment.blocks] == [1000, 1000, 1000, 60]
    with Unpacked(shipment, bytes).in_place():
        contents = [file.read_bytes() for file in records_of(source, chunk)]
    assert contents == [*(bytes([n]) * 10 for n in range(50)), bytes(range(256)) * 10]


def test_a_file_is_known_by_its_size_and_time(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1\n")
    (chunk,) = chunks_of(bf.read_text(str(path)), 100)
    assert sees(chunk, "/")
    path.write_bytes(b"1\n2\n")
    assert not sees(chunk, "/")
    path.unlink()
    assert not sees(chunk, "/")


def test_a_file_that_the_driver_cannot_read_is_told_by_its_reader(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1\n")
    source = bf.read_text(str(path))
    (chunk,) = chunks_of(source, 100)
    path.unlink()
    with Unpacked(shipped(source, chunk, bytes, whole=False), bytes).in_place():
        (block,) = source.read(chunk)
    assert isinstance(block.error, FileNotFoundError)


def test_shipped_file_that_shrank_names_its_new_end(tmp_path):
    """And not asked for again and again."""
    path = tmp_path / "a"
    path.write_bytes(b"1\n" * 400)
    source = bf.read_text(str(path))
    (chunk,) = chunks_of(source, 10_000)
    path.write_bytes(b"1\n" * 200)
    files = Unpacked(shipped(source, chunk, bytes, whole=True), bytes)
    with files.in_place():
        blocks = list(source.read(chunk))
    assert (sum(len(block.numbers) for block in blocks), files.missed) == (200, False)
    assert "the file ends at byte 400, but had at least 800" in str(blocks[-1].error)


def test_objects_are_left_to_the_worker(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1\n")
    (chunk,) = chunks_of(bf.read_text(str(path)), 100)
    both = chunk._replace(spans=(*chunk.spans, Span(InputFile("s3://bucket/b", 10))))
    shipment = shipped(bf.read_text(str(path)), both, bytes, whole=False)
    assert (list(shipment.files), shipment.problems) == ([str(path)], {})
