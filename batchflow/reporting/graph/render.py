"""A flow as a picture, without other software: SVG for a browser or a report, Mermaid for a README.

Beyond some 300 steps alike ones of a rank share a box, so a picture of 10,000 steps is as small as one of 300.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

from batchflow.core.text import printable
from batchflow.reporting.graph.analysis import GraphNode, critical_path, levels, measured, stem
from batchflow.reporting.graph.explain import duration
from batchflow.reporting.graph.layout import Edge, EdgePiece, Layout, lay_out

_BOXES = 300
_EDGES = 3000
_MERMAID_EDGES = 450  # Mermaid refuses 500 and more
_DEPTH = 30  # ranks of a picture whose ranks are folded too: between them are at most 435 lines
_WORST_FIRST = ("failed", "cancelled", "skipped", "", "succeeded", "cached")
_SIGNS = {
    "succeeded": "\N{CHECK MARK}",
    "failed": "\N{BALLOT X} failed",
    "skipped": "\N{EN DASH} skipped",
    "cancelled": "\N{BLACK SQUARE} cancelled",
    "cached": "\N{ANTICLOCKWISE OPEN CIRCLE ARROW} cached",
}


class Box(NamedTuple):
    """One step, or alike ones of a rank."""

    name: str
    members: tuple[int, ...]
    rank: int
    kind: str
    outcome: str
    seconds: float | None
    """Of the longest of them, if any ran."""
    why: str
    critical: bool

    @property
    def short(self) -> str:
        """Its name with the number of steps, if there are several."""
        count = len(self.members)
        return self.name if count == 1 else f"{_cut(self.name, 10)} \N{HORIZONTAL ELLIPSIS} ({count:,} steps)"

    @property
    def note(self) -> str:
        """What became of it, in a few words: colour is not the only sign."""
        took = "" if self.seconds is None else duration(self.seconds)
        took = f"at most {took}" if took and len(self.members) > 1 else took
        between = " " if self.outcome == "succeeded" else ", "
        return between.join(filter(None, [_SIGNS.get(self.outcome, ""), took]))


class Picture(NamedTuple):
    """What is drawn: boxes and lines between them."""

    boxes: list[Box]
    edges: list[Edge]


# ---- Folding


def picture(nodes: Sequence[GraphNode], most_edges: int = _EDGES) -> Picture:
    """Return a box for each step or, where those are too many, for alike ones; in the end for whole ranks."""
    ranks = levels(nodes)
    path = critical_path(nodes)
    depth = max(ranks, default=0) + 1
    folds: list[tuple[Callable[[int], Hashable], Callable[[int], int]]] = [
        (lambda index: index, lambda rank: rank),
        (lambda index: (ranks[index], *_likeness(nodes[index])), lambda rank: rank),
        (lambda index: (ranks[index], nodes[index].outcome), lambda rank: rank),
        (lambda index: ranks[index] * _DEPTH // depth, lambda rank: rank * _DEPTH // depth),
    ]
    for key, rank_of in folds:
        groups: dict[Hashable, list[int]] = {}
        for index in range(len(nodes)):
            groups.setdefault(key(index), []).append(index)
        if len(groups) <= _BOXES or key is folds[-1][0]:
            drawn = _boxes(nodes, list(groups.values()), [rank_of(rank) for rank in ranks], set(path))
            edges = _edges(nodes, drawn, path)
            if len(edges) <= most_edges:
                break
    return Picture(drawn, edges)


def _likeness(node: GraphNode) -> tuple[str, str, str]:
    return stem(node.name), node.kind, node.outcome


def _boxes(
    nodes: Sequence[GraphNode], groups: Sequence[list[int]], ranks: Sequence[int], path: set[int]
) -> list[Box]:
    boxes = []
    for group in groups:
        own = [nodes[index] for index in group]
        ran = [node.seconds for node in own if node.start is not None and node.end is not None]
        boxes.append(
            Box(
                printable(own[0].name if len(own) == 1 else stem(own[0].name) or own[0].name),
                tuple(group),
                ranks[group[0]],
                "map" if all(node.kind == "map" for node in own) else "step",
                min((node.outcome for node in own), key=_WORST_FIRST.index),
                max(ran) if ran else None,
                own[0].why,
                not path.isdisjoint(group),
            )
        )
    return boxes


def _edges(nodes: Sequence[GraphNode], boxes: Sequence[Box], path: Sequence[int]) -> list[Edge]:
    """Return the lines between boxes, each once; where data goes, waiting need not be drawn."""
    box_of = {index: number for number, box in enumerate(boxes) for index in box.members}
    hot = {(box_of[before], box_of[after]) for before, after in pairwise(path)}
    data: dict[tuple[int, int], bool] = {}
    for index, node in enumerate(nodes):
        for before in node.needs:
            data[box_of[before], box_of[index]] = True
        for before in node.after:
            data.setdefault((box_of[before], box_of[index]), False)
    return [Edge(*ends, taken, ends in hot) for ends, taken in data.items() if ends[0] != ends[1]]


# ---- SVG

_HEIGHT = 44.0
_MARGIN = 20.0
_GAP = 18.0
_LETTER = 7.4  # of a common sans-serif at 13 pixels
_MOST_LETTERS = 23
_STACK = 4.0

_LIGHT = {
    "": ("#f6f8fa", "#57606a"),
    "succeeded": ("#dcf5ec", "#00795a"),
    "failed": ("#fde5d6", "#c24e00"),
    "skipped": ("#eceef0", "#8a929a"),
    "cancelled": ("#f8e6f0", "#a8527f"),
    "cached": ("#dff0fb", "#2b7bb0"),
}
_DARK = {
    "": ("#21262d", "#8b949e"),
    "succeeded": ("#0d3529", "#2fc79a"),
    "failed": ("#43200a", "#ff8a3d"),
    "skipped": ("#1b1f24", "#6e7681"),
    "cancelled": ("#3a1c2d", "#e08cba"),
    "cached": ("#0c2d44", "#63b8f0"),
}
_LIGHT_PAGE = {"ground": "#ffffff", "text": "#1f2328", "note": "#59636e", "line": "#818b98"}
_DARK_PAGE = {"ground": "#0d1117", "text": "#e6edf3", "note": "#9aa4af", "line": "#6e7681"}
_STYLE = """
.bf-flow text{font:13px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;text-anchor:middle}
.bf-flow .bf-note{font-size:11px}.bf-flow .bf-title{font-size:16px;font-weight:600}
.bf-flow .bf-start{text-anchor:start}.bf-flow .bf-box rect{stroke-width:1.3}
.bf-flow .bf-box.bf-hot rect{stroke-width:3}.bf-flow .bf-skipped rect{stroke-dasharray:2 3}
.bf-flow .bf-line{fill:none;stroke-width:1.4}.bf-flow .bf-line.bf-hot{stroke-width:3}
.bf-flow .bf-wait{stroke-dasharray:6 4}
"""
_THEME = (
    ".bf-flow .bf-ground{{fill:{ground}}}.bf-flow text{{fill:{text}}}.bf-flow .bf-note{{fill:{note}}}"
    ".bf-flow .bf-line{{stroke:{line}}}.bf-flow .bf-tip{{fill:{line}}}"
    ".bf-flow .bf-line.bf-hot{{stroke:{text}}}.bf-flow .bf-tip-hot{{fill:{text}}}"
)


class _PictureFrame:
    """Turns ranks and places across them into points: ranks go to the right or, if they are many, down."""

    def __init__(self, drawn: Picture, top: float) -> None:
        letters = max((_width(box.short) for box in drawn.boxes), default=0)
        self.wide = min(max(letters, 10), _MOST_LETTERS) * _LETTER + 22
        self.top = top
        ranks = [box.rank for box in drawn.boxes]
        depth = max(ranks, default=0) + 1
        most = max(Counter(ranks).values(), default=0)
        right = max(depth * (self.wide + 64) / 1400, most * (_HEIGHT + _GAP) / 900)
        down = max(most * (self.wide + _GAP) / 1400, depth * (_HEIGHT + 60) / 900)
        self.down = down < right
        self.length, breadth = (_HEIGHT, self.wide) if self.down else (self.wide, _HEIGHT)
        self.step = self.length + min(150.0, 58.0 + 0.5 * max(most, len(drawn.edges) / depth))
        self.layout: Layout = lay_out(ranks, drawn.edges, breadth, _GAP)
        along = depth * self.step - (self.step - self.length) + _STACK
        across = self.layout.breadth + _STACK
        self.width, self.height = (across, along) if self.down else (along, across)

    def point(self, along: float, across: float) -> tuple[float, float]:
        x, y = (across, along) if self.down else (along, across)
        return x + _MARGIN, y + self.top

    def corner(self, place: int) -> tuple[float, float]:
        """Return the upper left corner of a box."""
        breadth = self.wide if self.down else _HEIGHT
        return self.point(self.layout.ranks[place] * self.step, self.layout.centres[place] - breadth / 2)

    def path(self, piece: EdgePiece, boxes: int) -> str:
        """Return a line as a curve that leaves and arrives along the ranks, so that pieces join smoothly."""
        ranks, centres = self.layout.ranks, self.layout.centres
        start = ranks[piece.source] * self.step + self.length
        end = ranks[piece.target] * self.step
        middle = (start + end) / 2
        y, z = centres[piece.source], centres[piece.target]
        tip = end - 1.5 if piece.target < boxes else end
        points = [(start, y), (middle, y), (middle, z), (tip, z)]
        first, *curve = [" ".join(f"{value:.0f}" for value in self.point(*point)) for point in points]
        if piece.target >= boxes:  # it goes on: straight through the rank
            x, y = self.point(end + self.length, z)
            curve.append(f"L{x:.0f} {y:.0f}")
        return f"M{first}C{' '.join(curve)}"


def svg(nodes: Sequence[GraphNode], title: str = "") -> str:
    """Draw a flow, before a run or after it, as SVG that fits light and dark pages."""
    drawn = picture(nodes)
    frame = _PictureFrame(drawn, _MARGIN + (30 if title else 0))
    width = max(frame.width + 2 * _MARGIN, 360.0, _width(title) * 9 + 2 * _MARGIN)
    lines = sorted(frame.layout.pieces, key=lambda piece: piece.critical)  # what is drawn last is on top
    legend, height = _legend(drawn, measured(nodes), width, frame.top + frame.height + 34)
    name = escape(printable(title))
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    shrink = f"min-width:{0.6 * width:.0f}px;max-width:100%;height:auto"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="bf-flow" role="img" {size} style="{shrink}">',
            f"<title>{name or 'flow'}</title>",
            f"<style>{_STYLE}{_theme(_LIGHT, **_LIGHT_PAGE)}",
            f"@media (prefers-color-scheme:dark){{{_theme(_DARK, **_DARK_PAGE)}}}</style>",
            f"<defs>{_tip('bf-tip', 8)}{_tip('bf-tip-hot', 11)}</defs>",
            f'<rect class="bf-ground" width="{width:.0f}" height="{height:.0f}" rx="8"/>',
            *([f'<text class="bf-title bf-start" x="{_MARGIN:.0f}" y="32">{name}</text>'] if title else []),
            *(_line(piece, frame, len(drawn.boxes)) for piece in lines),
            *(_box(box, *frame.corner(place), frame.wide, nodes) for place, box in enumerate(drawn.boxes)),
            *legend,
            "</svg>",
            "",
        ]
    )


def _theme(colours: Mapping[str, tuple[str, str]], **page: str) -> str:
    boxes = (
        f".bf-flow .bf-{outcome or 'plain'} rect{{fill:{fill};stroke:{stroke}}}"
        for outcome, (fill, stroke) in colours.items()
    )
    return _THEME.format(**page) + "".join(boxes)


def _tip(name: str, size: int) -> str:
    shape = f'viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="{size}" markerHeight="{size}"'
    how = 'markerUnits="userSpaceOnUse" orient="auto"'
    return f'<marker id="{name}" {shape} {how}><path class="{name}" d="M0 0.5L8 4L0 7.5z"/></marker>'


def _line(piece: EdgePiece, frame: _PictureFrame, boxes: int) -> str:
    hot = " bf-hot" if piece.critical else ""
    kind = f"bf-line{'' if piece.data else ' bf-wait'}{hot}"
    tip = f' marker-end="url(#bf-tip{"-hot" if hot else ""})"' if piece.target < boxes else ""
    return f'<path class="{kind}" d="{frame.path(piece, boxes)}"{tip}/>'


def _box(box: Box, x: float, y: float, wide: float, nodes: Sequence[GraphNode]) -> str:
    hot = " bf-hot" if box.critical else ""
    shifts = (_STACK, _STACK / 2, 0) if box.kind == "map" else (0,)
    name = escape(_cut(box.short, _MOST_LETTERS))
    middle = x + wide / 2
    note = f'<text class="bf-note" x="{middle:.0f}" y="{y + 35:.0f}">{escape(box.note)}</text>' if box.note else ""
    return (
        f'<g class="bf-box bf-{box.outcome or "plain"}{hot}"><title>{escape(_hover(box, nodes))}</title>'
        f"{''.join(_rect(x + shift, y + shift, wide, _HEIGHT) for shift in shifts)}"
        f'<text x="{middle:.0f}" y="{y + (20 if note else 27):.0f}">{name}</text>{note}</g>'
    )


def _rect(x: float, y: float, wide: float, high: float) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="7"/>'


def _hover(box: Box, nodes: Sequence[GraphNode]) -> str:
    """Return the whole name, and what became of it."""
    name = box.name
    if len(box.members) > 1:
        first, last = (_cut(printable(nodes[index].name), 60) for index in (box.members[0], box.members[-1]))
        name = f"{len(box.members):,} steps: {first} ... {last}"
    name += " (map: many chunks)" if box.kind == "map" else ""
    return "\n".join(filter(None, [name, box.note, printable(box.why)]))


def _cut(text: str, room: int) -> str:
    if _width(text) <= room:
        return text
    kept = text[:room]
    while _width(kept) >= room:
        kept = kept[:-1]
    return kept + "\N{HORIZONTAL ELLIPSIS}"


def _width(text: str) -> int:
    """Return the width of a text in letters; those of East Asia are twice as wide."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


