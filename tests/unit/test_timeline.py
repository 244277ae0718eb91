"""The time line of a run: true for few tasks, bounded for many; sums over time; failures grouped."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from told import Clock, ended, many

from batchflow.core.outcomes import Failure
from batchflow.events import JobStarted, SlotsChanged
from batchflow.reporting.failure_groups import COUNTED, EXAMPLES, SHOWN, WORDINGS, FailureGroups, raised_at
from batchflow.reporting.timeline import BINS, CELLS, COLUMNS, MARKS, SLOWEST, STATES, TASKS, TRACKS, Bins

moments = st.floats(0, 1e5)
lengths = st.floats(0, 1e4)


def rows(timeline, part="tasks"):
    told = timeline.told()
    return [dict(zip(COLUMNS, row, strict=True)) for row in told[part]]


@given(st.lists(st.tuples(st.integers(0, 3), moments, lengths, st.floats(0, 1e3)), max_size=40))
def test_bins_keep_every_amount_and_when_it_was(added):
    bins = Bins(2)
    for track, start, seconds, amount in added:
        bins.add(track, start, seconds, (amount, 1.0))
    for track in bins.tracks:
        own = [one for one in added if one[0] == track]
        kept = list(bins.rows(track))
        assert sum(row[0] for _, row in kept) == pytest.approx(sum(one[3] for one in own), abs=1e-6)
        assert sum(row[1] for _, row in kept) == pytest.approx(len(own))
        assert all(0 <= at < BINS for at, _ in kept)
        if own:
            assert kept[0][0] == int(min(start for _, start, _, _ in own) / bins.width)
            assert kept[-1][0] <= int(max(start + seconds for _, start, seconds, _ in own) / bins.width)


def test_an_amount_is_spread_evenly_over_its_time():
    bins = Bins(1)
    bins.add(0, 0.0, 0.2, (0.0,))  # the bins are a millisecond wide
    bins.add(0, 0.0005, 0.004, (8.0,))
    assert bins.width == 0.001
    assert [(at, round(row[0], 6)) for at, row in bins.rows(0)] == [(0, 1), (1, 2), (2, 2), (3, 2), (4, 1)]
    bins.add(0, 0.4, 0.0, (5.0,))
    assert bins.width == 0.002
    assert [(at, round(row[0], 6)) for at, row in bins.rows(0)] == [(0, 3), (1, 4), (2, 1), (200, 5)]


def test_a_task_is_told_of_with_all_that_hovering_shows():
    timeline = Clock()
    timeline(JobStarted("bytes", None, "processes", 2))
    timeline.now = 3.0
    timeline(ended("here:7", 1.5, 1.25, at=500, failed=2, retries=3, attempt=2, inputs=4))
    (task,) = rows(timeline)
    assert task == {
        "track": 0,
        "start": 1.5,
        "seconds": 1.25,
        "read": 0.125,
        "call": 0.75,
        "convert": 0.125,
        "write": 0.125,
        "attempt": 2,
        "state": STATES.index("some failed"),
        "retries": 3,
        "source": 0,
        "first": 500,
        "last": 1500,
        "spans": 4,
        "records": 50,
        "rows": 48,
        "failed": 2,
        "nbytes": 1000,
        "isolating": 0,
    }
    told = timeline.told()
    assert (told["sources"], told["workers"], told["slots"]) == (["logs/a.jsonl"], ["here:7"], [(0.0, 2)])
    assert told["memory"] == [(3.0, 10**8)]
    assert [row[0] for row in told["marks"]] == [3.0]


def test_how_a_task_ended():
    timeline = Clock()
    timeline(ended())
    timeline(ended(failed=1))
    timeline(ended(ok=False))
    timeline(ended(ok=False, again=True))
    timeline(ended(ok=False, again=True, died=True))
    assert [STATES[task["state"]] for task in rows(timeline)] == ["ok", "some failed", "failed", "tried again"]
    (*_, death) = (dict(zip(COLUMNS, row[1:], strict=True)) for row in timeline.told()["marks"])
    assert (STATES[death["state"]], death["track"], death["source"]) == ("died", 0, 0)


def test_no_task_ends_after_it_was_heard_of_whatever_its_worker_takes_for_the_time():
    timeline = Clock()
    timeline.now = 5.0
    timeline(ended("ahead:1", 1000.0, 2.0))
    timeline(ended("behind:1", -1000.0, 2.0))
    timeline(ended("here:1", 4.0, 9.0))
    assert [(task["start"], task["seconds"]) for task in rows(timeline)] == [(3.0, 2.0), (0.0, 2.0), (0.0, 5.0)]


def test_thousands_of_tasks_are_summed_up_and_nothing_of_them_is_lost():
    few, lots = many(TASKS), many(TASKS + 1)
    assert len(few.told()["tasks"]) == TASKS
    told = lots.told()
    assert told["tasks"] is None
    assert sum(row[-1] for track in told["bins"]["tracks"].values() for row in track) == pytest.approx(
        TASKS + 1, abs=0.5
    )
    spent = sum(sum(row[1:-1]) for track in told["bins"]["tracks"].values() for row in track)
    assert spent == pytest.approx(sum(0.05 + 0.02 * ((n * 7919) % 13) / 13 for n in range(TASKS + 1)), rel=1e-3)
    assert sum(row[1] for row in told["flow"]["rows"]) == pytest.approx(50 * (TASKS + 1), rel=1e-3)
    assert sum(count for _, count in told["durations"]) == TASKS + 1


def test_what_is_kept_and_told_does_not_grow_with_the_tasks():
    once, twice = many(20_000), many(40_000)
    assert len(json.dumps(twice.told())) < 1.1 * len(json.dumps(once.told())) < 200_000
    told = twice.told()
    assert [row[COLUMNS.index("attempt")] for row in told["slowest"]][:1] == [1]
    assert len(told["slowest"]) == SLOWEST
    slowest = [row[COLUMNS.index("seconds")] for row in told["slowest"]]
    assert slowest == sorted(slowest, reverse=True)
    assert slowest[0] == pytest.approx(0.05 + 0.02 * 12 / 13, abs=1e-5)


def test_of_many_workers_fewer_bins_are_told_and_nothing_is_lost():
    told = many(6000, workers=200).told()
    assert sum(len(track) for track in told["bins"]["tracks"].values()) <= CELLS
    assert sum(row[-1] for track in told["bins"]["tracks"].values() for row in track) == pytest.approx(
        6000, rel=1e-3
    )


def test_more_workers_than_a_screen_has_rows_share_the_last_one():
    timeline = many(TRACKS + 50, workers=TRACKS + 50)
    told = timeline.told()
    assert (len(told["workers"]), told["others"], told["tasks"]) == (TRACKS, True, None)
    assert sum(row[-1] for row in told["bins"]["tracks"][str(TRACKS)]) == pytest.approx(50, rel=1e-3)


def test_marks_are_bounded_and_those_left_out_counted():
    timeline = Clock()
    for number in range(MARKS + 7):
        timeline(ended(attempt=2, at=number))
    told = timeline.told()
    assert (len(told["marks"]), told["unmarked"]) == (MARKS, 7)


def test_a_cluster_that_grows_for_ever_is_told_of_up_to_a_point():
    timeline = Clock()
    for slots in range(5000):
        timeline(SlotsChanged(slots))
        timeline(ended(peak=10**8 * (slots + 1)))
    assert len(timeline.told()["slots"]) == len(timeline.told()["memory"]) == 200


def failure(message="bad", kind="ValueError", line=3, phase="call"):
    trace = f'Traceback (most recent call last):\n  File "/home/me/lib.py", line 1, in deep\n  File "/home/me/steps.py", line {line}, in clean\n{kind}: {message}\n'
    return Failure("a.jsonl", 0, 9, 7, "payload" * 100, phase, kind, message, trace)


def grouped(*failures):
    groups = FailureGroups()
    groups.add_failures(failures)
    return groups


def test_failures_that_are_alike_are_counted_with_the_first_examples():
    groups = grouped(
        *(failure(f"number {n}") for n in range(10)),
        failure(line=4),
        failure(kind="KeyError"),
        failure(phase="read"),
    )
    told = groups.told()
    assert [(one["phase"], one["error_type"], one["where"], one["count"]) for one in told["groups"]] == [
        ("call", "ValueError", "steps.py:3 in clean", 10),
        ("call", "ValueError", "steps.py:4 in clean", 1),
        ("call", "KeyError", "steps.py:3 in clean", 1),
        ("read", "ValueError", "steps.py:3 in clean", 1),
    ]
    assert [example["message"] for example in told["groups"][0]["examples"]] == [
        "number 0",
        "number 1",
        "number 2",
    ]
    assert len(told["groups"][0]["examples"][0]["payload"]) == 301


def test_groups_and_examples_are_bounded():
    groups = grouped(*(failure("x" * 10_000, line=line) for line in range(10 * SHOWN) for _ in range(9)))
    told = groups.told()
    assert (len(told["groups"]), told["others"]) == (SHOWN, 9 * 9 * SHOWN)
    assert {len(group["examples"]) for group in told["groups"]} == {EXAMPLES}
    assert len(json.dumps(told)) < 1_000_000


def test_what_one_line_raises_is_told_apart_by_its_words():
    groups = grouped(
        *(
            failure(message)
            for message in ["no price", "bad quantity 'x'", "no price", "bad quantity 'y'", "no price"]
        )
    )
    assert [(kind.rows, kind.example) for kind in groups.kinds()] == [
        (3, "a.jsonl, record 7: no price"),
        (2, "a.jsonl, record 7: bad quantity 'x'"),
    ]


def test_of_a_line_that_raises_other_words_for_each_record_the_rest_is_one_kind():
    words = ["ab" * size for size in range(1, 50)]
    kinds = grouped(*map(failure, words)).kinds()
    assert [kind.rows for kind in kinds] == [49 - WORDINGS, *[1] * WORDINGS]


def test_files_that_broke_off_come_first():
    damage = failure("the file is truncated", "DamagedError", phase="read")._replace(stop=None, traceback="")
    assert [kind.error_type for kind in grouped(failure(), failure(), damage).kinds()] == [
        "DamagedError",
        "ValueError",
    ]


def test_kinds_are_those_that_differ_in_phase_type_or_place():
    groups = grouped(
        failure("odd", line=4),
        failure(kind="KeyError"),
        *(failure(f"number {n}") for n in range(3)),
        failure(phase="read"),
    )
    assert [str(kind).split() for kind in groups.kinds()] == [
        ["3", "x", "ValueError", "in", "call:", "a.jsonl,", "record", "7:", "number", "0"],
        ["1", "x", "ValueError", "in", "call:", "a.jsonl,", "record", "7:", "odd"],
        ["1", "x", "KeyError", "in", "call:", "a.jsonl,", "record", "7:", "bad"],
        ["1", "x", "ValueError", "in", "read:", "a.jsonl,", "record", "7:", "bad"],
    ]


def test_without_a_place_those_are_alike_whose_messages_differ_in_values():
    messages = [
        "3 cells, but 2 columns",
        "4 cells, but 2 columns",
        "column 'n': 'x' is no int",
        "column 'n': '' is no int",
    ]
    groups = grouped(*(failure(message)._replace(traceback="") for message in messages))
    assert [(kind.rows, kind.example) for kind in groups.kinds()] == [
        (2, "a.jsonl, record 7: 3 cells, but 2 columns"),
        (2, "a.jsonl, record 7: column 'n': 'x' is no int"),
    ]


def test_groups_of_a_flow_are_of_one_step():
    rows = [failure()._asdict() | {"step": step} for step in ("a", "b", "a")]
    groups = FailureGroups.of(pa.Table.from_pylist(rows))
    assert [(one.count, one.examples[0]["step"]) for one in groups.commonest()] == [(2, "a"), (1, "b")]


def test_kinds_are_bounded_where_each_record_raises_a_type_of_its_own():
    assert len(grouped(*(failure(kind=f"Error{n}") for n in range(2 * COUNTED))).kinds()) == COUNTED


@pytest.mark.parametrize(
    ("traceback", "place"),
    [
        ("", ""),
        (None, ""),
        ("ValueError: x", ""),
        ('  File "<stdin>", line 2, in f\n', "<stdin>:2 in f"),
        ('  File "a/b.py", line 2\n    x = (\n', "b.py:2"),
    ],
)
def test_where_it_was_raised(traceback, place):
    assert raised_at(traceback) == place
