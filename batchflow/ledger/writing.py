"""Writes a ledger: each line linked to the one before, all of them synced before long."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from batchflow.errors import DestinationError
from batchflow.ledger.history import LEDGER, DoneChunk, DonePart, History, link_of
from batchflow.ledger.reading import whole_lines
from batchflow.model import Piece

SYNC_SECONDS = 0.5
"""How often what was written down is synced to disk, at least; a part always is before it is visible."""


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
            more = next(whole_lines(file), None)
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
            self._link = link_of(self._link, text)
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
