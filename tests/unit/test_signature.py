"""Files that are not the text they are read as, and text in other encodings."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import WHOLE, read, writer

from batchflow.errors import FormatError
from batchflow.io.readers import read_csv, read_json, read_text

READERS = [read_text, read_csv, read_json]
LINES = b'{"a": 1}\n' * 2000


def tar(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name in ("a.csv", "b.csv"):
            member = tarfile.TarInfo(name)
            member.size = 8
            archive.addfile(member, io.BytesIO(b"a,b\n1,2\n"))
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", LINES)
    return file.getvalue()


def parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"a": list(range(2000))}), file)
    return file.getvalue()


def sqlite(folder: Path) -> bytes:
    path = folder / "x.db"
    with sqlite3.connect(path) as base:
        base.execute("create table t (a)")
    base.close()
    return path.read_bytes()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("weight", [WHOLE, 100])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("tar", "this is a tar archive, not text: extract its files"),
        ("tar.gz", "this is a tar archive"),
        ("zip", "this is a zip archive or an Office document"),
        ("sqlite", "this is an SQLite database"),
        ("parquet", "this is a Parquet file, not text: use read_parquet"),
        ("7z", "this is a 7z archive"),
        ("gz.gz", "the file is compressed twice (gz inside)"),
        ("utf-16", "the text is utf-16, not UTF-8: pass encoding='utf-16'"),
        ("utf-32", "encoding='utf-32'"),
        ("utf-16-le", "encoding='utf-16-le'"),
        ("utf-16-be", "encoding='utf-16-be'"),
        ("utf-32-be", "encoding='utf-32-be'"),
    ],
)
def test_file_of_another_format_is_one_error_that_names_it(tmp_path, reader, weight, kind, told):
    contents = {
        "tar": lambda: tar("w"),
        "tar.gz": lambda: tar("w:gz"),
        "zip": zipped,
        "parquet": parquet,
        "sqlite": lambda: sqlite(tmp_path),
        "7z": lambda: b"7z\xbc\xaf\x27\x1c" + bytes(range(256)) * 20,
        "gz.gz": lambda: gzip.compress(gzip.compress(LINES)),
    }
    data = contents[kind]() if kind in contents else LINES.decode().encode(kind)
    seen = read(reader(writer(tmp_path)(data)), weight)
    assert seen.rows == []
    (failure,) = seen.failures
    assert told in failure[-1]


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-32", "shift_jis", "gb18030", "latin-1", "koi8-r"]
)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("weight", [WHOLE, 7])
def test_encoding_named_gives_the_text(tmp_path, encoding, compressed, weight):
    words = [
        "a",
        "",
        "жук" if encoding in ("koi8-r", "utf-16", "utf-32", "gb18030", "shift_jis") else "é",
        "z" * 50,
    ]
    if encoding in ("shift_jis", "utf-16-le"):
        words[2] = "表示"  # whose second byte is a backslash
    data = "\n".join(words).encode(encoding)
    path = writer(tmp_path)(gzip.compress(data) if compressed else data)
    assert read(read_text(path, encoding=encoding), weight).rows == words
    rows = [{"w": word} for word in words]
    data = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode(encoding)
    path = writer(tmp_path)(gzip.compress(data) if compressed else data, "b.jsonl")
    assert read(read_json(path, encoding=encoding), weight).rows == rows


def test_encoding_that_is_wrong_gives_what_comes_before(tmp_path):
    path = writer(tmp_path)("one\ntwo\n".encode("utf-16-le") + b"\x00\xdc" + "x\n".encode("utf-16-le"))
    seen = read(read_text(path, encoding="utf-16-le"))
    assert seen.rows == ["one", "two"]
    (failure,) = seen.failures
    assert failure[-1].startswith("byte 16 of the text is not utf-16-le (illegal encoding): pass encoding=")


@pytest.mark.parametrize("name", ["utf-9", "hex", "rot13", "zlib", 5])
def test_encoding_unknown_is_refused(name):
    for reader in READERS:
        with pytest.raises(FormatError, match=f"unknown encoding {name!r}: use a name such as utf-8"):
            reader("x", encoding=name)


@pytest.mark.parametrize("weight", [WHOLE, 1, 9])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[\n{"a":1},\n{"a":2}\n]\n', "this is a JSON array"),
        ('[{"a":1},\n{"a":2}]', "this is a JSON array"),
        ('[{"a":1},{"a":2}]', "this is a JSON array"),
        ('\n [ {"a":1} ] \n\n', "this is a JSON array"),
        (json.dumps([{"a": [1, {"b": 2}]}] * 50_000, indent=2), "this is a JSON array"),
        ('{\n"a": 1\n}\n{\n"a": 2\n}\n', "this is JSON of several lines for each object"),
        (json.dumps({"a": [1, 2], "b": {"c": "x\ny"}}, indent=4), "this is JSON of several lines for each object"),
        (json.dumps({f"k{at}": at for at in range(50_000)}, indent=1), "this is JSON of several lines"),
    ],
)
def test_json_of_another_shape_is_one_error_that_names_it(tmp_path, weight, text, told):
    if len(text) > 10_000 and weight != WHOLE:
        weight = 100_000
    seen = read(read_json(writer(tmp_path)(text)), weight)
    assert seen.rows == []
    (failure,) = seen.failures
    assert failure[-1].startswith(told)


@pytest.mark.parametrize("weight", [WHOLE, 1, 9])
@pytest.mark.parametrize(
    ("text", "rows", "failures"),
    [
        ("[1, 2]\n[3]\n", [[1, 2], [3]], 0),
        ("[1, 2]\n", [[1, 2]], 0),
        ("[]\n", [[]], 0),
        ('["a"]', [["a"]], 0),
        ('{"a": 1, "b\n{"a": 2}\n', [{"a": 2}], 1),
        ('{"a": 1,}\n{"a": 2}\n', [{"a": 2}], 1),
        ('{"a": \n{"a": 2}\n{"a": 3}\n', [{"a": 2}, {"a": 3}], 1),
        ("x\n[1]\n", [[1]], 1),
        ("", [], 0),
        ("\n \n", [], 0),
    ],
)
def test_json_lines_with_arrays_or_a_bad_first_line_are_read(tmp_path, weight, text, rows, failures):
    seen = read(read_json(writer(tmp_path)(text)), weight)
    assert (seen.rows, len(seen.failures)) == (rows, failures)


@pytest.mark.parametrize("tail", [b"\r\n", b"\n", b"\0\0\0", b" \r\n\0"])
def test_gz_with_blanks_after_it_is_whole(tmp_path, tail):
    seen = read(read_json(writer(tmp_path)(gzip.compress(LINES) + tail, "a.jsonl.gz")))
    assert (seen.rows, seen.failures) == ([{"a": 1}] * 2000, [])


@pytest.mark.parametrize("tail", [b"<html>", b"\x1f\x8c", b"x" * 300_000])
def test_gz_with_other_bytes_after_it_says_so(tmp_path, tail):
    seen = read(read_json(writer(tmp_path)(gzip.compress(LINES) + tail, "a.jsonl.gz")))
    assert seen.rows == [{"a": 1}] * 2000
    (failure,) = seen.failures
    assert failure[-1] == "what follows the gz data is no gz data"


def test_zstd_with_a_long_window_is_read(tmp_path):
    import zstandard

    parameters = zstandard.ZstdCompressionParameters(window_log=29, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path = writer(tmp_path)(packer.compress(LINES) + packer.flush(), "a.jsonl.zst")
    assert read(read_json(path)).rows == [{"a": 1}] * 2000
