"""Graphs of steps, against brute force on small ones; what is told of them, word for word."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchflow.reporting.graph.analysis import (
    GraphNode,
    critical_path,
    gains,
    implied_waits,
    levels,
    short_chains,
    stem,
    waiting_chains,
    widest,
)
from batchflow.reporting.graph.explain import duration, explain, explain_run

SALES = [
    GraphNode("fetch north"),
    GraphNode("fetch south"),
    GraphNode("fetch east"),
    GraphNode("combine", (0, 1, 2)),
    GraphNode("summarise", (3,), (0,)),
    GraphNode("parse", kind="map"),
    GraphNode("bind", (5, 3), (3,)),
]


@st.composite
def graphs(draw, most=8, measured=False):
    nodes = []
    for index in range(draw(st.integers(1, most))):
        edges = st.lists(st.integers(0, index - 1), max_size=3) if index else st.just([])
        node = GraphNode(f"step {index}", tuple(draw(edges)), tuple(draw(edges)))
        if measured:
            start = draw(st.integers(0, 5))
            node = node._replace(start=start, end=start + draw(st.integers(0, 9)), outcome="succeeded")
        nodes.append(node)
    return nodes


def paths(nodes, without=None):
    """Return every path, as lists of indices, that does not touch ``without``."""
    found = [[]]
    for index, node in enumerate(nodes):
        if index != without:
            found += [[index]] + [[*path, index] for path in found if path and path[-1] in node.needs + node.after]
    return found


def reaches(nodes, edges=lambda node: node.needs + node.after):
    """Return the pairs (a, b) where b comes after a."""
    found = set()
    for index, node in enumerate(nodes):
        for before in edges(node):
            found |= {(above, index) for above, below in found if below == before} | {(before, index)}
    return found


def took(nodes, path):
    return sum(nodes[index].seconds for index in path)


@given(graphs())
def test_a_rank_is_the_number_of_steps_before(nodes):
    assert levels(nodes) == [max(len(p) for p in paths(nodes) if p and p[-1] == i) - 1 for i in range(len(nodes))]


@given(graphs())
def test_the_widest_set_found_can_run_at_once_and_no_rank_is_wider(nodes):
    wide = widest(nodes)
    assert not set(combinations(wide, 2)) & reaches(nodes)
    assert len(wide) >= max(levels(nodes).count(rank) for rank in levels(nodes))


def test_the_widest_set_is_also_looked_for_from_the_end():
    nodes = [
        GraphNode("a"),
        GraphNode("b", (0,)),
        GraphNode("c", (1,)),
        GraphNode("d", (2,)),
        GraphNode("e"),
        GraphNode("f", (4, 3)),
        GraphNode("g"),
    ]
    assert (
        len(widest([*nodes, GraphNode("h", (0,)), GraphNode("i", (1,))])) == 4
    )  # d, g, h, i: each waits as long as it can


@given(graphs())
def test_before_a_run_the_critical_path_has_the_most_steps(nodes):
    path = critical_path(nodes)
    assert path in paths(nodes)
    assert len(path) == max(map(len, paths(nodes)))


@given(graphs(measured=True))
def test_after_a_run_the_critical_path_took_longest(nodes):
    path = critical_path(nodes)
    assert path in paths(nodes)
    if any(node.seconds for node in nodes):
        assert took(nodes, path) == max(took(nodes, path) for path in paths(nodes))


@given(graphs(measured=True))
def test_a_gain_is_what_the_longest_path_loses_with_a_step_that_takes_no_time(nodes):
    if not any(node.seconds for node in nodes):
        return
    now = max(took(nodes, path) for path in paths(nodes))
    then = []
    for index, node in enumerate(nodes):
        idle = [*nodes[:index], node._replace(end=node.start), *nodes[index + 1 :]]
        then.append(max(took(idle, path) for path in paths(idle)))
    assert gains(nodes) == pytest.approx([now - later for later in then])


@given(graphs())
def test_a_wait_is_implied_exactly_if_all_still_holds_without_it(nodes):
    whole = reaches(nodes)
    expected = set()
    for index, node in enumerate(nodes):
        for waited in set(node.after):
            left = node._replace(after=tuple(set(node.after) - {waited}))
            if reaches([*nodes[:index], left, *nodes[index + 1 :]]) == whole:
                expected.add((index, waited))
    found = implied_waits(nodes)
    assert [(wait.waiter, wait.waited) for wait in found] == sorted(expected)
    for wait in found:
        assert wait.through in nodes[wait.waiter].before
        assert wait.through == wait.waited or (wait.waited, wait.through) in whole


@given(graphs(most=9))
def test_steps_of_a_needless_row_wait_for_each_other_and_share_no_data(nodes):
    data = reaches(nodes, lambda node: node.needs)
    for row in waiting_chains(nodes, implied_waits(nodes)):
        assert len(row) >= 3
        assert all(before in nodes[after].after for before, after in pairwise(row))
        assert not set(combinations(row, 2)) & data


def test_a_row_of_waits_is_found_although_each_step_has_data_of_its_own():
    nodes = [GraphNode("fetch 0"), GraphNode("load 0", (0,))]
    for index in (1, 2, 3):
        nodes += [GraphNode(f"fetch {index}"), GraphNode(f"load {index}", (2 * index,), (2 * index - 1,))]
    assert waiting_chains(nodes, []) == [[1, 3, 5, 7]]
    nodes[5] = nodes[5]._replace(needs=(4, 1))
    assert waiting_chains(nodes, []) == [], "load 2 takes the data of load 0: what is left are rows of two"


def test_short_steps_in_a_row_could_be_one():
    def ran(name, needs=(), seconds=0.001, **more):
        return GraphNode(name, needs, outcome="succeeded", start=1.0, end=1.0 + seconds, **more)

    row = [ran("a"), ran("b", (0,)), ran("c", (1,))]
    assert short_chains(row) == [[0, 1, 2]]
    assert short_chains([*row, ran("d", (0,))]) == [[1, 2]], "a has two takers"
    assert short_chains([*row, ran("d", after=(1,))]) == [[0, 1]], "somebody waits for b"
    assert short_chains([ran("a"), ran("b", (0,), 1.0), ran("c", (1,))]) == []
    assert short_chains([ran("a"), ran("b", (0,), kind="map")]) == []
    assert short_chains([GraphNode("a"), GraphNode("b", (0,))]) == [], "nothing is known of their time"


def test_alike_steps_have_one_stem():
    assert {stem("fetch north"), stem("fetch_1"), stem("fetch-x"), stem("fetch2")} == {"fetch"}
    assert stem("17") == ""


def test_times_are_told_as_a_person_says_them():
    told = [duration(s) for s in (0, 0.0004, 0.25, 1, 59.96, 100, 3569, 7260)]
    assert told == ["0.0 ms", "0.4 ms", "250 ms", "1.0 s", "60.0 s", "1 min 40 s", "59 min 29 s", "2 h 01 min"]


def test_a_flow_is_explained():
    assert (
        explain(SALES)
        == """\
