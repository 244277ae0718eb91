"""Pictures of flows: read back as XML, and measured."""

import re
import xml.etree.ElementTree as ET
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchflow.reporting.graph.analysis import GraphNode
from batchflow.reporting.graph.layout import Edge, lay_out
from batchflow.reporting.graph.render import mermaid, picture, svg

SVG = "{http://www.w3.org/2000/svg}"
NAMES = st.text(max_size=30) | st.sampled_from(
    ["a<b>&\"'", "\x00\x1b[31m\ud800\ufffe", "名前" * 20, "", "end", "%%{init}%%"]
)
OUTCOMES = ["", "succeeded", "failed", "skipped", "cancelled", "cached"]


@st.composite
def flows(draw, most=14):
    nodes = []
    for index in range(draw(st.integers(0, most))):
        edges = st.lists(st.integers(0, index - 1), max_size=3) if index else st.just([])
        kind, outcome = draw(st.sampled_from(["step", "step", "map"])), draw(st.sampled_from(OUTCOMES))
        end = draw(st.none() | st.floats(0, 1e6)) if outcome else None
        start = None if end is None else 0.0
        nodes.append(
            GraphNode(draw(NAMES), tuple(draw(edges)), tuple(draw(edges)), kind, outcome, start, end, draw(NAMES))
        )
    return nodes


def drawn(text):
    """Return the groups of the boxes, without those of the legend."""
    return [group for group in ET.fromstring(text).findall(f"{SVG}g") if "bf-box" in group.get("class", "")]


def front(group):
    rect = group.findall(f"{SVG}rect")[-1]
    return [float(rect.get(key)) for key in ("x", "y", "width", "height")]


def names(text):
    return [group.find(f"{SVG}title").text.split("\n")[0] for group in drawn(text)]


def words(text):
    return " | ".join("".join(element.itertext()) for element in ET.fromstring(text).iter(f"{SVG}text"))


@given(flows(), NAMES)
def test_every_step_is_drawn_once_no_box_is_on_another_and_all_are_inside(nodes, title):
    text = svg(nodes, title)
    boxes = [front(group) for group in drawn(text)]
    assert len(boxes) == len(nodes)
    for (ax, ay, aw, ah), (bx, by, bw, bh) in combinations(boxes, 2):
        assert ax + aw + 8 <= bx or bx + bw + 8 <= ax or ay + ah + 8 <= by or by + bh + 8 <= ay
    _, _, width, height = map(float, ET.fromstring(text).get("viewBox").split())
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)


@given(flows())
def test_lines_go_between_boxes_one_arrow_head_for_each_pair_or_fewer(nodes):
    pairs = {(before, index) for index, node in enumerate(nodes) for before in node.needs + node.after}
    lines = ET.fromstring(svg(nodes)).findall(f"{SVG}path")
    heads = [line for line in lines if line.get("marker-end")]
    assert len({target for _, target in pairs}) <= len(heads) <= len(pairs)
    assert all(re.fullmatch(r"M[-\d ]+C[-\d ]+(L[-\d ]+)?", line.get("d")) for line in lines)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.data())
def test_lines_pass_the_ranks_between_clear_of_the_boxes(ranks, data):
    pairs = [(a, b) for a in range(len(ranks)) for b in range(len(ranks)) if ranks[a] < ranks[b]]
    chosen = data.draw(st.lists(st.sampled_from(pairs), unique=True, max_size=25)) if pairs else []
    layout = lay_out(ranks, [Edge(*pair) for pair in chosen], 40.0, 10.0)
    assert all(layout.ranks[piece.target] - layout.ranks[piece.source] == 1 for piece in layout.pieces)
    for a, b in combinations(range(len(layout.ranks)), 2):
        if layout.ranks[a] == layout.ranks[b]:
            apart = {0: 14, 1: 32, 2: 50}[(a < len(ranks)) + (b < len(ranks))]
            assert abs(layout.centres[a] - layout.centres[b]) >= apart - 1e-6
    ways = {place: {place} for place in range(len(ranks))}
    for piece in sorted(layout.pieces, key=lambda piece: layout.ranks[piece.source]):
        ways.setdefault(piece.target, set()).update(
            ways.get(piece.source, set()) if piece.source >= len(ranks) else {piece.source}
        )
    assert {(a, b) for b in range(len(ranks)) for a in ways[b] if a != b} >= set(chosen)


def test_crossed_lines_are_uncrossed_and_a_chain_is_straight():
    layout = lay_out([0, 0, 1, 1], [Edge(0, 3), Edge(1, 2)], 40.0, 10.0)
    assert (layout.centres[0] < layout.centres[1]) == (layout.centres[3] < layout.centres[2])
    chain = lay_out(list(range(9)), [Edge(i, i + 1) for i in range(8)], 40.0, 10.0)
    assert len(set(chain.centres)) == 1


