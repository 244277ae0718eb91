"""What the Trace Event Format (N. Duca, D. Sinclair) asks of a file, as far as we use it, written out by hand."""

from itertools import pairwise

SCOPES = ("g", "p", "t")
METADATA = {
    "process_name": ("name", str),
    "thread_name": ("name", str),
    "process_sort_index": ("sort_index", int),
    "thread_sort_index": ("sort_index", int),
}


def number(value):
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and value == value
        and abs(value) != float("inf")
    )


def problems(trace):
    """Yield what is wrong with a trace, a value that JSON gave."""
    if not isinstance(trace, dict) or not isinstance(trace.get("traceEvents"), list):
        yield "no object with a list of traceEvents"
        return
    if trace.get("displayTimeUnit", "ms") not in ("ms", "ns"):
        yield f"displayTimeUnit {trace['displayTimeUnit']!r}"
    bad = [f"{what}: {event}" for event in trace["traceEvents"] for what in wrong(event)]
    if bad:
        yield from bad
        return
    yield from unnamed(trace["traceEvents"])
    yield from overlaps(trace["traceEvents"])


def named(event):
    field, kind = METADATA.get(event["name"], (None, type(None)))
    return isinstance(event["args"].get(field), kind)


EVERY = {
    "no name": lambda event: isinstance(event.get("name"), str) and event["name"],
    "no pid or tid": lambda event: all(isinstance(event.get(field), int) for field in ("pid", "tid")),
    "no time": lambda event: number(event.get("ts")) and event["ts"] >= 0,
    "args are no object": lambda event: isinstance(event.get("args", {}), dict),
}
EACH = {
    "X": {"no duration": lambda event: number(event.get("dur")) and event["dur"] >= 0},
    "i": {"no scope": lambda event: event.get("s") in SCOPES},
    "C": {"no numbers": lambda event: event.get("args") and all(map(number, event["args"].values()))},
    "M": {"unknown metadata": named},
}


def wrong(event):
    """Yield what is wrong with one event."""
    if event.get("ph") not in EACH:
        yield "unknown phase"
        return
    for what, holds in {**EVERY, **EACH[event["ph"]]}.items():
        if not holds(event):
            yield what


def unnamed(events):
    """Yield processes and threads with events that no metadata names."""
    processes = {event["pid"] for event in events if event["name"] == "process_name"}
    threads = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    for event in events:
        if event["pid"] not in processes:
            yield f"process without a name: {event}"
        if event["ph"] in "Xi" and (event["pid"], event["tid"]) not in threads:
            yield f"thread without a name: {event}"


def overlaps(events):
    """Yield complete events of a thread that overlap: they may only follow each other, or nest."""
    lanes = {}
    for event in events:
        if event["ph"] == "X":
            lanes.setdefault((event["pid"], event["tid"]), []).append(event)
    for lane in lanes.values():
        lane.sort(key=lambda event: (event["ts"], -event["dur"]))
        for before, after in pairwise(lane):
            end = before["ts"] + before["dur"]
            if after["ts"] < end - 0.05 and after["ts"] + after["dur"] > end + 0.05:
                yield f"overlap: {before} {after}"
