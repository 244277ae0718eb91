"""A run as a trace that Chrome (``chrome://tracing``) and Perfetto show: their JSON object format.

The format is that of "Trace Event Format" by N. Duca and D. Sinclair: metadata names processes and threads, a
complete event (``X``) is a task, an instant (``i``) a death or a try, a counter (``C``) an amount over time.
Times are microseconds. A machine is a process here, and a worker a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from batchflow.reporting.timeline import COLUMNS, STATES

_PHASES = ("read", "call", "convert", "write", "other")
_COUNTS = 60
"""Maximum points of a counter, in addition to those where it changes."""
_DRIVER = 0
"""Process number of events outside all workers."""


def trace(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the trace of a run record, as plain values for JSON."""
    events = list(_steps(told) if "steps" in told else _job(told))
    _part([event for event in events if event["ph"] == "X"])
    return {
        "displayTimeUnit": "ms",
        "otherData": {"batchflow": told["environment"]["batchflow"], "executor": told["executor"]},
        "traceEvents": events,
    }


def _part(events: list[dict[str, Any]]) -> None:
    """Shorten complete events of a thread to the start of the next one, since they must not overlap."""
    events.sort(key=lambda event: (event["pid"], event["tid"], event["ts"]))
    for event, following in pairwise(events):
        if (event["pid"], event["tid"]) == (following["pid"], following["tid"]):
            event["dur"] = min(event["dur"], round(following["ts"] - event["ts"], 1))


def _job(told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    timeline = told["timeline"]
    places = _Places([*timeline["workers"], *(["other workers"] if timeline["others"] else [])])
    yield from places.names()
    if timeline["tasks"] is not None:
        for row in timeline["tasks"]:
            yield _task(_named(row), timeline["sources"], places)
    else:
        yield from _bins(timeline["bins"], places)
    for at, *row in timeline["marks"]:
        lap = _named(row)
        what = "died" if STATES[lap["state"]] == "died" else "try" if lap["attempt"] > 1 else STATES[lap["state"]]
        yield _instant(what, at, places.of(lap["track"]), _about(lap, timeline["sources"]))
    yield from _counters(timeline)


def _named(row: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(COLUMNS, row, strict=True))


class _Places:
    """Process and thread numbers of the workers in the trace."""

    def __init__(self, workers: Sequence[str]) -> None:
        self._workers = workers
        hosts = dict.fromkeys(map(_host, workers))
        self._hosts = {host: number for number, host in enumerate(hosts, _DRIVER + 1)}

    def of(self, track: int) -> dict[str, int]:
        return {"pid": self._hosts[_host(self._workers[track])], "tid": track + 1}

    def names(self) -> Iterator[dict[str, Any]]:
        """Yield the events that name the processes and threads."""
        yield _meta("process_name", {"pid": _DRIVER, "tid": 0}, name="batchflow")
        for host, number in self._hosts.items():
            yield _meta("process_name", {"pid": number, "tid": 0}, name=host)
        for track, worker in enumerate(self._workers):
            yield _meta("thread_name", self.of(track), name=worker or "unknown")
            yield _meta("thread_sort_index", self.of(track), sort_index=track)


def _host(worker: str) -> str:
    """Return the machine of a worker; workers without one share a group."""
    return worker.rpartition(":")[0] or "others"


def _meta(kind: str, place: Mapping[str, int], **args: Any) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "ts": 0, **place, "args": args}


def _instant(name: str, at: float, place: Mapping[str, int], args: Mapping[str, Any]) -> dict[str, Any]:
    return {"ph": "i", "s": "t", "name": name, "cat": "task", "ts": _micro(at), **place, "args": args}


def _complete(
    name: str, start: float, seconds: float, place: Mapping[str, int], args: Mapping[str, Any]
) -> dict[str, Any]:
    times = {"ts": _micro(start), "dur": _micro(seconds)}
    return {"ph": "X", "name": name, "cat": "task", **times, **place, "args": args}


def _micro(seconds: float) -> float:
    return round(1e6 * max(0.0, seconds), 1)


def _task(lap: dict[str, Any], sources: Sequence[str], places: _Places) -> dict[str, Any]:
    about = _about(lap, sources)
    args = {**about, **{name: lap[name] for name in _PHASES[:4]}, "records": lap["records"], "rows": lap["rows"]}
    name = sources[lap["source"]].rpartition("/")[2] or "task"
    return _complete(name, lap["start"], lap["seconds"], places.of(lap["track"]), args)


def _about(lap: Mapping[str, Any], sources: Sequence[str]) -> dict[str, Any]:
    """Return the task arguments of an event."""
    what = {"source": sources[lap["source"]], "start": lap["first"], "stop": lap["last"], "inputs": lap["spans"]}
    told = {**what, "attempt": lap["attempt"], "state": STATES[lap["state"]]}
    return {**told, "isolating": True} if lap["isolating"] else told


def _bins(bins: Mapping[str, Any], places: _Places) -> Iterator[dict[str, Any]]:
    """Yield an event for each time bin of a worker with too many tasks to list."""
    width = bins["width"]
    for track, rows in bins["tracks"].items():
        for at, *spent, tasks in rows:
            args = {**dict(zip(_PHASES, spent, strict=True)), "tasks": tasks}
            busy = min(width, sum(spent))
            yield _complete(f"{tasks:,.0f} tasks", at * width, busy, places.of(int(track)), args)


def _counters(timeline: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    width, sums = _joined(timeline["flow"]["width"], timeline["flow"]["rows"])
    for at, (records, rows, nbytes) in enumerate(sums):
        yield _counter("per second", at * width, records=round(records / width, 1), rows=round(rows / width, 1))
        yield _counter("MB per second", at * width, read=round(nbytes / width / 1e6, 3))
    for at, nbytes in timeline["memory"]:
        yield _counter("largest worker, MB", at, memory=round(nbytes / 1e6, 1))
    for at, slots in timeline["slots"]:
        yield _counter("slots", at, slots=slots)


def _joined(width: float, rows: Sequence[Sequence[float]]) -> tuple[float, list[list[float]]]:
    """Return the sums of some bins in a row, and how wide these are; an empty one ends them."""
    last = int(rows[-1][0]) if rows else 0
    join = -(-(last + 1) // _COUNTS)
    sums = [[0.0, 0.0, 0.0] for _ in range(last // join + 2 if rows else 0)]
    for at, *amounts in rows:
        into = sums[int(at) // join]
        into[:] = map(sum, zip(into, amounts, strict=True))
    return join * width, sums


def _counter(name: str, at: float, **amounts: float) -> dict[str, Any]:
    return {"ph": "C", "name": name, "ts": _micro(at), "pid": _DRIVER, "tid": 0, "args": amounts}


def _steps(told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events of a flow: a track for each worker, and some for its jobs."""
    places = _Places(told["tracks"])
    yield from places.names()
    for step in told["steps"]:
        if step["start"] is None or step["end"] is None:
            continue
        args = {name: step[name] for name in ("state", "kind", "attempts", "worker", "why") if step[name]}
        place = places.of(step["track"])
        yield _complete(step["name"], step["start"], step["end"] - step["start"], place, args)
        if step["state"] == "failed" or step["attempts"] > 1:
            yield _instant(step["state"], step["end"], place, args)
