"""The part of a chunk that is left of it when it was halved: some records of its span, found by counting."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from batchflow.core.chunks import Chunk
from batchflow.core.outcomes import Failure

if TYPE_CHECKING:
    from batchflow.io.sources.base import Block


class InputChangedError(RuntimeError):
    """An input has other records than when its chunk was halved; the cause, if any, says what has become of it."""


def select(block: Block, only: tuple[int, ...], done: int) -> Block | None:
    """Return the selected records of a block, known by their indices; ``None`` if there are none.

    Parameters
    ----------
    only
        Numbers of the selected records, in order.
    done
        Numbers of the blocks before, which end there.
    """
    first, last = bisect_left(only, done), bisect_left(only, block.end)
    if block.error is not None:  # what could not be read: all that is left
        if first == len(only):
            return None
        failures = [bad._replace(record=first) for bad in block.failures[-1:]]
        return block._replace(failures=failures, end=first + 1)
    if first == last:
        return None
    places = dict(zip(block.numbers, range(len(block.numbers)), strict=True))
    found = [(index, places[only[index]]) for index in range(first, last) if only[index] in places]
    wanted = dict(zip(only[first:last], range(first, last), strict=True))
    return block._replace(
        rows=_picked(block.rows, [at for _, at in found]),
        numbers=[index for index, _ in found],
        end=last,
        locate=lambda index: block.locate(only[index]),
        failures=[bad._replace(record=wanted[bad.record]) for bad in block.failures if bad.record in wanted],
    )


def _picked(rows: Any, kept: list[int]) -> Any:
    """Return some of the records of a block, as what they are in."""
    if not kept or kept[-1] - kept[0] + 1 == len(kept):
        return rows[kept[0] : kept[-1] + 1] if kept else rows[:0]
    if hasattr(rows, "pick"):
        return rows.pick(kept)
    return rows.take(kept) if hasattr(rows, "take") else [rows[at] for at in kept]


def restrict_to_window(blocks: Iterator[Block], chunk: Chunk) -> Iterator[Block]:
    """Keep the records of a halved chunk, counting numbers anew from the first one kept.

    Raises
    ------
    InputChangedError
        If the input was seen to have other numbers than before.
    """
    if chunk.skip == 0 and chunk.take is None:
        yield from blocks
        return
    first = chunk.skip
    last = sys.maxsize if chunk.take is None else first + chunk.take
    block: Block | None = None
    for block in blocks:
        if block.error is not None and block.end <= first:
            raise InputChangedError from block.error
        yield _kept(block, first, last)
        if block.end >= last:
            break
    end = 0 if block is None else block.end
    whole = block is not None and block.error is not None  # its failure tells of the rest
    short = end < last and not whole
    more = last == chunk.of and (end > last or next(blocks, None) is not None)
    if chunk.of is not None and (short or more):
        message = "the input changed while it was read: it has other records than when its chunk was halved"
        raise InputChangedError(message)


def _kept(block: Block, first: int, last: int) -> Block:
    """Return the part of a block with the numbers from ``first`` up to ``last``."""
    high = min(block.end, last)
    kept = [at for at, number in enumerate(block.numbers) if first <= number < high]
    begin, stop = (kept[0], kept[-1] + 1) if kept else (0, 0)
    return block._replace(
        rows=block.rows[begin:stop],
        numbers=[number - first for number in block.numbers[begin:stop]],
        end=max(0, high - first),
        locate=lambda number: block.locate(number + first),
        failures=[_moved(bad, first) for bad in block.failures if first <= (bad.record or 0) < high],
    )


def _moved(failure: Failure, first: int) -> Failure:
    return failure._replace(record=(failure.record or 0) - first)