def test_a_step_that_many_ranks_feed_costs_one_lane():
    edges = [Edge(i, i + 1) for i in range(99)] + [Edge(i, 99) for i in range(98)]
    assert len(lay_out(list(range(100)), edges, 40.0, 10.0).ranks) < 100 + 100


def test_what_became_of_steps_is_told_in_words_too():
    nodes = [
        GraphNode("fetch", outcome="succeeded", start=0.0, end=2.5),
        GraphNode("parse", (0,), kind="map", outcome="failed", start=2.5, end=3.0, why="ValueError: <no> & never"),
        GraphNode("send", (1,), outcome="skipped", why="parse failed"),
        GraphNode("x" * 50, (), (0,), outcome="cached"),
    ]
    text = svg(nodes, "sales & more")
    for expected in (
        "sales & more",
        "✓ 2.5 s",
        "✗ failed, 500 ms",
        "\N{EN DASH} skipped",
        "↺ cached",
        "x" * 22 + "…",
    ):
        assert expected in words(text)
    assert "cancelled" not in words(text)
    hovers = [group.find(f"{SVG}title").text for group in drawn(text)]
    assert hovers[1] == "parse (map: many chunks)\n✗ failed, 500 ms\nValueError: <no> & never"
    assert hovers[3].startswith("x" * 50)
    assert [len(group.findall(f"{SVG}rect")) for group in drawn(text)] == [1, 3, 1, 1]


def test_the_legend_tells_only_what_occurs():
    legend = words(svg([GraphNode("a"), GraphNode("b", (0,))]))
    assert "takes its data" in legend
    assert "a longest chain" in legend
    for other in ("only waits", "many chunks", "succeeded", "critical"):
        assert other not in legend


def big(count=10_000):
    fetch = [
        GraphNode(f"fetch {i}", outcome="failed" if i in (7, 8) else "succeeded", start=0.0, end=i % 7 + 0.1)
        for i in range(count)
    ]
    return [*fetch, GraphNode("sum", tuple(range(count)), outcome="skipped")]


def test_alike_steps_of_a_large_flow_share_a_box():
    text = svg(big())
    assert len(drawn(text)) == 3
    assert "fetch … (9,998 steps) | ✓ at most 6.1 s" in words(text)
    assert "fetch … (2 steps) | ✗ failed, at most 1.1 s" in words(text)
    assert names(text)[0] == "9,998 steps: fetch 0 ... fetch 9999"
    assert 'n0["fetch … (9,998 steps)<br/>✓ at most 6.1 s"]' in mermaid(big())


@pytest.mark.parametrize(
    "nodes",
    [
        [GraphNode(f"step {i}", (i - 1,) if i else ()) for i in range(100_000)],
        [GraphNode(f"{i}x{chr(97 + i % 26)}", (i - 7, i // 2) if i > 13 else ()) for i in range(5_000)],
        [GraphNode(chr(97 + i % 26) * (i % 40), (max(0, i - 400),) if i > 400 else ()) for i in range(2_000)],
        [GraphNode(f"a {i}") for i in range(150)] + [GraphNode(f"b {i}", tuple(range(150))) for i in range(150)],
        [GraphNode(f"s {i}", tuple(range(i))) for i in range(200)],
    ],
    ids=["chain", "mesh", "names", "dense", "all on all"],
)
def test_a_large_flow_gives_a_small_picture_of_every_step(nodes):
    whole = picture(nodes)
    assert len(whole.boxes) <= 300
    assert sorted(index for box in whole.boxes for index in box.members) == list(range(len(nodes)))
    assert all(whole.boxes[edge.source].rank < whole.boxes[edge.target].rank for edge in whole.edges)
    text = svg(nodes)
    ET.fromstring(text)
    assert len(text) < 1_000_000
    assert len(re.findall(r"-->|==>|-\.->", mermaid(nodes))) < 500


def test_a_flow_is_told_to_mermaid():
    nodes = [
        GraphNode('say "hi" #1'),
        GraphNode("parse", kind="map", outcome="failed", start=0.0, end=1.0),
        GraphNode("b`%%{x}%%", (0,), (1,)),
        GraphNode("c\nd", (2, 1)),
    ]
    assert (
        mermaid(nodes, 'a "b"\n')
        == """\
---
title: "a \\"b\\"\\\\n"
---
flowchart LR
    n0["say #quot;hi#quot; #35;1"]
    n1[["parse<br/>✗ failed, 1.0 s"]]
    n2["b#96;#37;#37;#123;x#125;#37;#37;"]
    n3["c#92;nd"]
    n0 --> n2
    n1 -.-> n2
    n2 --> n3
    n1 --> n3
    classDef failed stroke:#c24e00,stroke-width:2px
    class n1 failed
"""
    )


@given(flows())
def test_no_name_breaks_out_of_its_label_in_mermaid(nodes):
    for line in mermaid(nodes).splitlines()[1:]:
        assert re.fullmatch(
            r'    (n\d+\[{1,2}"[^"`]*"\]{1,2}|n\d+ (-->|==>|-\.->) n\d+|class(Def)? \S+ \S.*)', line
        )
