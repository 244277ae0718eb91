"""Recovery of an output folder to the state of its ledger after an interrupted run."""

from __future__ import annotations

from collections.abc import Sequence

from batchflow.checkpoint.destination import Destination
from batchflow.checkpoint.history import DoneChunk, DonePart, History
from batchflow.core.chunks import InputFile, Key, Piece
from batchflow.core.coverage import key_of
from batchflow.errors import LedgerError
from batchflow.io.stores import Place, Uri


def part_file(destination: Destination, name: str) -> Place:
    """Return the path of a part."""
    return destination.path if destination.one_file else destination.path / name


def publish(destination: Destination, part: DonePart) -> None:
    """Rename a recorded part to its final name; durable when this returns."""
    destination.store.move(destination.pieces / part.temporary, part_file(destination, part.name))


def recover(destination: Destination, history: History) -> dict[int, DoneChunk]:
    """Complete recorded renames, remove leftovers, and return the finished chunks.

    Raises
    ------
    LedgerError
        If a part is not what it was when it was written.
    """
    there = destination.store.sizes(destination.pieces)
    for part in history.parts.values():
        if part.temporary in there:  # it was written down, and not yet renamed
            publish(destination, part)
            del there[part.temporary]
    check_parts(destination, history)
    done, wanted = {}, set()
    committed = history.committed()
    for number, chunk in history.chunks.items():
        waiting = behind(chunk.pieces, committed.get(number, 0))
        if all(_is_whole(piece, destination, there) for piece in waiting):
            done[number] = chunk
            wanted |= {piece.name for piece in waiting}
        elif number in committed:
            message = f"rows that belong behind those in the last part of {destination.path} are gone: {_ANEW}"
            raise LedgerError(message)
    destination.store.remove(destination.pieces / name for name in there if name not in wanted)
    return done


def behind(pieces: Sequence[Piece], rows: int) -> list[Piece]:
    """Return the pieces of a chunk after its first rows, which are in parts."""
    left = []
    for piece in pieces:
        if rows <= 0 or not piece.rows:
            left.append(piece)
        rows -= piece.rows
    return left


_ANEW = "fresh=True (--fresh) makes all of it again"


def check_parts(destination: Destination, history: History) -> None:
    """Raise `LedgerError` if a part is missing or its size has changed."""
    sizes = part_sizes(destination)
    for part in history.parts.values():
        _check_size(destination, part, sizes.get(part.name))


def part_sizes(destination: Destination) -> dict[str, int | None]:
    """Return the sizes of all files that a reader of the output would see, by name."""
    path = destination.path
    if destination.one_file:
        size = destination.store.size(path)
        return {} if size is None else {path.name: size}
    return destination.store.sizes(path)


def _check_size(destination: Destination, part: DonePart, size: int | None) -> None:
    file = part_file(destination, part.name)
    if size != part.nbytes:
        found = "is gone" if size is None else f"has {size:,} bytes and not {part.nbytes:,}"
        message = (
            f"{file} {found}, so this output cannot be gone on with: `batchflow verify` tells what else is wrong, "
            f"{_ANEW}"
        )
        raise LedgerError(message)


def _is_whole(piece: Piece, destination: Destination, there: dict[str, int | None]) -> bool:
    """Whether a piece is intact: on a disk it may have its size and not its bytes."""
    if not piece.path:
        return True  # it has no rows
    if there.get(piece.name) != piece.nbytes:
        return False
    file = destination.pieces / piece.name
    return isinstance(file, Uri) or destination.store.digest(file) == piece.digest  # who fetches an object looks


def in_order(done: dict[int, DoneChunk], inputs: tuple[InputFile, ...]) -> list[tuple[Key, int, DoneChunk]]:
    """Return chunks in input order, each with its key and its number in the ledger."""
    places = {item.identity: at for at, item in enumerate(inputs)}
    keyed = [
        (key_of(one.chunk, places[one.chunk.spans[0].input.identity]), number, one) for number, one in done.items()
    ]
    return sorted(keyed, key=lambda item: item[0])
