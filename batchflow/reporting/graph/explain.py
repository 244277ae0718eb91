"""A flow in words: before a run what goes with what, after it where the time went."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

from batchflow.core.text import counted, printable
from batchflow.reporting.graph.analysis import (
    GraphNode,
    Implied,
    critical_path,
    gains,
    implied_waits,
    levels,
    longest,
    measured,
    short_chains,
    stem,
    waiting_chains,
    widest,
)

_WIDE = 84
_NAME = 40


def label(node: GraphNode, room: int = _NAME) -> str:
    """Return a step's name as a terminal may show it, cut to ``room``."""
    name = printable(node.name[: 4 * room])
    return name if len(name) <= room else name[: room - 3] + "..."


def duration(seconds: float) -> str:
    """Return seconds as a person says them."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.{0 if seconds > 0.00995 else 1}f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if seconds < 3570:
        return f"{int(round(seconds) // 60)} min {round(seconds) % 60:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def explain(nodes: Sequence[GraphNode]) -> str:
    """Tell what will run with what, what the time hangs on, and which waits could be left out."""
    if not nodes:
        return "no steps"
    ranks = _by_rank(nodes)
    wide = widest(nodes)
    path = critical_path(nodes)
    told = f"{_steps(len(nodes))} in {counted(len(ranks), 'rank')}"
    return "\n".join(
        [
            f"{told}; each starts as soon as what it waits for is there",
            "",
            *_rank_lines(nodes, ranks),
            "",
            *_section("critical path", [f"{len(path):,} of {_steps(len(nodes))}", *_arrows(nodes, path)]),
            *_section("widest point", [f"{_steps(len(wide))} at once: {_names(nodes, wide, counted=False)}"]),
            *_section("needless waits", _waits(nodes) or ["none"]),
        ]
    )


def _by_rank(nodes: Sequence[GraphNode]) -> list[list[int]]:
    ranks = levels(nodes)
    rows: list[list[int]] = [[] for _ in range(max(ranks) + 1)]
    for index, rank in enumerate(ranks):
        rows[rank].append(index)
    return rows


def _rank_lines(nodes: Sequence[GraphNode], ranks: Sequence[Sequence[int]], most: int = 16) -> list[str]:
    shown = list(range(len(ranks)))
    if len(ranks) > most:
        shown = [*shown[: most - 5], *shown[-4:]]
    wide = max(4, len(f"{len(ranks):,}"))
    lines = [f"{'rank':>{wide}}  steps", *(f"{rank + 1:>{wide},}  {_names(nodes, ranks[rank])}" for rank in shown)]
    if len(ranks) > most:
        hidden = ranks[most - 5 : -4]
        steps = _steps(sum(map(len, hidden)))
        lines.insert(most - 4, f"{'...':>{wide}}  {counted(len(hidden), 'rank')} with {steps}")
    return lines


def _names(nodes: Sequence[GraphNode], indices: Sequence[int], room: int = _WIDE, counted: bool = True) -> str:
    """Return the names of steps in one line: all if there is room, else the first and last of alike ones."""
    if len(indices) <= room // 3:
        names = ", ".join(_named(nodes[index]) for index in indices)
        if len(names) <= room:
            return names
    alike: dict[str, list[int]] = {}
    for index in indices:
        alike.setdefault(stem(nodes[index].name), []).append(index)
    line, told = "", 0
    for group in alike.values():
        more = _first_and_last(nodes, group, counted=len(alike) > 1)
        if line and len(line) + len(more) > room:
            line += f", and {len(indices) - told:,} more"
            break
        line += f", {more}" if line else more
        told += len(group)
    return f"{_steps(len(indices))}: {line}" if counted and len(indices) > 1 else line


def _first_and_last(nodes: Sequence[GraphNode], group: Sequence[int], counted: bool) -> str:
    if len(group) == 1:
        return _named(nodes[group[0]])
    between = ", " if len(group) == 2 else " ... "
    names = f"{label(nodes[group[0]], 24)}{between}{_named(nodes[group[-1]], 24)}"
    return f"{names} ({len(group):,})" if counted and len(group) > 2 else names


def _named(node: GraphNode, room: int = _NAME) -> str:
    return label(node, room) + (" (map)" if node.kind == "map" else "")


def _arrows(nodes: Sequence[GraphNode], path: Sequence[int], room: int = _WIDE) -> list[str]:
    """Return a path in at most three lines, its middle left out if it is long."""
    names = [label(nodes[index], 24) for index in (path if len(path) <= 9 else [*path[:5], *path[-3:]])]
    if len(path) > 9:
        names.insert(5, f"({len(path) - 8:,} more)")
    lines = [names[0]]
    for name in names[1:]:
        if len(lines[-1]) + len(name) + 5 > room:
            lines[-1] += " >"
            lines.append(f"  {name}")
        else:
            lines[-1] += f" > {name}"
    return lines


def _waits(nodes: Sequence[GraphNode], most: int = 3) -> list[str]:
    """Return what to do about needless waits, a few of each kind."""
    implied = implied_waits(nodes)
    rows = sorted(waiting_chains(nodes, implied), key=len, reverse=True)
    lines = [_implied_line(nodes, wait) for wait in implied[:most]]
    lines += _more(len(implied) - most, "such wait")
    for row in rows[:most]:
        lines += [*_arrows(nodes, row), "  share no data: without after= they would run side by side"]
    return lines + (_more(len(rows) - most, "such row") + _without(nodes) if rows else [])


def _more(count: int, what: str) -> list[str]:
    return [f"and {count:,} more {what}{'' if count == 1 else 's'}"] if count > 0 else []


def _implied_line(nodes: Sequence[GraphNode], wait: Implied) -> str:
    waiter, waited, through = (label(nodes[index], 24) for index in wait)
    reason = "whose data it takes" if wait.through == wait.waited else f"which {through} waits for before it"
    return f"{waiter} need not say after= of {waited}, {reason}"


def _without(nodes: Sequence[GraphNode]) -> list[str]:
    """Return how long the longest path is with every ``after=`` and without, if that makes a difference."""
    now, then = longest(nodes), longest(nodes, waiting=False)
    if then > 0.95 * now:
        return []
    if measured(nodes):
        return [f"without any after= the critical path would take {duration(then)} instead of {duration(now)}"]
    return [f"without any after= the longest chain would have {_steps(int(then))} instead of {now:,.0f}"]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"{title if place == 0 else '':<16}{line}" for place, line in enumerate(lines)]


def _steps(count: int) -> str:
    return counted(count, "step")


# ---- In words, after a run


def explain_run(nodes: Sequence[GraphNode], slots: int) -> str:
    """Tell what a run's time went into and what would shorten it.

    Parameters
    ----------
    nodes
        The steps, with what was measured of them.
    slots
        Tasks that could run side by side.
    """
    if not nodes:
        return "no steps"
    outcomes = Counter(node.outcome or "not run" for node in nodes)
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
    lines = _section("steps", [told])
    if measured(nodes):
        lines += _timing(nodes, slots)
    waits = _waits(nodes, most=2)
    lines += _section("needless waits", waits) if waits else []
    lines += _section("short steps", _merge_lines(nodes))
    return "\n".join([*lines, *shortfall(nodes)])


def shortfall(nodes: Sequence[GraphNode], failed: int = 5, skipped: int = 4) -> list[str]:
    """Return lines about what failed and what was skipped, with the reasons.

    Parameters
    ----------
    failed, skipped
        How many lines at most, but for one that tells how many more there are.
    """
    return [*_section("failed", _failed(nodes, failed)), *_section("skipped", _skipped(nodes, skipped))]


def _timing(nodes: Sequence[GraphNode], slots: int) -> list[str]:
    wall = max(node.end or 0.0 for node in nodes)
    work = _work(nodes)
    path = critical_path(nodes)
    length = sum(nodes[index].seconds for index in path)
    at_once = f"{work / wall:.1f} at once on {counted(slots, 'slot')}"
    return [
        *_section("time", [f"{duration(wall)} with {duration(work)} of work: {at_once}"]),
        *_section("critical path", [f"{duration(length)}, {length / wall:.0%} of the time"]),
        *_section("", _shares(nodes, path, wall)),
        *_section("speed up first", _first(nodes, wall)),
        *_section("limited by", [_limit(nodes, slots, wall, length)]),
    ]


def _shares(nodes: Sequence[GraphNode], path: Sequence[int], wall: float, most: int = 10) -> list[str]:
    """Return the steps of a path with their times, in order; of a long path those that count."""
    kept = list(path)
    if len(path) > most:
        large = heapq.nlargest(most - 1, path, key=lambda index: nodes[index].seconds)
        kept = sorted(index for index in large if nodes[index].seconds > wall / 100)
    rows = [(nodes[index].seconds, _named(nodes[index])) for index in kept]
    if len(kept) < len(path):
        others = sum(nodes[index].seconds for index in path) - sum(seconds for seconds, _ in rows)
        rows.append((others, f"({len(path) - len(kept):,} {'other' if kept else 'short'} steps)"))
    return [f"{duration(seconds):>9} {seconds / wall:>5.0%}  {name}" for seconds, name in rows]


def _first(nodes: Sequence[GraphNode], wall: float) -> list[str]:
    found = gains(nodes)
    best = max(range(len(nodes)), key=found.__getitem__)
    if found[best] < wall / 100:
        return ["no single step: other paths take about as long as the critical one"]
    gain = f"{duration(found[best])} ({found[best] / wall:.0%})"
    line = f"{label(nodes[best])}: if it took no time, the run would be up to {gain} shorter"
    bound = nodes[best].seconds - found[best] > wall / 100
    return [line, "  (beyond that another path is the longest)"] if bound else [line]


def _limit(nodes: Sequence[GraphNode], slots: int, wall: float, length: float) -> str:
    """Tell why the run was not shorter, from the row of steps that ended last."""
    if length >= 0.9 * wall:
        return "the critical path; more slots would not help"
    waited = sum(_waited(nodes, nodes[index]) for index in _last_row(nodes))
    if waited < 0.05 * wall:
        return f"what lies between the steps: their critical path is only {duration(length)}"
    if _work(nodes) < 0.5 * wall * slots:
        return f"waiting: steps that were ready waited {duration(waited)}, though half of the slots were free"
    late = sum(_waited(nodes, node) > 0.01 * wall for node in nodes)
    return f"slots: {counted(late, 'ready step')} waited for one; enough of them would make it {duration(length)}"


def _work(nodes: Sequence[GraphNode]) -> float:
    return sum(node.seconds if node.work is None else node.work for node in nodes)


def _waited(nodes: Sequence[GraphNode], node: GraphNode) -> float:
    """Return the time from when a step could have started to when it did."""
    return 0.0 if node.start is None else max(0.0, node.start - _ready(nodes, node))


def _ready(nodes: Sequence[GraphNode], node: GraphNode) -> float:
    return max((nodes[before].end or 0.0 for before in node.before), default=0.0)


def _last_row(nodes: Sequence[GraphNode]) -> list[int]:
    """Return the step that ended last, what it waited for last, and so on; times and waits add up to the end."""
    row = [max(range(len(nodes)), key=lambda index: nodes[index].end or 0.0)]
    while nodes[row[-1]].before:
        row.append(max(nodes[row[-1]].before, key=lambda index: nodes[index].end or 0.0))
    return row


def _merge_lines(nodes: Sequence[GraphNode], most: int = 2) -> list[str]:
    rows = sorted(short_chains(nodes), key=len, reverse=True)
    lines: list[str] = []
    for row in rows[:most]:
        spent = duration(sum(nodes[index].seconds for index in row))
        lines += [*_arrows(nodes, row), f"  took {spent} together: as one function they need no hand-over"]
    return lines + _more(len(rows) - most, "such row")


def _failed(nodes: Sequence[GraphNode], most: int) -> list[str]:
    failed = [node for node in nodes if node.outcome == "failed"]
    lines = [f"{label(node)}: {_why(node)}" if node.why else label(node) for node in failed[:most]]
    return lines + _more(len(failed) - most, "step")


def _skipped(nodes: Sequence[GraphNode], most: int) -> list[str]:
    """Return what was skipped, by the reason, the commonest first."""
    reasons: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        if node.outcome == "skipped":
            reasons.setdefault(_why(node), []).append(index)
    groups = sorted(reasons.items(), key=lambda item: len(item[1]), reverse=True)
    lines = []
    for why, indices in groups[:most]:
        names = _names(nodes, indices, room=50)
        lines.append(f"{names}: {why}" if why else names)
    return lines + _more(sum(len(indices) for _, indices in groups[most:]), "step")


def _why(node: GraphNode, room: int = 80) -> str:
    why = printable(node.why.strip()[: 4 * room])
    return why if len(why) <= room else why[: room - 3] + "..."
