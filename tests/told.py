"""Events of jobs as large as wanted, by no clock, and what is told of them: for the page, the trace and the time line."""

from batchflow.core.chunks import Chunk, InputFile, Span
from batchflow.core.outcomes import Failure, SpanCount, Stats
from batchflow.events import JobStarted, TaskEnded
from batchflow.reporting.failure_groups import FailureGroups
from batchflow.reporting.report import Report
from batchflow.reporting.timeline import Timeline

ENVIRONMENT = {
    "batchflow": "0.1.0",
    "python": "cpython 3.12.1",
    "platform": "Linux 6 x86_64",
    "host": "here",
    "cpus": 8,
    "memory": 16 << 30,
    "versions": {"pyarrow": "21.0.0"},
}
PLAN = {
    "function": "steps.clean",
    "per": "record",
    "source": "json",
    "inputs": 3,
    "size": 3_000_000,
    "in_memory": False,
    "first": ["logs/a.jsonl", "logs/b.jsonl"],
    "output": "/data/clean",
    "format": "parquet",
    "limits": {"cpus": "8"},
    "per_task": {},
    "options": {"timeout": "60"},
}


class Clock(Timeline):
    """A time line whose now is set."""

    def __init__(self):
        super().__init__()
        self.epoch = 1_700_000_000.0
        self.now = 0.0

    def _now(self):
        return self.now


def ended(
    worker="here:1",
    start=0.0,
    seconds=1.0,
    *,
    epoch=1_700_000_000.0,
    source="logs/a.jsonl",
    at=0,
    ok=True,
    again=False,
    attempt=1,
    died=False,
    failed=0,
    retries=0,
    peak=10**8,
    phases=(0.1, 0.6, 0.1, 0.1),
    inputs=1,
):
    """Return the end of a task; phases are shares of its time."""
    input_ = InputFile(source, 10**9)
    chunk = Chunk((Span(input_, at, at + 1000),) * inputs, 1000)
    stats = Stats(
        worker,
        epoch + start,
        seconds,
        *(seconds * share for share in phases),
        1000,
        0,
        peak,
        (SpanCount(source, 50, 50, 50 - failed, failed),),
        retries,
    )
    failure = (
        None if ok else Failure(source, at, at + 1000, None, None, "worker", "WorkerDied", "gone", worker=worker)
    )
    if died:
        stats = Stats()
    return TaskEnded((0, at), attempt, 1000, stats, ok, again, chunk, failure, died)


def many(count, workers=8, hear=None):
    """Return a time line that heard the tasks of some workers, which have no pause, and of which some are tried again."""
    timeline = hear or Clock()
    timeline(JobStarted("bytes", None, "processes", workers))
    for number in range(count):
        worker, turn = number % workers, number // workers
        seconds = 0.05 + 0.02 * ((number * 7919) % 13) / 13
        timeline.now = (turn + 1) * 0.08
        again = number % 5000 == 4999
        timeline(
            ended(
                f"here:{worker}",
                turn * 0.08,
                seconds,
                at=1000 * number,
                ok=not again,
                again=again,
                attempt=1 + (number % 5000 == 0),
                source=f"logs/{number % 90}.jsonl",
                peak=10**8 + 1000 * number,
            )
        )
    return timeline


def told(timeline, errors=(), report=None, **more):
    """Return what is told of a job."""
    groups = FailureGroups()
    groups.add_failures([Failure(**{name: row.get(name) for name in Failure._fields}) for row in errors])
    seconds = more.pop("seconds", timeline.now + 0.5)
    report = report or Report(
        executor="processes",
        slots=8,
        complete=True,
        rows_in=1000,
        rows_out=990,
        failed=10,
        succeeded=990,
        chunks=20,
        bytes_read=10**6,
        seconds=seconds,
        task_seconds=0.8 * 8 * seconds,
        peak_memory=2 * 10**8,
        phases={"read": seconds, "call": 4 * seconds, "convert": seconds, "write": 0.3 * seconds},
    )
    return {
        **report.as_dict(),
        "plan": PLAN,
        "environment": ENVIRONMENT,
        "timeline": timeline.told(),
        "errors": groups.told(),
        **more,
    }
