"""Steps that wait for each other, as a graph: what can run at once, what the time hangs on, what waits in vain.

::

    fetch north --+
    fetch south --+--> combine --+--> summarise        the ranks are 0, 1, 2; the longest chain has 3 steps
    parse (map) -----------------+--> bind

Nothing here runs anything: a node says what a step takes and, after a run, when it began and ended. All but
the search for implied waits takes time in proportion to the edges, and nothing recurs, so a chain of 100,000
steps is no more than a list.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

SHORT_SECONDS = 0.02
"""A step that takes less is one whose start and hand-over count: they take some milliseconds."""
_BLOCK = 4096  # marks looked for in one pass: bits of a number, 512 bytes for each node
_HABIT = 3  # that many steps with after= in a row: one such wait is a wish, a row of them is a habit


class GraphNode(NamedTuple):
    """One step of a flow, or one that ran."""

    name: str
    needs: tuple[int, ...] = ()
    """Earlier nodes whose data it takes, by index: so there is no cycle."""
    after: tuple[int, ...] = ()
    """Earlier nodes that it only waits for."""
    kind: str = "step"
    """``"step"``, or ``"map"``: a whole job, with many chunks."""
    outcome: str = ""
    """``""``, ``"succeeded"``, ``"failed"``, ``"skipped"``, ``"cancelled"`` or ``"cached"``."""
    start: float | None = None
    """Seconds since the flow began."""
    end: float | None = None
    why: str = ""
    """One line, of what failed or was skipped."""
    work: float | None = None
    """Seconds of work, summed over the tasks of a map; if not given, those from start to end."""

    @property
    def before(self) -> tuple[int, ...]:
        """What has to end before it starts, each once."""
        return tuple(dict.fromkeys(self.needs + self.after))

    @property
    def seconds(self) -> float:
        """What it took; nothing if it did not run."""
        return 0.0 if self.start is None or self.end is None else max(0.0, self.end - self.start)


class Implied(NamedTuple):
    """An ``after=`` that changes nothing."""

    waiter: int
    waited: int
    through: int
    """What the waiter waits for anyhow and what has itself waited; the same as ``waited`` if its data is taken."""


# ---- What can run at once, and what the time hangs on


def levels(nodes: Sequence[GraphNode]) -> list[int]:
    """Return the rank of each node: the number of steps in the longest chain before it."""
    ranks: list[int] = []
    for node in nodes:
        ranks.append(1 + max((ranks[index] for index in node.before), default=-1))
    return ranks


def widest(nodes: Sequence[GraphNode]) -> list[int]:
    """Return the largest set of nodes found that can all run at once.

    Those of one rank never wait for each other; ranks are counted from the start and from the end. There may
    be a larger set that is no rank: to find it takes a matching over all pairs, too dear for 10,000 steps.
    """
    late = _late(nodes)
    best: list[int] = []
    for ranks in (levels(nodes), late):
        if ranks:
            rank, _ = Counter(ranks).most_common(1)[0]
            best = max(best, [index for index, own in enumerate(ranks) if own == rank], key=len)
    return best


def _late(nodes: Sequence[GraphNode]) -> list[int]:
    """Return the rank of each node counted from the end."""
    ranks = [0] * len(nodes)
    for index in range(len(nodes) - 1, -1, -1):
        for before in nodes[index].before:
            ranks[before] = max(ranks[before], ranks[index] + 1)
    return ranks


def measured(nodes: Iterable[GraphNode]) -> bool:
    """Tell whether anything ran."""
    return any(node.seconds for node in nodes)


def critical_path(nodes: Sequence[GraphNode]) -> list[int]:
    """Return the longest path: by seconds after a run, by the number of steps before."""
    heads = _heads(nodes, _costs(nodes))
    if not nodes:
        return []
    path = [max(range(len(nodes)), key=heads.__getitem__)]
    while nodes[path[-1]].before:
        before = max(nodes[path[-1]].before, key=heads.__getitem__)
        if not heads[before]:
            break  # what took no time delayed nothing
        path.append(before)
    return path[::-1]


def gains(nodes: Sequence[GraphNode]) -> list[float]:
    """Return for each node how much shorter the longest path would be if that node took no time.

    A path that goes around a node ends before its index, begins behind it, or has an edge that spans it, since
    edges only go from lower to higher indices. So one sweep finds the longest for every node.
    """
    costs = _costs(nodes)
    heads, tails = _heads(nodes, costs), _tails(nodes, costs)
    whole = max(heads, default=0.0)
    ahead = [0.0, *accumulate(heads, max)]
    behind = [0.0, *accumulate(reversed(tails), max)][::-1]
    found = []
    for index, spanning in enumerate(_spanning(nodes, heads, tails)):
        without = heads[index] + tails[index] - 2 * costs[index]
        found.append(max(0.0, whole - max(without, spanning, ahead[index], behind[index + 1])))
    return found


def longest(nodes: Sequence[GraphNode], waiting: bool = True) -> float:
    """Return the length of the critical path, if told so without any ``after=``."""
    costs = _costs(nodes)
    kept = nodes if waiting else [node._replace(after=()) for node in nodes]
    return max(_heads(kept, costs), default=0.0)


def _costs(nodes: Sequence[GraphNode]) -> list[float]:
    return [node.seconds for node in nodes] if measured(nodes) else [1.0] * len(nodes)


def _heads(nodes: Sequence[GraphNode], costs: Sequence[float]) -> list[float]:
    """Return the longest way that ends with each node."""
    heads: list[float] = []
    for node, cost in zip(nodes, costs, strict=True):
        heads.append(cost + max((heads[before] for before in node.before), default=0.0))
    return heads


def _tails(nodes: Sequence[GraphNode], costs: Sequence[float]) -> list[float]:
    """Return the longest way that begins with each node."""
    tails = list(costs)
    for index in range(len(nodes) - 1, -1, -1):
        for before in nodes[index].before:
            tails[before] = max(tails[before], costs[before] + tails[index])
    return tails


def _spanning(nodes: Sequence[GraphNode], heads: Sequence[float], tails: Sequence[float]) -> Iterator[float]:
    """Tell for each node the longest path with an edge from before it to behind it."""
    takers: list[list[int]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        for before in node.before:
            takers[before].append(index)
    edges: list[tuple[float, int]] = []
    for index in range(len(nodes)):
        while edges and edges[0][1] <= index:
            heapq.heappop(edges)
        yield -edges[0][0] if edges else 0.0
        for taker in takers[index]:
            heapq.heappush(edges, (-heads[index] - tails[taker], taker))


# ---- What waits in vain


def implied_waits(nodes: Sequence[GraphNode]) -> list[Implied]:
    """Return every ``after=`` that holds without being said, through data or through other steps."""
    asked: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        if len(node.needs) + len(node.after) > 1:
            for waited in dict.fromkeys(node.after):
                asked.setdefault(waited, []).append(index)
    found: list[Implied] = []
    earlier = [node.before for node in nodes]
    for block in _blocks(sorted(asked)):
        marks = {waited: 1 << place for place, waited in enumerate(block)}
        stop = 1 + max(asked[waited][-1] for waited in block)
        above = _marked(earlier, marks, block[0], stop)
        for waiter in sorted({waiter for waited in block for waiter in asked[waited]}):
            found += _implied(waiter, nodes[waiter], block, marks, above)
    return sorted(found)


def _implied(
    waiter: int, node: GraphNode, block: Sequence[int], marks: Mapping[int, int], above: Mapping[int, int]
) -> Iterator[Implied]:
    taken = set(node.needs)
    left = sum(marks.get(waited, 0) for waited in set(node.after))
    for through in node.before:
        own = marks.get(through, 0) if through in taken else 0
        new = left & (above.get(through, 0) | own)
        left &= ~new
        while new:  # each wait is found once, so a fan-in of thousands costs no more than its edges
            place = new.bit_length() - 1
            new &= ~(1 << place)
            yield Implied(waiter, block[place], through)


def _marked(earlier: Sequence[Sequence[int]], marks: Mapping[int, int], start: int, stop: int) -> dict[int, int]:
    """Return the marks of all that lies before each node, where there are any."""
    above: dict[int, int] = {}
    for index in range(start, stop):
        own = 0
        for before in earlier[index]:
            own |= above.get(before, 0) | marks.get(before, 0)
        if own:
            above[index] = own
    return above


def _blocks(items: Sequence[int]) -> Iterator[Sequence[int]]:
    return (items[at : at + _BLOCK] for at in range(0, len(items), _BLOCK))


def waiting_chains(nodes: Sequence[GraphNode], implied: Iterable[Implied]) -> list[list[int]]:
    """Return the rows of steps that wait for each other with ``after=`` only: no data goes from one to another.

    ``implied`` are the waits that are none of their own. Rows of two are left alone: a single ``after=`` mostly
    has its reason.
    """
    without = {(wait.waiter, wait.waited) for wait in implied}
    own = [[d for d in dict.fromkeys(node.after) if (index, d) not in without] for index, node in enumerate(nodes)]
    rows = [row for row in _rows(own) if len(row) >= _HABIT]
    return [part for row in _apart(nodes, rows) for part in row if len(part) >= _HABIT]


def _rows(links: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the longest rows of nodes each of which has one link back, to one that is linked to once."""
    often = Counter(chain.from_iterable(links))
    row_of: dict[int, list[int]] = {}
    rows: list[list[int]] = []
    for index, back in enumerate(links):
        if len(back) == 1 and often[back[0]] == 1:
            row = row_of.pop(back[0], None)
            if row is None:
                row = [back[0]]
                rows.append(row)
            row.append(index)
            row_of[index] = row
    return rows


