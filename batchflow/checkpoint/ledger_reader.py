"""Reader and verifier of a ledger, on a disk or in segments on an object store."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any

from batchflow.checkpoint.history import LEDGER, LINK, DoneChunk, DonePart, History, link_of
from batchflow.core.chunks import Chunk, InputFile, Piece, Span
from batchflow.core.outcomes import Failure, Failures, SpanCount, Stats
from batchflow.errors import LedgerError
from batchflow.io.stores import Place, Uri, store_of

if TYPE_CHECKING:
    import pyarrow as pa


_TAIL = len(',"chain":""}') + LINK


def read_ledger(meta: Place, inputs: Mapping[str, InputFile] | None = None) -> History:
    """Parse and verify the ledger in a folder.

    Parameters
    ----------
    inputs
        By their identity; one that is not there has no size.

    Raises
    ------
    LedgerError
        If a line was changed, or the file cannot be read.
    """
    history = History()
    reader = _Reader(history, meta / "pieces", inputs or {})
    try:
        with _opened(meta) as file:
            for number, line in enumerate(whole_lines(file), start=1):
                text = _checked(line, history.link, f"{meta / LEDGER}, line {number}")
                reader.take(json.loads(text))
                history.link = link_of(history.link, text)
                history.size += len(line)
    except OSError as error:
        message = f"cannot read {meta / LEDGER}: {error}"
        raise LedgerError(message) from error
    if not history.plans:
        message = f"{meta / LEDGER} has not one whole line: it was emptied, or overwritten"
        raise LedgerError(message)
    return history


def _opened(meta: Place) -> IO[bytes]:
    """Return a stream of all lines."""
    if not isinstance(meta, Uri):
        return (meta / LEDGER).open("rb")
    data = read_all(meta)
    if not data:
        raise FileNotFoundError(str(meta / LEDGER))
    return io.BytesIO(data)


def is_begun(meta: Place) -> bool:
    """Whether a run has begun in a folder; a run that died earlier left no whole line."""
    if isinstance(meta, Uri):
        return has_ledger(meta)
    try:
        with _opened(meta) as file:
            return next(whole_lines(file), None) is not None
    except OSError:
        return False


def has_ledger(meta: Place) -> bool:
    """Whether a folder has a ledger, valid or not."""
    store = store_of(meta)
    return store.size(meta / LEDGER) is not None or (isinstance(meta, Uri) and bool(store.sizes(meta / FOLDER)))


def ledger_size(meta: Place) -> int:
    """Return the bytes of a ledger, including those after its last whole line."""
    with _opened(meta) as file:
        return file.seek(0, io.SEEK_END)


def whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield lines up to one that a crash cut off: it has no end, or blocks of zeros."""
    for line in file:
        if not line.endswith(b"\n") or b"\0" in line:
            return
        yield line


def _checked(line: bytes, before: str, place: str) -> str:
    """Return a line without its hash, if it matches the lines before it."""
    text = line[: -_TAIL - 1].decode("utf-8", "replace") + "}"
    link = line[-LINK - 3 : -3].decode("utf-8", "replace")
    if link != link_of(before, text):
        message = f"{place}: was changed after it was written, or a line before it was"
        raise LedgerError(message)
    return text


