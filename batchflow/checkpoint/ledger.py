"""Writer of a ledger: hash-chained lines, synced in the background."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from batchflow.checkpoint.file_journal import FileJournal, Journal, refuse_locked
from batchflow.checkpoint.history import DoneChunk, DonePart, History, link_of
from batchflow.core.chunks import Piece
from batchflow.core.outcomes import Failure, Failures
from batchflow.io.stores import Place

_MANY = 100
"""Failures per chunk from which they are stored by column and compressed."""


def refuse_busy(meta: Place) -> None:
    """Raise `DestinationError` if a run is writing to an output at this moment; of a store nobody can tell."""
    if isinstance(meta, Path):
        refuse_locked(meta)


def _journal(meta: Place, history: History) -> Journal:
    if isinstance(meta, Path):
        return FileJournal(meta, history)
    from batchflow.checkpoint.object_journal import ObjectJournal  # who writes to a disk needs it never

    return ObjectJournal(meta, history)


class Ledger:
    """Ledger of an output, open exclusively for one run.

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

    def __init__(self, meta: Place, history: History) -> None:
        self._journal = _journal(meta, history)
        self._link = history.link
        self._schemas = list(history.schemas)
        self._chunks = max(history.chunks, default=-1) + 1

    def run(self, plan: str, version: str | None, *, mends: bool = False) -> None:
        """Write down that a run begins, with the digest of its plan.

        Parameters
        ----------
        mends
            It tries only what failed: as long as it changes nothing, all that is done stays done.
        """
        mark = {"mends": True} if mends else {}
        self._write([{"run": True, "plan": plan, "version": version, **mark, **self._journal.marks}])
        self.sync()

    def number(self) -> int:
        """Return a new chunk number."""
        self._chunks += 1
        return self._chunks - 1

    def chunk(self, number: int, done: DoneChunk) -> None:
        """Record a chunk; its files are synced in the background."""
        self._write(self._chunk_lines(number, done))
        self._journal.soon([piece.path for piece in done.pieces if piece.path])

    def void(self, numbers: Iterable[int]) -> None:
        """Record that chunks are void, since their rows are gone."""
        self._write([{"void": sorted(numbers)}])
        self.sync()

    def sync_pieces(self, pieces: Iterable[Piece]) -> None:
        """Block until pieces are on disk."""
        self._journal.sync_pieces(piece.path for piece in pieces)

    def parts(self, parts: Iterable[DonePart], chunks: Mapping[int, DoneChunk] | None = None) -> None:
        """Record whole parts, and the chunks that they change, atomically and durably."""
        changed = [line for number, done in (chunks or {}).items() for line in self._chunk_lines(number, done)]
        lines = [*changed, *(line for part in parts for line in self._part_lines(part))]
        self._write([{"together": lines}] if chunks else lines)  # of one line, all counts or nothing
        self.sync()

    def _part_lines(self, part: DonePart) -> Iterator[dict[str, Any]]:
        yield from self._new_schemas([part.schema])
        yield {
            "part": part.name,
            "rows": part.rows,
            "bytes": part.nbytes,
            "digest": part.digest,
            "schema": self._schema_number(part.schema),
            "chunks": part.chunks,
            "temporary": part.temporary,
        }

    def end(self, errors: str) -> None:
        """Record that all work is done."""
        self._write([{"end": True, "errors": errors}])
        self._journal.sync(ended=True)

    def _chunk_lines(self, number: int, done: DoneChunk) -> Iterator[dict[str, Any]]:
        yield from self._new_schemas([piece.schema for piece in done.pieces])
        counts = {count.uri: list(count[1:]) for count in done.stats.spans}
        chunk = done.chunk
        places = {span.input.uri: span.input.place for span in chunk.spans if span.input.place}
        window = {} if chunk.of is None else {"skip": chunk.skip, "take": chunk.take, "of": chunk.of}
        yield {
            "chunk": number,
            "ranges": [
                [span.input.identity, span.start, span.stop, *counts.get(span.input.uri, [])]
                for span in chunk.spans
            ],
            **window,
            **({} if done.counted else {"counted": False}),
            "weight": chunk.weight,
            "worker": done.stats.worker,
            "seconds": round(done.stats.seconds, 6),
            "pieces": [
                [piece.name, piece.rows, piece.nbytes, piece.digest, self._schema_number(piece.schema)]
                for piece in done.pieces
            ],
            "errors": _stored(done.failures, places),
        }

    def _new_schemas(self, schemas: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Yield a line for each schema that has no number yet."""
        for schema in schemas:
            if not any(schema.equals(known, check_metadata=True) for known in self._schemas):
                self._schemas.append(schema)
                text = base64.b64encode(schema.serialize()).decode()
                yield {"schema": len(self._schemas) - 1, "arrow": text}

    def _schema_number(self, schema: Any) -> int:
        return next(at for at, known in enumerate(self._schemas) if schema.equals(known, check_metadata=True))

    def _write(self, lines: Iterable[dict[str, Any]]) -> None:
        """Append lines in one write, each chained to the one before."""
        written = []
        for line in lines:
            text = _json(line)
            self._link = link_of(self._link, text)
            written.append(f'{text[:-1]},"chain":"{self._link}"}}\n')
        self._journal.write("".join(written).encode())

    def sync(self) -> None:
        """Block until everything written so far is on disk."""
        self._journal.sync()

    def refuse_others(self) -> None:
        """Raise `DestinationError` if another run has taken over, which a lock rules out."""
        self._journal.refuse_others()

    def close(self) -> None:
        """Sync and release the ledger."""
        self._journal.close()


def _stored(failures: Sequence[Failure], places: Mapping[str, str]) -> list[Any] | dict[str, Any]:
    """Return the failures of a chunk as its line holds them: by row, or many by column and compressed.

    A column of which all values are equal has one value.

    Parameters
    ----------
    places
        What stands for a source, by its URI.
    """
    if not failures:
        return []
    columns = Failures.of(failures)
    columns = columns.replace(source=[places.get(uri, uri) for uri in columns.column("source")])
    if len(failures) < _MANY:
        return list(zip(*columns.columns, strict=True))
    import pyarrow as pa  # only if much has failed

    single = [cells[:1] if cells.count(cells[0]) == len(cells) else cells for cells in columns.columns]
    data = _encoded(single)
    packed = pa.compress(data, codec="zstd", asbytes=True)
    return {"count": len(failures), "bytes": len(data), "zstd": base64.b64encode(packed).decode()}


def _encoded(columns: Sequence[Sequence[Any]]) -> bytes:
    """Return columns as JSON; thousands of failures take a third of the time with msgspec."""
    import msgspec  # as above

    with suppress(UnicodeEncodeError, TypeError, OverflowError):  # half of a surrogate pair, say
        return msgspec.json.encode(columns, enc_hook=str)
    return _json(columns).encode()


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=str)
