"""What is done of an output, line after line; each line vouches for all lines before it.

::

    {"run": 1, "plan": digest of plan.json, ...}                     a run began
    {"schema": 0, "arrow": base64}                                   columns and types, by number
    {"chunk": 0, "ranges": [...], "pieces": [...], "errors": [...]}  a chunk is done; its rows are in pieces
    {"part": "part-00000.parquet", "chunks": [[0, 25], ...], ...}    its rows are, or are about to be, in a part
    {"void": [0]}                                                    these are not done after all: their rows are gone
    {"together": [...]}                                              parts and chunks that change at one stroke
    {"end": true, "errors": digest of errors.parquet}                everything is done

A later line for the same chunk or part takes the place of the earlier one. A part is written down
once it is whole under its temporary name, and gets its final name afterwards: whatever dies between
the two, the next run does the renaming. Of a line that was half written when the machine stopped
nothing is taken; a line that was changed is found, since no later one goes with it.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from batchflow.errors import DestinationError, LedgerError
from batchflow.model import Chunk, Failure, Input, Piece, Span, SpanCount, Stats

if TYPE_CHECKING:
    import pyarrow as pa

LEDGER = "ledger.jsonl"
SYNC_SECONDS = 0.5
"""How often what was written down is synced to disk, at least; a part always is before it is visible."""
_LINK = 16
"""Digits of a line that vouch for it and those before."""
_TAIL = len(',"chain":""}') + _LINK


class DoneChunk(NamedTuple):
    """A chunk that came to its end."""

    chunk: Chunk
    stats: Stats
    failures: tuple[Failure, ...]
    """Numbered within their spans."""
    pieces: tuple[Piece, ...]
    counted: bool = True
    """Whether it is known how many records it has."""


class DonePart(NamedTuple):
    """A part of the output."""

    name: str
    rows: int
    nbytes: int
    digest: str
    schema: Any
    """Its `pyarrow.Schema`."""
    chunks: tuple[tuple[int, int], ...]
    """Numbers of the chunks whose rows it holds, in input order, and how many rows of each."""
    temporary: str
    """Name, in the folder of pieces, that it has before it is visible."""


@dataclass
class History:
    """All that a ledger says."""

    chunks: dict[int, DoneChunk] = field(default_factory=dict)
    parts: dict[str, DonePart] = field(default_factory=dict)
    """By name, in the order of their numbers."""
    plans: list[str] = field(default_factory=list)
    """Digests of the plans of all runs."""
    schemas: list[Any] = field(default_factory=list)
    ended: bool = False
    """Whether everything that was planned is done."""
    errors: str = ""
    """Digest of the error table, once all is done."""
    mends: bool = False
    """Whether the last run was one that tried again what had failed, after everything was done."""
    link: str = ""
    size: int = 0
    """Bytes of the whole lines."""

    def committed(self) -> dict[int, int]:
        """Return how many rows of each chunk are in parts."""
        rows: dict[int, int] = {}
        for part in self.parts.values():
            for number, count in part.chunks:
                rows[number] = rows.get(number, 0) + count
        return rows


def refuse_busy(meta: Path) -> None:
    """Raise `DestinationError` if a run is writing to an output at this moment."""
    with suppress(FileNotFoundError):
        file = os.open(meta / LEDGER, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _lock(file, meta)
        finally:
            os.close(file)


def _lock(file: int, meta: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        message = f"another run is writing to {meta.parent}: wait for its end, or write elsewhere"
        raise DestinationError(message) from error


# --- reading --------------------------------------------------------------------------------------


def read_ledger(meta: Path, inputs: Mapping[str, Input] | None = None) -> History:
    """Return what the ledger in a folder says.

    Parameters
    ----------
    inputs
        By name; one that is not there has no size.

    Raises
    ------
    LedgerError
        If a line was changed, or the file cannot be read.
    """
    history = History()
    reader = _Reader(history, meta / "pieces", inputs or {})
    try:
        with (meta / LEDGER).open("rb") as file:
            for number, line in enumerate(_whole_lines(file), start=1):
                text = _checked(line, history.link, f"{meta / LEDGER}, line {number}")
                reader.take(json.loads(text))
                history.link = _link(history.link, text)
                history.size += len(line)
    except OSError as error:
        message = f"cannot read {meta / LEDGER}: {error}"
        raise LedgerError(message) from error
    if not history.plans:
        message = f"{meta / LEDGER} has not one whole line: it was emptied, or overwritten"
        raise LedgerError(message)
    return history


def is_begun(meta: Path) -> bool:
    """Whether a run has begun in a folder: what died before left a ledger without a whole line, or none."""
    try:
        with (meta / LEDGER).open("rb") as file:
            return next(_whole_lines(file), None) is not None
    except OSError:
        return False


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield lines up to one that a crash cut off: it has no end, or blocks of zeros that never were written."""
    for line in file:
        if not line.endswith(b"\n") or b"\0" in line:
            return
        yield line


