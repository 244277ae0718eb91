"""The scheduler against an executor that does what the test says, step by step."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import batchflow as bf
from batchflow.core.outcomes import Position, SpanCount, Stats, Succeeded
from batchflow.core.work import CountRecords, Task
from batchflow.errors import WorkerDied
from batchflow.executors.base import Executor
from batchflow.jobs.plan_views import program_of
from batchflow.jobs.planner import make_plan
from batchflow.jobs.scheduler import Scheduler
from batchflow.plan import JobSpec
from batchflow.worker import died, failed, lost


class Manual(Executor):
    """Holds what was submitted until the test says what came of it."""

    name = "manual"

    def __init__(self, slots, prefetch):
        self._slots = slots
        self.prefetch = prefetch
        self.work = {}
        self.came = []

    def slots(self, limits, per_task):
        return self._slots

    def start(self, slots, per_task, workers=None):
        pass

    def load(self, program):
        return 1

    def unload(self, job):
        self.work.clear()

    def submit(self, job, work):
        assert work.key not in self.work
        self.work[work.key] = work

    def wait(self, job=None, timeout=None):
        came, self.came = self.came, []
        for _, outcome in came:
            del self.work[outcome.key]
        return came

    def close(self):
        pass


class SchedulerMachine(RuleBasedStateMachine):
    """Tasks succeed, fail, die and are suspected, in any order; every record ends once, in its place."""

    @initialize(
        size=st.integers(1, 40),
        slots=st.integers(1, 3),
        prefetch=st.integers(0, 1),
        chunk=st.integers(1, 12),
        attempts=st.integers(1, 3),
        memory=st.sampled_from([None, 1, 100]),
        isolate=st.booleans(),
    )
    def begin(self, size, slots, prefetch, chunk, attempts, memory, isolate):
        self.size, self.attempts, self.chunk = size, attempts, chunk
        self.executor = Manual(slots, prefetch)
        spec = JobSpec(
            len,
            bf.records(list(range(size))),
            chunk=chunk,
            retry=bf.Retry(attempts, backoff=0),
            isolate=isolate,
            limits=bf.Resources(memory=memory),
        )
        plan = make_plan(spec)
        self.settled = []
        self.scheduler = Scheduler(plan, self.executor, program_of(plan), self.settled.append)
        self.scheduler.open()
        self.turns = self.scheduler.turns()
        self.going = True
        self.turn()

    def turn(self):
        """Let the scheduler take in what came, and begin what it may."""
        self.scheduler.wait()
        while self.going:
            self.going = next(self.turns, self) is None
            if self.executor.work:
                return

    def finish(self, outcome):
        self.executor.came.append((1, outcome))
        self.turn()

    def pick(self, data):
        return self.executor.work[data.draw(st.sampled_from(sorted(self.executor.work)))]

    has_work = precondition(lambda self: self.going and self.executor.work)

    @has_work
    @rule(data=st.data())
    def succeeds(self, data):
        work = self.pick(data)
        bad = data.draw(st.sets(st.sampled_from(range(len(records(work)))), max_size=3))
        self.finish(success(work, bad))

    @has_work
    @rule(data=st.data(), suspect=st.booleans())
    def dies(self, data, suspect):
        work = self.pick(data)
        retry = bf.Retry(self.attempts, backoff=0)
        position = data.draw(positions(work))
        self.finish(died(work, "died", "host:1", retry, suspect=suspect)._replace(position=position))

    @has_work
    @rule(data=st.data(), seconds=st.sampled_from([0.4, 2.0]))
    def takes_too_long(self, data, seconds):
        work = self.pick(data)
        position = data.draw(positions(work))
        outcome = lost(work, "timeout", TimeoutError("slow"), "host:1")._replace(limit=2.0)
        self.finish(outcome._replace(position=position and position._replace(seconds=seconds)))

    @has_work
    @rule(data=st.data(), helped=st.booleans())
    def fails_as_a_whole(self, data, helped):
        work = self.pick(data)
        if isinstance(work, CountRecords):
            self.finish(success(work, ()))
        else:
            count = len(records(work))
            self.finish(failed(work, "call", ValueError("no"), count)._replace(helped=helped))

    @precondition(lambda self: not self.going)
    @rule()
    def is_done(self):
        """Nothing is left to do."""

    @invariant()
    def caps_hold(self):
        if not hasattr(self, "executor"):
            return
        work = self.executor.work.values()
        assert len(work) <= self.executor._slots * (1 + self.executor.prefetch)
        if any(isinstance(one, Task) and one.alone for one in work):
            assert len(work) == 1

    @invariant()
    def something_runs_if_anything_is_left(self):
        if hasattr(self, "executor"):
            assert self.executor.work or not self.going

    @invariant()
    def attempts_have_a_limit(self):
        if hasattr(self, "executor"):
            # Whole, with each record noted, in parts until one is alone, that one again, and with nothing beside it.
            limit = self.attempts + self.chunk + 3
            tasks = [getattr(work, "task", work) for work in self.executor.work.values()]
            assert all(task.attempt <= limit for task in tasks)

    def teardown(self):
        if not hasattr(self, "executor"):
            return
        while self.going:
            self.finish(success(next(iter(self.executor.work.values())), ()))
        assert not self.executor.work
        ended = []
        for settled in self.settled:
            (span,) = settled.chunk.spans
            lost = {span.start + failure.record for failure in settled.failures if failure.record is not None}
            numbers = range(span.start, span.stop)
            good = settled.payload or []
            if settled.payload is None and not lost:
                lost = set(numbers)  # the chunk as a whole
            assert sorted([*good, *lost]) == list(numbers)
            ended += numbers
        assert ended == list(range(self.size))


def records(work):
    return getattr(work, "task", work).data


def positions(work):
    """Return positions in a task: of one record, of some, or none."""
    size = len(records(work))
    places = st.builds(Position, st.just(0), st.integers(0, size - 1), st.integers(1, size))
    return st.none() if isinstance(work, CountRecords) else st.none() | places


def success(work, bad):
    """Return the outcome of a task that some of its records failed in, or of a count."""
    data = records(work)
    if isinstance(work, CountRecords):
        outcome = failed(work, "worker", WorkerDied(""), len(data))
        if len(data) == 1:
            outcome = outcome._replace(failure=outcome.failure._replace(record=0, payload=str(data[0])))
        return outcome
    failures = tuple(
        failed(work, "call", ValueError("no")).failure._replace(source="records", record=at) for at in sorted(bad)
    )
    count = SpanCount("records", len(data), len(data), len(data) - len(bad), len(bad))
    good = [value for at, value in enumerate(data) if at not in bad]
    return Succeeded(work.key, Stats("w", seconds=0.1, spans=(count,), held=len(good)), failures, good)


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
