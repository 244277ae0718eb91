"""Files into chunks: every file once, whatever the sizes asked for."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from reading import WHOLE, count, draw, halves, read, read_chunks, ready, writer

import batchflow as bf
from batchflow.core.text import counted
from batchflow.events import ChunkSettled
from batchflow.io.readers import files, read_csv, read_json, read_parquet, read_text
from batchflow.io.sources.record_window import InputChangedError
from batchflow.io.sources.splitter import FILE_WEIGHT, PACK_LIMIT


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    return writer(tmp_path)


def lines(first: int, count: int) -> str:
    return "".join(f"{number}\n" for number in range(first, first + count))


def test_a_large_file_is_cut_at_the_bytes_asked_for(write):
    path = write("x" * 99 + "\n" + "y" * 99 + "\n" + "z" * 50)
    spans = [one.chunk.spans[0] for one in draw(read_text(path), 100)]
    assert [(span.start, span.stop) for span in spans] == [(0, 100), (100, 200), (200, 250)]


def test_a_rest_below_half_a_chunk_goes_with_the_chunk_before(write):
    spans = [one.chunk.spans[0] for one in draw(read_text(write("x" * 140)), 100)]
    assert [(span.start, span.stop) for span in spans] == [(0, 140)]


def test_small_files_are_packed_in_order(write):
    paths = [write(f"{at}\n", f"{at}.txt") for at in range(10)]
    drawn = draw(read_text(paths), 4 * FILE_WEIGHT)
    assert [[span.input.uri for span in one.chunk.spans] for one in drawn] == [paths[:4], paths[4:8], paths[8:]]
    assert [one.key for one in drawn] == [(0, 0), (4, 0), (8, 0)]
    assert sum(one.chunk.weight for one in drawn) == 10 * FILE_WEIGHT


def test_heavy_files_that_cannot_be_cut_come_first_and_keep_their_place(write):
    paths = [
        write(gzip.compress(os.urandom(3000), 0), "a.gz"),
        write(lines(0, 2000), "b.txt"),
        write(gzip.compress(os.urandom(9000), 0), "c.gz"),
        write("small\n", "d.txt"),
    ]
    source = read_text(paths)
    drawn = draw(source, 1000, heavy=10_000)
    assert [one.key for one in drawn[:2]] == [(2, 0), (0, 0)]
    assert all(len(one.chunk.spans) == 1 for one in drawn[:2])
    assert sum(one.key[0] == 1 for one in drawn) == 9, "the large file behind a heavy one is cut"
    assert [row for uri, *_, row in read(source, 1000, 10_000).records if uri == paths[1]] == list(
        map(str, range(2000))
    )
    assert read(source, 1000, 10_000) == read(source)


def test_the_frontier_holds_back_what_is_still_to_come(write):
    paths = [write(gzip.compress(os.urandom(9000), 0), "a.gz"), write(lines(0, 1000), "b.txt")]
    source = read_text(paths)
    cursor = source.cursor(source.inputs(), 1000)
    early = cursor.draw(100)
    assert (early.key, cursor.frontier) == ((0, 0), (0, 0))
    first = cursor.draw(100)
    assert first.key == (1, 0)
    assert early.key < first.key < cursor.frontier


@pytest.mark.parametrize("reader", [read_text, read_json, read_csv, read_parquet, files])
def test_a_file_without_a_byte_gives_nothing_or_its_one_failure(write, reader):
    seen = read(reader([write("", "empty")]), 1)
    if reader is files:
        assert [(row.uri[-5:], row.size) for row in seen.rows] == [("empty", 0)]
    else:
        assert seen.rows == []
    assert len(seen.failures) == (reader is read_parquet)


def test_a_file_compressed_without_saying_so_is_not_cut(write):
    path = write(gzip.compress(lines(0, 5000).encode()), "data")
    drawn = draw(read_text(path), 100)
    assert [one.chunk.spans[0].whole for one in drawn] == [True]
    assert read(read_text(path), 100).rows == list(map(str, range(5000)))


@pytest.mark.parametrize("weight", [1, 50, 5000, WHOLE])
def test_a_file_that_vanishes_is_one_failure_and_the_others_go_on(write, weight):
    paths = [write(lines(at, 100), f"{at}.txt") for at in (0, 100, 200)]
    source = read_text(paths)
    drawn = sorted(draw(source, weight), key=lambda one: one.key)
    Path(paths[1]).unlink()
    seen = read_chunks(source, [(one.chunk, one.data) for one in drawn])
    assert seen.rows == list(map(str, [*range(100), *range(200, 300)]))
    assert {failure[0] for failure in seen.failures} == {paths[1]}
    assert "No such file" in seen.messages[0]


@pytest.mark.parametrize("reader", [read_text, read_json, read_csv, read_parquet])
@pytest.mark.parametrize("weight", [1, WHOLE])
def test_a_file_that_became_a_folder_before_it_was_cut_is_one_failure(write, reader, weight):
    good, bad = write("x\n1\n", "good"), write(lines(0, 1000), "bad")
    source = reader([bad])
    inputs = source.inputs()
    source = source.prepared(inputs)
    Path(bad).unlink()
    Path(bad).mkdir()
    cursor = source.cursor(inputs, None)
    drawn = [cursor.draw(weight)]
    assert cursor.draw(weight) is None
    assert Path(good).exists()
    seen = read_chunks(source, [(one.chunk, None) for one in drawn])
    assert (seen.rows, seen.numbers) == ([], [])
    assert [(uri, number, start) for uri, number, start, *_ in seen.failures] == [(bad, 1, 0)]
    assert seen.messages == [f"[Errno 21] it is a folder, not a file: {str(bad)!r}"]


def test_a_csv_file_that_vanishes_while_it_is_cut_is_a_failure(write):
    path = write("a\n" + lines(0, 10_000))
    source = ready(read_csv(path))
    cursor = source.cursor(source.inputs(), None)
    first = cursor.draw(100)
    content = read_chunks(source, [(first.chunk, None)]).rows
    Path(path).unlink()
    rest = cursor.draw(100)
    assert cursor.draw(100) is None
    assert content == [{"a": number} for number in range(len(content))]
    assert len(read_chunks(source, [(rest.chunk, None)]).failures) == 1


@pytest.mark.parametrize("weight", [40, 100, WHOLE])
def test_a_file_that_shrank_keeps_its_lines_and_tells_where_it_ends(write, weight):
    path = write("".join(f"{number:09}\n" for number in range(20)))
    source = read_text(path)
    drawn = draw(source, weight)
    os.truncate(path, 75)
    seen = read_chunks(source, [(one.chunk, None) for one in drawn])
    assert seen.rows == [f"{number:09}" for number in range(7)]
    assert seen.failures[0][2] == 70, "the line that the end cuts off belongs to the damage"
    assert seen.messages[0].startswith("the file ends at byte 75")


@pytest.mark.parametrize("weight", [40, WHOLE])
def test_what_is_appended_after_the_plan_is_left_out(write, weight):
    path = write("1\n2\n3\n" * 20)
    source = read_text(path)
    drawn = draw(source, weight)
    with Path(path).open("a") as file:
        file.write("4\n" * 500_000)
    assert read_chunks(source, [(one.chunk, None) for one in drawn]).rows == ["1", "2", "3"] * 20


def test_a_pipe_of_which_no_size_is_known_is_read_to_its_end():
    assert read(read_text("/proc/self/status")).rows[0].startswith("Name:")


def test_halves_of_a_pack_keep_damaged_files_and_their_places(write):
    paths = [
        write("a\nb\nc\n", "1.txt"),
        write(b"", "2.txt"),
        write(gzip.compress(b"d\ne\n" * 50)[:-4], "3.txt.gz"),
        write("f", "4.txt"),
        write(b"g\n\xff\nh\n", "5.txt"),
        write("not gz", "6.gz"),
    ]
    source = read_text(paths)
    (drawn,) = draw(source)
    whole = read_chunks(source, [(drawn.chunk, None)])
    assert whole.rows == ["a", "b", "c", *["d", "e"] * 50, "f", "g", "h"]
    assert [(failure[0], failure[1]) for failure in whole.failures] == [
        (paths[2], 101),
        (paths[4], 2),
        (paths[5], 1),
    ]
    assert count(source, drawn.chunk) == 3 + 101 + 1 + 3 + 1
    assert read_chunks(source, halves(source, drawn.chunk)) == whole


def test_a_part_of_a_file_that_cannot_be_read_any_more_is_refused(write):
    path = write(lines(0, 4), "in.txt")
    source = read_text(path)
    (drawn,) = draw(source)
    one, two = drawn.chunk.halve(4)
    Path(path).unlink()
    with pytest.raises(InputChangedError) as refused:
        list(source.read(two))
    assert isinstance(refused.value.__cause__, FileNotFoundError)
    assert [bad.error_type for block in source.read(one) for bad in block.failures] == ["FileNotFoundError"]


@pytest.mark.parametrize("more", [1, 100_000])  # which is in the same block, and in many
def test_the_last_part_of_a_file_that_has_more_records_now_is_refused(write, more):
    whole = gzip.compress(lines(0, 40 + more).encode(), 0)
    path = write(gzip.compress(lines(0, 40).encode(), 0)[:-10], "in.txt.gz")
    source = read_text(path)
    (drawn,) = draw(source)
    records = count(source, drawn.chunk)
    one, two = drawn.chunk.halve(records)
    Path(path).write_bytes(whole)
    assert read_chunks(source, [(one, None)]).rows == lines(0, records // 2).split()
    with pytest.raises(InputChangedError, match="the input changed while it was read"):
        list(source.read(two))


def test_what_becomes_of_a_file_moves_no_record_of_another(write):
    paths = [write(lines(0, 4), f"{at}.txt") for at in range(3)]
    source = read_text(paths)
    (drawn,) = draw(source)
    (one, _), (two, _) = source.halve(drawn.chunk, None, 12)
    assert [len(half.spans) for half in (one, two)] == [1, 2]
    Path(paths[1]).unlink()
    whole = read_chunks(source, [(one, None), *halves(source, two)])
    assert whole.rows == lines(0, 4).split() * 2
    assert [(failure[0], failure[1]) for failure in whole.failures] == [(paths[1], 1)]


def test_halves_have_half_the_weight_and_all_the_records(write):
    source = read_text(write(lines(0, 7)))
    (drawn,) = draw(source)
    one, other = drawn.chunk.halve(7)
    assert (one.skip, one.take, other.skip, other.take) == (0, 3, 3, 4)
    assert one.weight == drawn.chunk.weight * 3 // 7
    assert other.weight == drawn.chunk.weight * 4 // 7


def test_five_thousand_files_are_planned_at_once_and_packed_into_few_chunks(tmp_path):
    for at in range(5000):
        (tmp_path / f"{at:05}.txt").write_bytes(b"%d\n" % at)
    started = time.perf_counter()
    source = read_text(str(tmp_path))
    drawn = draw(source, 64_000_000)
    seconds = time.perf_counter() - started
    assert [len(one.chunk.spans) for one in drawn] == [5000]
    assert seconds < 2, "100,000 files take 20 times as long"
    assert read_chunks(source, [(one.chunk, None) for one in drawn]).rows == list(map(str, range(5000)))


def test_a_pack_holds_no_more_files_than_its_limit():
    from batchflow.core.chunks import InputFile
    from batchflow.io.sources.splitter import FileCursor

    inputs = [InputFile(str(at), 1) for at in range(2 * PACK_LIMIT + 5)]
    cursor = FileCursor(read_text("x"), inputs, None)
    packs = [len(cursor.draw(WHOLE).chunk.spans) for _ in range(3)]
    assert packs == [PACK_LIMIT, PACK_LIMIT, 5]
    assert cursor.draw(WHOLE) is None


def test_a_number_of_records_becomes_a_weight_by_the_first_file_that_has_any(write):
    empty, full = write("", "empty"), write("12345678\n" * 1000, "full")
    for reader in (read_text, read_json, read_csv):
        source = reader([empty, "/no/such", full])
        source = reader([empty, full])
        assert source.record_weight(source.inputs()) == pytest.approx(9, rel=0.2)
    assert read_text(empty).record_weight(read_text(empty).inputs()) == 1.0
    assert files([empty, full]).record_weight(files([empty, full]).inputs()) == (FILE_WEIGHT + 9000) / 2


@pytest.mark.parametrize(("chunk", "expected"), [(1, [1] * 7), (3, [3, 3, 1]), (100, [7])])
def test_chunks_of_whole_files_are_counted(tmp_path, chunk, expected):
    """However unequal they are: one task for each file, say."""
    for at in range(7):
        (tmp_path / f"{at}").write_bytes(b"x" * 10**at)
    heard = []
    job = bf.Job(
        lambda file: file.size, bf.files(tmp_path), chunk=chunk, executor="serial", listeners=[heard.append]
    )
    assert job.run().values == [10**at for at in range(7)]
    taken = sorted(len(event.chunk.spans) for event in heard if isinstance(event, ChunkSettled))
    assert sum(taken) == 7
    assert max(taken) <= chunk
    if chunk == 1:  # otherwise the heaviest goes first, alone
        assert taken == expected
    assert f"{counted(chunk, 'file')} each, {len(expected)} of them" in job.plan().explain()