class _Reader:
    """Parser that adds ledger lines to a history."""

    def __init__(self, history: History, pieces: Place, inputs: Mapping[str, InputFile]) -> None:
        self._history = history
        self._pieces = pieces
        self._inputs = inputs

    def take(self, line: dict[str, Any]) -> None:
        """Add one line; its first key is its type."""
        ended, self._history.ended = self._history.ended, False
        kind = next(iter(line))
        if kind == "run":
            self._run(line, ended=ended)
            return
        takers = {
            "chunk": self._take_chunk,
            "part": self._take_part,
            "schema": self._take_schema,
            "void": self._take_void,
            "together": self._take_together,
            "end": self._take_end,
        }
        if kind not in takers:
            message = f"the ledger has a line {kind!r}, which this version of batchflow does not know"
            raise LedgerError(message)
        takers[kind](line)

    def _run(self, line: dict[str, Any], *, ended: bool) -> None:
        self._history.plans.append(line["plan"])
        self._history.mends = "mends" in line
        self._history.ended = ended and self._history.mends

    def _take_chunk(self, line: dict[str, Any]) -> None:
        self._history.chunks[line["chunk"]] = self._chunk(line)

    def _take_part(self, line: dict[str, Any]) -> None:
        self._history.parts[line["part"]] = DonePart(
            line["part"],
            line["rows"],
            line["bytes"],
            line["digest"],
            self._history.schemas[line["schema"]],
            tuple((number, rows) for number, rows in line["chunks"]),
            line["temporary"],
        )

    def _take_schema(self, line: dict[str, Any]) -> None:
        self._history.schemas.append(_schema_from(line["arrow"]))

    def _take_void(self, line: dict[str, Any]) -> None:
        self._history.void(line["void"])

    def _take_together(self, line: dict[str, Any]) -> None:
        for one in line["together"]:
            self.take(one)

    def _take_end(self, line: dict[str, Any]) -> None:
        history = self._history
        history.ended, history.errors = True, line["errors"]
        spans = (span for done in history.chunks.values() for span in done.chunk.spans)
        # How many records a generator would give, no run can know.
        history.complete = {span.input.identity for span in spans if span.input.size >= 0}

    def _chunk(self, line: dict[str, Any]) -> DoneChunk:
        ranges = line["ranges"]
        inputs = [self._inputs.get(place) or InputFile(place) for place, *_ in ranges]
        spans = tuple(Span(item, start, stop) for item, (_, start, stop, *_) in zip(inputs, ranges, strict=True))
        names = {item.identity: item.uri for item in inputs}
        counts = tuple(SpanCount(names[place], *counted) for place, _, _, *counted in ranges if counted)
        stats = Stats(line["worker"], seconds=line["seconds"], spans=counts)
        pieces = tuple(
            Piece(name and str(self._pieces / name), rows, size, self._history.schemas[schema], digest)
            for name, rows, size, digest, schema in line["pieces"]
        )
        chunk = Chunk(spans, line["weight"], line.get("skip", 0), line.get("take"), line.get("of"))
        failures = _failures(line["errors"], names)
        return DoneChunk(chunk, stats, failures, pieces, line.get("counted", True))


def _failures(stored: Any, names: Mapping[str, str]) -> Sequence[Failure]:
    """Return the failures of a chunk.

    Parameters
    ----------
    names
        URI of each input, by its identity.
    """
    if not stored:
        return ()
    if isinstance(stored, list):
        columns = list(zip(*stored, strict=True))
    else:
        import msgspec  # only if much has failed
        import pyarrow as pa

        data = pa.decompress(
            base64.b64decode(stored["zstd"]), decompressed_size=stored["bytes"], codec="zstd", asbytes=True
        )
        try:
            columns = msgspec.json.decode(data)
        except msgspec.DecodeError:  # half of a surrogate pair
            columns = json.loads(data)
        columns = [cells * stored["count"] if len(cells) == 1 else cells for cells in columns]
    return Failures([[names.get(place, place) for place in columns[0]], *columns[1:]])


def _schema_from(text: str) -> pa.Schema:
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


FOLDER = "ledger"
"""Folder of the segments, next to the whole ledger."""
_THREADS = 16
"""Segments read concurrently."""
_LOOKS = 3
"""Maximum attempts to read lines that a run is merging."""
_NAME = re.compile(r"(\d{15})\.log")


def read_all(meta: Uri) -> bytes:
    """Return all lines.

    Raises
    ------
    LedgerError
        If some in their midst are gone.
    """
    for _ in range(_LOOKS):
        try:
            found = _look(meta)
        except FileNotFoundError:
            continue  # a run has just made one object of them
        if found is not None:
            return found
    message = f"lines of {meta / LEDGER} are gone: a segment of it in {meta / 'ledger'} was removed"
    raise LedgerError(message)


def _look(meta: Uri) -> bytes | None:
    """Return all lines, or ``None`` if some are missing."""
    store = store_of(meta)
    names = map(_NAME.fullmatch, store.sizes(meta / FOLDER))  # before what they may just become part of
    starts = sorted(int(name[1]) for name in names if name)
    data = store.read(meta / LEDGER) if store.size(meta / LEDGER) is not None else b""
    starts = [start for start in starts if start >= len(data)]
    with ThreadPoolExecutor(_THREADS) as pool:
        segments = list(pool.map(lambda start: store.read(segment(meta, start)), starts))
    ends = [len(data)]
    for lines in segments:
        ends.append(ends[-1] + len(lines))
    return b"".join([data, *segments]) if starts == ends[:-1] else None


def segment(meta: Uri, start: int) -> Uri:
    """Return the name of the segment that starts at a byte offset."""
    return meta / FOLDER / f"{start:015d}.log"