# ---- The legend


def _legend(drawn: Picture, ran: bool, width: float, y: float) -> tuple[list[str], float]:
    """Return the marks and words of what occurs in a picture, and where the drawing ends."""
    lines: list[str] = []
    x = _MARGIN
    for mark, words in _legend_items(drawn, ran):
        room = 40 + _width(words) * 6.4 + 22
        if x > _MARGIN and x + room > width:
            x, y = _MARGIN, y + 22
        text = f'<text class="bf-note bf-start" x="40" y="4">{words}</text>'
        lines.append(f'<g transform="translate({x:.0f} {y:.0f})">{mark}{text}</g>')
        x += room
    return lines, y + 18 if lines else y - 14


def _legend_items(drawn: Picture, ran: bool) -> Iterator[tuple[str, str]]:
    for outcome, sign in _SIGNS.items():
        if any(box.outcome == outcome for box in drawn.boxes):
            words = f"{sign} {outcome}" if outcome == "succeeded" else sign
            yield f'<g class="bf-box bf-{outcome}">{_rect(0, -8, 32, 16)}</g>', words
    if any(box.kind == "map" for box in drawn.boxes):
        stack = "".join(_rect(shift, shift - 9, 28, 14) for shift in (_STACK, _STACK / 2, 0))
        yield f'<g class="bf-box bf-plain">{stack}</g>', "a job of many chunks"
    if any(edge.data for edge in drawn.edges):
        yield _sample("bf-line", "bf-tip"), "takes its data"
    if any(not edge.data for edge in drawn.edges):
        yield _sample("bf-line bf-wait", "bf-tip"), "only waits for it"
    if any(edge.critical for edge in drawn.edges):
        yield _sample("bf-line bf-hot", "bf-tip-hot"), "critical path" if ran else "a longest chain"


