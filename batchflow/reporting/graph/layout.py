"""Where the boxes of a layered drawing lie: order within ranks, then places; plain numbers, no picture.

An edge over several ranks gets a place in each rank between, so that lines keep clear of boxes. Such places are
shared by the edges out of one box, or into one, as the lanes of a road: a step that takes data from a hundred
ranks then costs a hundred places, and not thousands.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

_SWEEPS = 10
_PLACES = 4000  # beyond that lines run straight: a drawing that dense is not read line by line
_LANE = 14.0


class Edge(NamedTuple):
    """A line from one box to one of a higher rank."""

    source: int
    target: int
    data: bool = True
    critical: bool = False


class EdgePiece(NamedTuple):
    """The part of a line between two places; in most drawings those are of neighbouring ranks."""

    source: int
    target: int
    data: bool
    critical: bool


class Layout(NamedTuple):
    """Places by number: first those of the boxes, behind them those where lines pass a rank."""

    ranks: list[int]
    centres: list[float]
    """Across the ranks, from 0 on; a box reaches half a breadth to both sides."""
    pieces: list[EdgePiece]
    breadth: float
    """Of the whole drawing."""


_Links: TypeAlias = list[list[int]]


def lay_out(ranks: Sequence[int], edges: Sequence[Edge], breadth: float, gap: float) -> Layout:
    """Place boxes of a breadth, with a gap between those of a rank: few lines cross and most are straight."""
    places = list(ranks)
    pieces = _pieces(places, edges)
    back: _Links = [[] for _ in places]
    ahead: _Links = [[] for _ in places]
    for piece in pieces:
        back[piece.target].append(piece.source)
        ahead[piece.source].append(piece.target)
    rows = _ordered(places, back, ahead)
    sizes = [breadth + gap if place < len(ranks) else _LANE for place in range(len(places))]
    centres = _placed(rows, back, ahead, sizes, len(ranks))
    first = min((centre - size / 2 for centre, size in zip(centres, sizes, strict=True)), default=0.0) + gap / 2
    last = max((centre + size / 2 for centre, size in zip(centres, sizes, strict=True)), default=gap) - gap / 2
    return Layout(places, [centre - first for centre in centres], pieces, last - first)


# ---- Lines over several ranks


def _pieces(places: list[int], edges: Sequence[Edge]) -> list[EdgePiece]:
    """Cut edges at every rank they pass, adding a place for each; a piece that several share is one."""
    outs = Counter(edge.source for edge in edges if places[edge.target] - places[edge.source] > 1)
    ins = Counter(edge.target for edge in edges if places[edge.target] - places[edge.source] > 1)
    lanes: dict[tuple[bool, int, bool, int], int] = {}
    found: dict[tuple[int, int, bool], bool] = {}
    for edge in edges:
        out = outs[edge.source] >= ins[edge.target]
        way = [edge.source]
        for rank in range(places[edge.source] + 1, places[edge.target]):
            if len(lanes) >= _PLACES:
                break
            key = (out, edge.source if out else edge.target, edge.data, rank)
            if key not in lanes:
                lanes[key] = len(places)
                places.append(rank)
            way.append(lanes[key])
        for source, target in pairwise([*way, edge.target]):
            piece = (source, target, edge.data)
            found[piece] = found.get(piece, False) or edge.critical
    return [EdgePiece(*piece, critical) for piece, critical in found.items()]


# ---- Order within ranks


def _ordered(places: Sequence[int], back: _Links, ahead: _Links) -> _Links:
    """Return the places of each rank in an order with few crossings, by sweeps of barycentres."""
    rows: _Links = [[] for _ in range(max(places, default=-1) + 1)]
    for place, rank in enumerate(places):
        rows[rank].append(place)
    best, fewest = [list(row) for row in rows], _crossings(rows, ahead)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        for row in rows if sweep % 2 == 0 else reversed(rows):
            _by_barycentre(row, rows, back if sweep % 2 == 0 else ahead, places)
        crossings = _crossings(rows, ahead)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _by_barycentre(row: list[int], rows: _Links, links: _Links, places: Sequence[int]) -> None:
    """Sort a row by the mean place of those it is linked to; what has no link keeps its place."""
    spots: dict[int, float] = {}
    for rank in {places[link] for place in row for link in links[place]}:
        spots |= {place: (spot + 0.5) / len(rows[rank]) for spot, place in enumerate(rows[rank])}
    own = {place: (spot + 0.5) / len(row) for spot, place in enumerate(row)}
    row.sort(key=lambda place: _mean([spots[link] for link in links[place]], own[place]))


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _crossings(rows: _Links, ahead: _Links) -> int:
    """Count the crossings of lines that leave the same rank."""
    spot = {place: number for row in rows for number, place in enumerate(row)}
    crossings = 0
    for row in rows:
        seen: list[int] = []
        for place in row:
            ends = sorted(spot[target] for target in ahead[place])
            crossings += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return crossings


# ---- Places


def _placed(rows: _Links, back: _Links, ahead: _Links, sizes: Sequence[float], boxes: int) -> list[float]:
    """Return the centre of each place: as near to its neighbours' as the order and the sizes allow."""
    centres = [0.0] * len(sizes)
    for row in rows:
        at = -sum(sizes[place] for place in row) / 2
        for place in row:
            centres[place] = at + sizes[place] / 2
            at += sizes[place]
    both = [[*before, *behind] for before, behind in zip(back, ahead, strict=True)]
    for links, order in [(back, 1), (ahead, -1), (back, 1), (ahead, -1), (both, 1), (both, -1)]:
        for row in rows[::order]:
            _settle(row, links, centres, sizes, boxes)
    return centres


def _settle(row: Sequence[int], links: _Links, centres: list[float], sizes: Sequence[float], boxes: int) -> None:
    """Move a row as near as can be to where it is pulled, by the least squares that keep its distances.

    Without the distances that each place needs what is left is a row that must not fall: neighbours that would
    are pooled at their mean, which is the exact answer (isotonic regression).
    """
    offset = 0.0
    offsets: list[float] = []
    pools: list[tuple[float, float, int]] = []  # weight, weighted sum, number of places
    for number, place in enumerate(row):
        offset += (sizes[row[number - 1]] + sizes[place]) / 2 if number else 0.0
        offsets.append(offset)
        weight, wanted = _pull(place, links[place], centres, boxes)
        pool = (weight, weight * (wanted - offset), 1)
        while pools and pools[-1][1] * pool[0] >= pool[1] * pools[-1][0]:
            last = pools.pop()
            pool = (last[0] + pool[0], last[1] + pool[1], last[2] + pool[2])
        pools.append(pool)
    bases = (total / weight for weight, total, count in pools for _ in range(count))
    for place, base, offset in zip(row, bases, offsets, strict=True):
        centres[place] = base + offset


def _pull(place: int, links: Iterable[int], centres: Sequence[float], boxes: int) -> tuple[float, float]:
    """Return how strongly a place is pulled and where to; lines pull harder, so that long ones are straight."""
    total = weight = 0.0
    for link in links:
        own = 1.0 + (place >= boxes) + (link >= boxes) + 6 * (place >= boxes and link >= boxes)
        weight += own
        total += own * centres[link]
    return (weight, total / weight) if weight else (0.1, centres[place])