def _checked(line: bytes, before: str, place: str) -> str:
    """Return a line without its link, if it goes with the lines before it."""
    text = line[: -_TAIL - 1].decode("utf-8", "replace") + "}"
    link = line[-_LINK - 3 : -3].decode("utf-8", "replace")
    if link != _link(before, text):
        message = f"{place}: was changed after it was written, or a line before it was"
        raise LedgerError(message)
    return text


def _link(before: str, text: str) -> str:
    return hashlib.sha256(f"{before}{text}".encode()).hexdigest()[:_LINK]


class _Reader:
    """Adds line after line to a history."""

    def __init__(self, history: History, pieces: Path, inputs: Mapping[str, Input]) -> None:
        self._history = history
        self._pieces = pieces
        self._inputs = inputs

    def take(self, line: dict[str, Any]) -> None:
        history = self._history
        ended, history.ended = history.ended, False
        if "together" in line:
            for one in line["together"]:
                self.take(one)
        elif "chunk" in line:
            history.chunks[line["chunk"]] = self._chunk(line)
        elif "part" in line:
            history.parts[line["part"]] = DonePart(
                line["part"], line["rows"], line["bytes"], line["digest"], history.schemas[line["schema"]],
                tuple((number, rows) for number, rows in line["chunks"]), line["temporary"],
            )  # fmt: skip
        elif "void" in line:
            for number in line["void"]:
                del history.chunks[number]
        elif "schema" in line:
            history.schemas.append(_schema_from(line["arrow"]))
        elif "run" in line:
            history.mends = "mends" in line
            history.ended = ended and history.mends
            history.plans.append(line["plan"])
        else:
            history.ended, history.errors = True, line["errors"]

    def _chunk(self, line: dict[str, Any]) -> DoneChunk:
        ranges = line["ranges"]
        inputs = [self._inputs.get(uri) or Input(uri) for uri, *_ in ranges]
        spans = tuple(Span(item, start, stop) for item, (_, start, stop, *_) in zip(inputs, ranges, strict=True))
        counts = tuple(SpanCount(uri, *counted) for uri, _, _, *counted in ranges if counted)
        stats = Stats(line["worker"], seconds=line["seconds"], spans=counts)
        pieces = tuple(
            Piece(name and str(self._pieces / name), rows, size, self._history.schemas[schema], digest)
            for name, rows, size, digest, schema in line["pieces"]
        )
        chunk = Chunk(spans, line["weight"], line.get("skip", 0), line.get("take"), line.get("of"))
        failures = tuple(Failure(*failure) for failure in line["errors"])
        return DoneChunk(chunk, stats, failures, pieces, line.get("counted", True))


def _schema_from(text: str) -> pa.Schema:
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


# --- writing --------------------------------------------------------------------------------------