def _sample(kind: str, tip: str) -> str:
    return f'<path class="{kind}" d="M0 0L31 0" marker-end="url(#{tip})"/>'


# ---- Mermaid

_ENTITIES = {letter: f"#{ord(letter)};" for letter in "#&<>`%{}\\*_~;"} | {'"': "#quot;"}


def mermaid(nodes: Sequence[GraphNode], title: str = "") -> str:
    """Return a flow as the text of a Mermaid flowchart, which GitHub and many editors draw."""
    drawn = picture(nodes, _MERMAID_EDGES)
    lines = ["---", f"title: {json.dumps(printable(title), ensure_ascii=False)}", "---"] if title else []
    lines.append("flowchart LR")
    for number, box in enumerate(drawn.boxes):
        text = _quoted(_cut(box.short, 60)) + (f"<br/>{_quoted(box.note)}" if box.note else "")
        lines.append(f'    n{number}[["{text}"]]' if box.kind == "map" else f'    n{number}["{text}"]')
    for edge in drawn.edges:
        arrow = ("==>" if edge.critical else "-->") if edge.data else "-.->"
        lines.append(f"    n{edge.source} {arrow} n{edge.target}")
    for outcome, (_, stroke) in _LIGHT.items():
        own = [f"n{number}" for number, box in enumerate(drawn.boxes) if outcome and box.outcome == outcome]
        if own:
            dashes = ",stroke-dasharray:2 3" if outcome == "skipped" else ""
            lines += [f"    classDef {outcome} stroke:{stroke},stroke-width:2px{dashes}"]
            lines += [f"    class {','.join(own)} {outcome}"]
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    """Return text with what Mermaid would take for its own as entities."""
    return "".join(_ENTITIES.get(letter, letter) for letter in text)
