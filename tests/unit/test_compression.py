"""Compressed files: read to the last byte before a damage, whatever their names say."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from reading import WHOLE, read, writer

from batchflow.io.readers import read_csv, read_json, read_text
from batchflow.io.sources import compression, text
from batchflow.io.sources.compression import Decompressed, by_magic, by_suffix, open_text

CODECS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    "lz4": lambda data: lz4.frame.compress(data, content_checksum=True),
    "xz": lzma.compress,
}
LINES = [f"line {number} {number * 7919 % 1000}" for number in range(60)]
TEXT = "".join(f"{line}\n" for line in LINES).encode()
SKIPPABLE = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    return writer(tmp_path)


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_suffixes_and_magic_bytes(codec):
    assert by_suffix(f"/a.b/x.TXT.{codec.upper()}") == codec
    assert by_magic(CODECS[codec](TEXT)) == codec
    assert by_magic(CODECS[codec](b"")) in {codec, None}
    assert (by_suffix("x.txt"), by_suffix("gz"), by_magic(b"text"), by_magic(b"")) == (None, None, None, None)


def test_by_suffix_and_by_magic_bytes(write, codec):
    for name in (f"x.txt.{codec}", "x.txt", f"x.{codec}"):
        seen = read(read_text(write(CODECS[codec](TEXT), name)))
        assert (seen.rows, seen.failures) == (LINES, [])
        assert seen.records[1][1:3] == (2, (len(LINES[0]) + 1, len(LINES[0]) + len(LINES[1]) + 2))


def test_many_members(write, codec):
    compress = CODECS[codec]
    members = [compress(TEXT[at : at + 100]) for at in range(0, len(TEXT), 100)]
    assert read(read_text(write(b"".join(members), f"x.{codec}"))).rows == LINES
    assert read(read_text(write(compress(b"") + b"".join(members) + compress(b""), f"x.{codec}"))).rows == LINES


def test_zero_bytes_behind_a_member_are_padding(write):
    member = gzip.compress(TEXT)
    for padding in (1, 500, 300_000):
        data = member + bytes(padding)
        for last in (b"", member):
            seen = read(read_text(write(data + last, "x.gz")))
            assert (seen.rows, seen.failures) == (LINES * (2 if last else 1), [])


def test_zero_bytes_alone_are_no_gz(write):
    assert read(read_text(write(bytes(100), "x.gz"))).messages[0].startswith("this is not gz data")


@pytest.mark.parametrize("data", [b"not a member", TEXT, b"\x1f\x8b\x08"])
def test_what_is_no_member_behind_a_member_is_a_damage(write, data):
    seen = read(read_text(write(gzip.compress(TEXT) + data, "x.gz")))
    assert seen.rows == LINES
    assert [failure[1:4] for failure in seen.failures] == [(61, len(TEXT), None)]


@pytest.mark.parametrize("codec", ["zst", "lz4"])
def test_frames_to_be_skipped(write, codec):
    frame = CODECS[codec](TEXT)
    seen = read(read_text(write(SKIPPABLE + frame + SKIPPABLE + frame + SKIPPABLE, f"x.{codec}")))
    assert (seen.rows, seen.failures) == (LINES * 2, [])


def test_mixed_with_plain_in_one_input(tmp_path):
    write = writer(tmp_path)
    for at, (name, compress) in enumerate({"": bytes, **CODECS}.items()):
        write(compress(f"{at}\n".encode() * 3), f"{at}.txt.{name}" if at % 2 else f"{at}.txt")
    assert read(read_text(str(tmp_path)), 1).rows == [str(at) for at in range(6) for _ in range(3)]


def test_an_empty_file_with_a_suffix_has_no_records(write, codec):
    seen = read(read_text(write(b"", f"x.{codec}")))
    assert (seen.rows, seen.failures) == ([], [])


def test_a_suffix_that_lies_is_one_failure(write, codec):
    for data in (TEXT, CODECS["bz2" if codec != "bz2" else "gz"](TEXT)):
        path = write(data, f"x.{codec}")
        seen = read(read_text(path))
        assert seen.rows == []
        assert [failure[:4] for failure in seen.failures] == [(path, 1, 0, None)]
        assert seen.messages[0].startswith(f"this is not {codec} data, whatever its name says")


def test_truncated_at_any_byte(write, codec):
    data = CODECS[codec](TEXT)
    for end in range(1, len(data)):
        seen = read(read_text(write(data[:end], f"x.{codec}")))
        kept = len(seen.rows)
        assert seen.rows == LINES[:kept]
        place = sum(len(line) + 1 for line in LINES[:kept])
        assert [failure[1:4] for failure in seen.failures] == [(kept + 1, place, None)], end
        assert "truncated" in seen.messages[0]


def everything(data):
    """Return all bytes that a gz stream gives before it breaks off."""
    stream, given = Decompressed(io.BytesIO(data), "gz"), b""
    with suppress(OSError):
        while some := stream.read(100):
            given += some
    return given


@pytest.mark.parametrize("level", [0, 1, 9])
def test_gz_gives_all_that_zlib_knows_of_a_part(level):
    rng = random.Random(level)
    text = b"".join(rng.choice([b"", b"a" * 300, b"%d\n" % rng.getrandbits(99)]) for _ in range(300))
    data = gzip.compress(text, level)
    for end in range(0, len(data), 7):
        assert everything(data[:end]) == zlib.decompressobj(wbits=31).decompress(data[:end]), end


@pytest.mark.parametrize("level", [0, 6])
def test_gz_gives_all_that_zlib_knows_before_a_damage(level):
    rng = random.Random(level)
    data = gzip.compress(b"".join(b"%d\n" % rng.getrandbits(99) for _ in range(3000)), level)
    for at in range(20, len(data), 997):
        known, decoder = bytearray(), zlib.decompressobj(wbits=31)
        damaged = data[:at] + bytes(byte ^ 0x55 for byte in data[at : at + 20]) + data[at + 20 :]
        with suppress(zlib.error):
            for byte in damaged:
                known += decoder.decompress(bytes([byte]))
        assert everything(damaged) == known, at


def test_between_members_nothing_tells_that_a_file_is_truncated(write):
    first = gzip.compress(TEXT)
    assert read(read_text(write(first, "x.gz"))).failures == []


def test_corrupt_at_any_byte(write, codec):
    """Everything that the bytes before the damage tell is kept, and the damage is told once."""
    data = CODECS[codec](TEXT)
    for at in range(len(data)):
        before = read(read_text(write(data[:at], f"x.{codec}"))).rows
        seen = read(read_text(write(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :], f"x.{codec}")))
        assert seen.rows[: len(before)] == before
        damages = [failure for failure in seen.failures if failure[4] is None]
        assert len(damages) <= 1
        assert damages or seen.rows == LINES or codec == "xz"
        assert damages == [] or damages[0] == seen.failures[-1]


def test_corrupt_far_inside_a_large_file(write):
    """A decoder that raises gives nothing of its input: what it held back is decoded again."""
    rng = random.Random(1)
    text = b"".join(b"%d\n" % rng.getrandbits(200) for _ in range(20_000))
    data = bytearray(gzip.compress(b"first\n") + gzip.compress(text))
    at = 300_000
    data[at : at + 100] = rng.randbytes(100)
    decoder = zlib.decompressobj(wbits=31)
    decoder.decompress(bytes(data))
    decoder = zlib.decompressobj(wbits=31)
    sound = decoder.decompress(data[len(gzip.compress(b"first\n")) : at])
    seen = read(read_text(write(bytes(data), "x.gz")))
    lines = sound.count(b"\n")
    assert seen.rows[: lines + 1] == ["first", *sound.decode().split("\n")[:lines]]
    damages = [failure for failure in seen.failures if failure[4] is None]
    assert [failure[1] for failure in damages] == [len(seen.rows) + len(seen.failures)]


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (read_json, "".join(f'{{"a": {number}}}\n' for number in range(5000))),
        (read_csv, "a\n" + "".join(f"{number}\n" for number in range(5000))),
    ],
)
def test_a_damage_is_told_after_thousands_of_records(write, reader, text):
    data = gzip.compress(text.encode())
    path = write(data[: len(data) // 2], "x.gz")
    seen = read(reader(path), WHOLE)
    kept = len(seen.rows)
    assert 1000 < kept < 4999
    assert seen.rows == [{"a": number} for number in range(kept)]
    lines = text.splitlines(keepends=True)
    begin = sum(map(len, lines[: kept + (reader is read_csv)]))
    assert [failure[:4] for failure in seen.failures] == [(path, kept + 1, begin, None)]


def test_reads_give_as_many_bytes_as_asked_for():
    for size in (1, 7, 10_000):
        stream = Decompressed(io.BytesIO(gzip.compress(TEXT)), "gz")
        parts = list(iter(lambda stream=stream, size=size: stream.read(size), b""))
        assert b"".join(parts) == TEXT
        assert {len(part) for part in parts[:-1]} <= {size}
        stream.close()


def test_plain_bytes_stay_as_they_are():
    raw = io.BytesIO(b"\x1f\x8bplain")
    assert open_text(raw, None).read(100) == b"\x1f\x8bplain"


class _Full:
    eof, unused_data = False, b""

    def decompress(self, data: bytes) -> bytes:
        raise MemoryError


def test_too_little_memory_is_no_damage(write, monkeypatch):
    """Neither of the file nor of a line: the task as a whole is told of it."""
    path = write(gzip.compress(TEXT), "x.gz")
    with monkeypatch.context() as patch:
        patch.setitem(compression._DECODERS, "gz", _Full)
        with pytest.raises(MemoryError):
            read(read_text(path))
    calls = iter([UnicodeDecodeError("utf-8", b"", 0, 1, "no"), "a", MemoryError()])

    def decode(line: bytes) -> str:
        answer = next(calls)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(text, "_decode_line", decode)
    with pytest.raises(MemoryError):
        read(read_text(path))


def test_a_bomb_is_decoded_a_little_at_a_time():
    """Far less than all of it, however small it is packed."""
    bomb = bz2.compress(bytes(45_000_000)) * 20
    stream = Decompressed(io.BytesIO(bomb), "bz2")
    assert stream.read(10) == bytes(10)
    assert len(stream._ready) < 100_000_000
