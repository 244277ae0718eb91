"""The trace: valid against its format, whatever ran; workers as tracks; bounded."""

import json

import pytest
import trace_format
from told import Clock, ended, many, told

from batchflow.reporting.chrome_trace import trace
from batchflow.reporting.timeline import TASKS


def made(timeline, **more):
    return json.loads(json.dumps(trace(told(timeline, **more)), allow_nan=False))


def some():
    timeline = many(20, 2)
    timeline(ended("there:9", 0.2, 0.1, source="", ok=False))
    timeline(ended("there:9", 0.3, 0.0, attempt=2))
    timeline(ended("there:9", ok=False, again=True, died=True))
    return timeline


@pytest.mark.parametrize("count", [0, 1, 100, TASKS + 1000])
def test_it_is_valid_against_the_format(count):
    assert list(trace_format.problems(made(many(count)))) == []
    assert list(trace_format.problems(made(some()))) == []


def test_the_check_of_the_format_finds_what_is_wrong():
    good = made(some())
    complete = next(event for event in good["traceEvents"] if event["ph"] == "X")
    for change in (
        {"dur": -1},
        {"ts": None},
        {"ts": "1"},
        {"pid": 99},
        {"tid": "a"},
        {"name": ""},
        {"ph": "Q"},
        {"args": []},
    ):
        assert list(trace_format.problems({**good, "traceEvents": [*good["traceEvents"], {**complete, **change}]}))
    astride = {**complete, "ts": complete["ts"] + complete["dur"] / 2}
    assert list(trace_format.problems({**good, "traceEvents": [*good["traceEvents"], astride]}))
    assert list(trace_format.problems({"displayTimeUnit": "h", "traceEvents": []}))
    assert list(trace_format.problems([]))


def test_machines_are_processes_and_workers_threads():
    events = made(some())["traceEvents"]
    names = {
        (event["name"], event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["name"].endswith("_name")
    }
    assert names == {
        ("process_name", 0, 0): "batchflow",
        ("process_name", 1, 0): "here",
        ("process_name", 2, 0): "there",
        ("thread_name", 1, 1): "here:0",
        ("thread_name", 1, 2): "here:1",
        ("thread_name", 2, 3): "there:9",
    }


def test_a_task_is_a_complete_event_with_what_there_is_to_know_of_it():
    timeline = Clock()
    timeline.now = 9.0
    timeline(ended("here:1", 2.0, 1.5, at=3000))
    (event,) = (event for event in made(timeline)["traceEvents"] if event["ph"] == "X")
    assert (event["name"], event["ts"], event["dur"], event["pid"], event["tid"]) == ("a.jsonl", 2e6, 1.5e6, 1, 1)
    assert event["args"] == {
        "source": "logs/a.jsonl",
        "start": 3000,
        "stop": 4000,
        "inputs": 1,
        "attempt": 1,
        "state": "ok",
        "read": 0.15,
        "call": 0.9,
        "convert": 0.15,
        "write": 0.15,
        "records": 50,
        "rows": 50,
    }


def test_tries_and_deaths_are_instants_and_rates_counters():
    events = made(some())["traceEvents"]
    assert [event["name"] for event in events if event["ph"] == "i"] == ["try", "failed", "try", "died"]
    counters = {event["name"] for event in events if event["ph"] == "C"}
    assert counters == {"per second", "MB per second", "largest worker, MB", "slots"}
    rates = [event["args"]["rows"] for event in events if event["name"] == "per second"]
    assert max(rates) > 0 == rates[-1]


def test_of_very_many_tasks_it_is_no_larger():
    assert len(json.dumps(made(many(40_000)))) < 1.2 * len(json.dumps(made(many(20_000)))) < 2_000_000