class Ledger:
    """The ledger of an output, open for one run; no other run can open it meanwhile.

    Parameters
    ----------
    meta
        Folder of what is not data.
    history
        What the ledger said when the job was planned.

    Raises
    ------
    DestinationError
        If another run has it open, or has gone on with it since.
    """

    def __init__(self, meta: Path, history: History) -> None:
        self._file = os.open(meta / LEDGER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(self._file, meta)
            self._check_tail(meta, history)
        except BaseException:
            os.close(self._file)
            raise
        self._link = history.link
        self._schemas = list(history.schemas)
        self._chunks = max(history.chunks, default=-1) + 1
        self._syncer = _Syncer(self._file)

    def _check_tail(self, meta: Path, history: History) -> None:
        """Cut off a line that was half written; refuse lines that came meanwhile."""
        with (meta / LEDGER).open("rb") as file:
            file.seek(history.size)
            more = next(_whole_lines(file), None)
        if more is not None:
            message = f"another run has gone on with {meta.parent} meanwhile: run this one again"
            raise DestinationError(message)
        os.ftruncate(self._file, history.size)
        os.lseek(self._file, history.size, os.SEEK_SET)

    def run(self, plan: str, version: str | None, *, mends: bool = False) -> None:
        """Write down that a run begins, with the digest of its plan.

        Parameters
        ----------
        mends
            It tries only what failed: as long as it changes nothing, all that is done stays done.
        """
        self._write([{"run": True, "plan": plan, "version": version, **({"mends": True} if mends else {})}])
        self.sync()

    def number(self) -> int:
        """Return the number of a new chunk."""
        self._chunks += 1
        return self._chunks - 1

    def chunk(self, number: int, done: DoneChunk) -> None:
        """Write down a chunk; what it left on disk is synced soon, by another thread."""
        self._syncer.check()
        self._write(self._chunk_lines(number, done))
        self._syncer.soon([piece.path for piece in done.pieces if piece.path])

    def void(self, numbers: Iterable[int]) -> None:
        """Write down that chunks are not done after all, since their rows are gone."""
        self._write([{"void": sorted(numbers)}])
        self.sync()

    def sync_pieces(self, pieces: Iterable[Piece]) -> None:
        """Return when pieces are on disk."""
        for piece in pieces:
            _sync_file(piece.path)

    def parts(self, parts: Iterable[DonePart], chunks: Mapping[int, DoneChunk] | None = None) -> None:
        """Write down parts that are whole, and chunks that they change, at one stroke; then it is on disk."""
        changed = [line for number, done in (chunks or {}).items() for line in self._chunk_lines(number, done)]
        lines = [*changed, *(line for part in parts for line in self._part_lines(part))]
        self._write([{"together": lines}] if chunks else lines)  # of one line, all counts or nothing
        self.sync()

    def _part_lines(self, part: DonePart) -> Iterator[dict[str, Any]]:
        yield from self._new_schemas([part.schema])
        yield {
            "part": part.name, "rows": part.rows, "bytes": part.nbytes, "digest": part.digest,
            "schema": self._schema_number(part.schema), "chunks": part.chunks, "temporary": part.temporary,
        }  # fmt: skip

    def end(self, errors: str) -> None:
        """Write down that everything is done."""
        self._write([{"end": True, "errors": errors}])
        self.sync()

    def _chunk_lines(self, number: int, done: DoneChunk) -> Iterator[dict[str, Any]]:
        yield from self._new_schemas([piece.schema for piece in done.pieces])
        counts = {count.uri: list(count[1:]) for count in done.stats.spans}
        chunk = done.chunk
        window = {} if chunk.of is None else {"skip": chunk.skip, "take": chunk.take, "of": chunk.of}
        yield {
            "chunk": number,
            "ranges": [
                [span.input.uri, span.start, span.stop, *counts.get(span.input.uri, [])] for span in chunk.spans
            ],
            **window,
            **({} if done.counted else {"counted": False}),
            "weight": chunk.weight,
            "worker": done.stats.worker,
            "seconds": round(done.stats.seconds, 6),
            "pieces": [
                [Path(piece.path).name, piece.rows, piece.nbytes, piece.digest, self._schema_number(piece.schema)]
                for piece in done.pieces
            ],
            "errors": [list(failure) for failure in done.failures],
        }  # fmt: skip

    def _new_schemas(self, schemas: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Yield a line for each schema that has none yet."""
        for schema in schemas:
            if not any(schema.equals(known, check_metadata=True) for known in self._schemas):
                self._schemas.append(schema)
                text = base64.b64encode(schema.serialize()).decode()
                yield {"schema": len(self._schemas) - 1, "arrow": text}

    def _schema_number(self, schema: Any) -> int:
        return next(at for at, known in enumerate(self._schemas) if schema.equals(known, check_metadata=True))

    def _write(self, lines: Iterable[dict[str, Any]]) -> None:
        """Append lines in one write, each linked to the one before."""
        written = []
        for line in lines:
            text = json.dumps(line, separators=(",", ":"), default=str)
            self._link = _link(self._link, text)
            written.append(f'{text[:-1]},"chain":"{self._link}"}}\n')
        data = "".join(written).encode()
        while data:
            data = data[os.write(self._file, data) :]

    def sync(self) -> None:
        """Return when everything written so far is on disk."""
        self._syncer.check()
        os.fsync(self._file)

    def close(self) -> None:
        """Sync and give the ledger free."""
        self._syncer.close()
        fcntl.flock(self._file, fcntl.LOCK_UN)  # a fork that the function left running may hold it too
        os.close(self._file)


class _Syncer:
    """A thread that syncs files, so that the loop of the job need not wait for the disk."""

    def __init__(self, ledger: int) -> None:
        self._ledger = ledger
        self._paths: list[str] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise what kept something from getting to disk: the kernel tells of it only once."""
        if self._error is not None:
            raise self._error

    def soon(self, paths: Iterable[str]) -> None:
        """Have files, and then the ledger, synced within `SYNC_SECONDS`, and what syncing itself takes."""
        with self._lock:
            self._paths.extend(paths)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="batchflow-sync", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        going = True
        while going:
            going = not self._ending.wait(SYNC_SECONDS)
            with self._lock:
                paths, self._paths = self._paths, []
            try:
                for path in paths:
                    _sync_file(path)
                os.fsync(self._ledger)
            except OSError as error:
                self._error = error

    def close(self) -> None:
        """Sync what is left and end the thread."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()


def _sync_file(path: str) -> None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # it is in a part by now
    try:
        os.fsync(file)
    finally:
        os.close(file)