7 steps in 3 ranks; each starts as soon as what it waits for is there

rank  steps
   1  fetch north, fetch south, fetch east, parse (map)
   2  combine
   3  summarise, bind

critical path   3 of 7 steps
                fetch north > combine > summarise
widest point    4 steps at once: fetch north, fetch south, fetch east, parse (map)
needless waits  summarise need not say after= of fetch north, which combine waits for before it
                bind need not say after= of combine, whose data it takes"""
    )


def test_a_run_is_explained():
    times = [(0, 8), (0, 2), (0, 3), (8, 11.9), (11.9, 12), (3, 7), (11.9, 12.41)]
    run = [
        node._replace(start=a, end=b, outcome="succeeded", after=())
        for node, (a, b) in zip(SALES, times, strict=True)
    ]
    run[6] = run[6]._replace(outcome="failed", why="ValueError: no page \x1b[31m")
    run += [GraphNode(name, (6,), outcome="skipped", why="bind failed") for name in ("print", "send")]
    assert (
        explain_run(run, 4)
        == """\
steps           6 succeeded, 2 skipped, 1 failed
time            12.4 s with 21.5 s of work: 1.7 at once on 4 slots
critical path   12.4 s, 100% of the time
                    8.0 s   64%  fetch north
                    3.9 s   31%  combine
                   510 ms    4%  bind
speed up first  fetch north: if it took no time, the run would be up to 5.0 s (40%) shorter
                  (beyond that another path is the longest)
limited by      the critical path; more slots would not help
failed          bind: ValueError: no page \\x1b[31m
skipped         print, send: bind failed"""
    )


def test_steps_that_waited_for_a_slot_limit_a_run():
    run = [GraphNode(f"item {i}", outcome="succeeded", start=float(i // 2), end=i // 2 + 1.0) for i in range(8)]
    told = explain_run(run, 2)
    assert "slots: 6 ready steps waited for one; enough of them would make it 1.0 s" in told
    assert "no single step" in told
    assert "half of the slots were free" in explain_run(run, 8)


def test_a_run_of_which_nothing_was_done_is_explained():
    assert (
        explain_run([GraphNode("a", outcome="cached"), GraphNode("b", (0,))], 2)
        == "steps           1 cached, 1 not run"
    )
    assert explain([]) == explain_run([], 1) == "no steps"


def test_a_habit_of_waiting_is_told():
    told = explain([GraphNode(f"load {i}", after=(i - 1,) if i else ()) for i in range(5)])
    assert "load 0 > load 1 > load 2 > load 3 > load 4\n" in told
    assert "without any after= the longest chain would have 1 step instead of 5" in told


BIG = {
    "fan": [
        *(GraphNode(f"item {i}") for i in range(10_000)),
        GraphNode("sum", tuple(range(10_000)), tuple(range(10_000))),
    ],
    "chain": [GraphNode(f"step {i}", (i - 1,) if i else ()) for i in range(100_000)],
    "waits": [GraphNode(f"step {i}", after=(i - 1,) if i else ()) for i in range(10_000)],
    "mesh": [GraphNode(f"s{i % 7} {i}", (i - 3,) if i > 2 else (), (i // 2,) if i else ()) for i in range(10_000)],
    "names": [
        GraphNode("x" * (i % 90) + "\n" + chr(97 + i % 26) * 3, tuple(range(max(0, i - i % 40), i)))
        for i in range(999)
    ],
}


@pytest.mark.parametrize("name", BIG)
def test_large_flows_stay_readable(name):
    nodes = BIG[name]
    run = [n._replace(start=i / 1e3, end=(i + 1) / 1e3, outcome="succeeded") for i, n in enumerate(nodes)]
    many = ("failed", "skipped", "cancelled")
    bad = [
        n._replace(start=i / 1e3, end=i / 1e3 + 1, outcome=many[i % 3], why=f"{i}" * 99)
        for i, n in enumerate(nodes)
    ]
    for told in (explain(nodes), explain_run(run, 4), explain_run(bad, 4)):
        lines = told.split("\n")
        assert len(lines) <= 60
        assert max(map(len, lines)) <= 150


def test_ten_thousand_items_are_one_line():
    assert "   1  10,000 steps: item 0 ... item 9999\n   2  sum\n" in explain(BIG["fan"])