def _apart(nodes: Sequence[GraphNode], rows: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    """Cut each row before what takes data, on whatever way, from one of the row."""
    needs = [node.needs for node in nodes]
    for block in _blocks(range(len(rows))):
        marks = {index: 1 << place for place, at in enumerate(block) for index in rows[at]}
        members = sorted(marks)
        above = _marked(needs, marks, members[0], members[-1] + 1)
        for at in block:
            parts: list[list[int]] = [[]]
            for index in rows[at]:
                if above.get(index, 0) & marks[index]:
                    parts.append([])
                parts[-1].append(index)
            yield parts


def short_chains(nodes: Sequence[GraphNode]) -> list[list[int]]:
    """Return the rows of steps that could be one: each the only taker of the one before, all of them short.

    Only measured steps are told of: to split a long one can have its reasons.
    """
    takers = Counter(before for node in nodes for before in node.before)
    links: list[tuple[int, ...]] = []
    for node in nodes:
        alone = len(node.before) == 1 and not node.after and takers[node.needs[0]] == 1
        links.append(node.needs[:1] if alone and _short(node) and _short(nodes[node.needs[0]]) else ())
    return _rows(links)


def _short(node: GraphNode) -> bool:
    return node.kind == "step" and node.outcome == "succeeded" and node.seconds < SHORT_SECONDS


def stem(name: str) -> str:
    """Return what a name begins with, the same for alike steps: ``fetch`` of ``fetch north``, of ``fetch_1``."""
    return re.split(r"[\W\d_]", name, maxsplit=1)[0]
