"""Brings the folder of an output back to what its ledger says, after a run that did not come to its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from batchflow.coverage import key_of
from batchflow.errors import LedgerError
from batchflow.formats import digest
from batchflow.ledger import DoneChunk, DonePart, History
from batchflow.manifest import sync_folder
from batchflow.model import Input, Key, Piece
from batchflow.plan import Destination


def part_file(destination: Destination, name: str) -> Path:
    """Return where a part stands."""
    return destination.path if destination.one_file else destination.path / name


def publish(destination: Destination, part: DonePart) -> None:
    """Give a part that is written down its final name; on disk when this returns."""
    final = part_file(destination, part.name)
    (destination.pieces / part.temporary).replace(final)
    sync_folder(final.parent)


def recover(destination: Destination, history: History) -> dict[int, DoneChunk]:
    """Finish what a run had begun, remove what it left behind, and return the chunks that are done.

    Raises
    ------
    LedgerError
        If a part is not what it was when it was written.
    """
    for part in history.parts.values():
        if (destination.pieces / part.temporary).exists():  # it was written down, and not yet renamed
            publish(destination, part)
    check_parts(destination, history)
    done, wanted = {}, set()
    committed = history.committed()
    for number, chunk in history.chunks.items():
        waiting = behind(chunk.pieces, committed.get(number, 0))
        if all(map(_is_whole, waiting)):
            done[number] = chunk
            wanted |= {piece.path for piece in waiting}
        elif number in committed:
            message = f"rows that belong behind those in the last part of {destination.path} are gone: {_ANEW}"
            raise LedgerError(message)
    for left in destination.pieces.iterdir():
        if str(left) not in wanted:
            left.unlink()
    return done


def behind(pieces: Sequence[Piece], rows: int) -> list[Piece]:
    """Return the pieces of a chunk behind so many of its rows, which are in parts."""
    left = []
    for piece in pieces:
        if rows <= 0 or not piece.rows:
            left.append(piece)
        rows -= piece.rows
    return left


_ANEW = "fresh=True (--fresh) makes all of it again"


def check_parts(destination: Destination, history: History) -> None:
    """Raise `LedgerError` if a part is gone or of another size than it was when it was written."""
    for part in history.parts.values():
        _check_size(destination, part)


def _check_size(destination: Destination, part: DonePart) -> None:
    file = part_file(destination, part.name)
    size = file.stat().st_size if file.exists() else None
    if size != part.nbytes:
        found = "is gone" if size is None else f"has {size:,} bytes and not {part.nbytes:,}"
        message = (
            f"{file} {found}, so this output cannot be gone on with: `batchflow verify` tells what else is wrong, "
            f"{_ANEW}"
        )
        raise LedgerError(message)


def _is_whole(piece: Piece) -> bool:
    path = piece.path
    if not path:
        return True  # it has no rows
    try:
        return Path(path).stat().st_size == piece.nbytes and digest(path) == piece.digest
    except OSError:
        return False


def in_order(done: dict[int, DoneChunk], inputs: tuple[Input, ...]) -> list[tuple[Key, int, DoneChunk]]:
    """Return chunks in input order, each with its key and its number in the ledger."""
    places = {item.uri: at for at, item in enumerate(inputs)}
    keyed = [
        (key_of(one.chunk, places[one.chunk.spans[0].input.uri]), number, one) for number, one in done.items()
    ]
    return sorted(keyed, key=lambda item: item[0])
