"""The part of a chunk that is left of it when it was halved: some of its records, counted through all spans."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchflow.model import Chunk, Failure, Span

if TYPE_CHECKING:
    from batchflow.sources.base import Block


class AstrayError(Exception):
    """A halved chunk broke off where it could be read before, so which records are its own is not known any more.

    The cause says why it broke off.
    """


def narrow(blocks: Iterator[Block], chunk: Chunk) -> Iterator[Block]:
    """Keep the records of a halved chunk, counting numbers anew from the first one kept of each span.

    Raises
    ------
    AstrayError
        If they cannot be told, since not all that is before them could be read.
    """
    if chunk.skip == 0 and chunk.take is None:
        yield from blocks
        return
    window = _Window(chunk.skip, sys.maxsize if chunk.take is None else chunk.skip + chunk.take)
    for block in _steady(blocks, chunk):
        yield window.keep(block)
        if window.passed:
            return


def _steady(blocks: Iterator[Block], chunk: Chunk) -> Iterator[Block]:
    """Yield blocks as long as they have the numbers that they had when the chunk was halved."""
    ends: dict[int, int] = {}
    for block in blocks:
        ends[id(block.span)] = block.end
        if block.error is None:
            yield block
            continue
        rest = list(blocks)
        ends.update((id(later.span), later.end) for later in rest)
        alone = len(chunk.spans) == 1
        if block.end <= chunk.skip if alone else sum(ends.values()) != chunk.of:
            raise AstrayError from block.error
        yield block
        yield from rest


@dataclass(slots=True)
class _Window:
    """Numbers ``first`` to ``last`` of a chunk, counted through all of its spans."""

    first: int
    last: int
    span: Span | None = None
    base: int = 0
    """Numbers used up by the spans before."""
    used: int = 0
    """Numbers used up in this span."""

    @property
    def passed(self) -> bool:
        """Whether all numbers of the window have been seen."""
        return self.base + self.used >= self.last

    def keep(self, block: Block) -> Block:
        """Return the part of a block inside the window."""
        if block.span is not self.span:
            self.base, self.span = self.base + self.used, block.span
        self.used = block.end
        low, high = max(0, self.first - self.base), min(block.end, self.last - self.base)
        kept = [at for at, number in enumerate(block.numbers) if low <= number < high]
        begin, stop = (kept[0], kept[-1] + 1) if kept else (0, 0)
        return replace(
            block,
            rows=block.rows[begin:stop],
            numbers=[number - low for number in block.numbers[begin:stop]],
            end=max(0, high - low),
            locate=lambda number: block.locate(number + low),
            failures=[_moved(bad, low) for bad in block.failures if low <= (bad.record or 0) < high],
        )


def _moved(failure: Failure, low: int) -> Failure:
    return failure._replace(record=(failure.record or 0) - low)
