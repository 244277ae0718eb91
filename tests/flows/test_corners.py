"""Corners of flows in which somebody once was lost, hung, or got what was another's."""

import gc
import threading

import pytest
from aborted import aborted

import batchflow as bf
from batchflow import errors
from batchflow.events import StepEnded

WAITS = bf.Resources(cpus=0)


def give(value=None, *_):
    return value


def refuse(*_):
    raise ValueError("no")


def states(run):
    return {step.name: step.state for step in run.steps}


class Unmakeable:
    """Cannot be made again in the driver."""

    def __init__(self, pid):
        self.pid = pid

    def __reduce__(self):
        return _make, (self.pid,)


def _make(pid):
    import os

    if os.getpid() == pid:
        raise RuntimeError("not here")
    return Unmakeable(pid)


class TestRoom:
    def test_workers_that_are_counted_are_how_many_run(self):
        with bf.Processes(workers=1) as one:
            flow = bf.Flow()
            steps = [flow.step(give, at, per_task=bf.Resources(cpus=at)) for at in (0, 1, 2)]
            flow.map_records(give, [1], per_task=bf.Resources(cpus=2))
            run = flow.run(executor=one)
            assert [run[step].value for step in steps] == [0, 1, 2]
            assert len({step.worker for step in run.steps[:3]}) == 1

    def test_what_never_fits_is_told_with_its_step(self, executor):
        for per_task in (bf.Resources(cpus=1000), bf.Resources(memory="900TB")):
            flow = bf.Flow()
            flow.step(give, 1, per_task=per_task, name="large")
            with pytest.raises(errors.ResourceError, match=r"^step 'large': one task asks for "):
                flow.run(executor=executor)
            flow.step(give, 2)  # nothing has run, so it can still be written
            assert flow.run(executor=executor, only="give").ok

    @pytest.mark.parametrize("per_task", [bf.Resources(cpus=1000), bf.Resources(gpus=1)], ids=["cpus", "gpus"])
    def test_also_of_a_step_that_a_step_returned(self, executor, per_task):
        def plan():
            more = bf.Flow()
            return more.step(give, 1, per_task=per_task)

        flow = bf.Flow()
        flow.step(plan)
        run = aborted(flow, executor=executor)
        assert run.errors.select(["step", "error_type"]).to_pylist() == [
            {"step": "plan", "error_type": "ResourceError"}
        ]

    def test_fractions_of_a_core_add_up(self, executor):
        flow = bf.Flow()
        for _ in range(30):
            flow.step(give, 1, per_task=bf.Resources(cpus=0.1))
        flow.step(give, 1, per_task=bf.Resources(cpus=1), after=list(map(flow.__getitem__, flow._names)))
        assert flow.run(executor=executor, limits=bf.Resources(cpus=1)).counts == {"succeeded": 31}


class TestNames:
    def test_a_handle_is_of_its_own_flow_and_of_its_own_step(self, executor):
        def plan():
            more, other = bf.Flow(), bf.Flow()
            return more.step(abs, -5), other.step(abs, -6)

        flow = bf.Flow()
        flow.step(plan, name="p")
        step = flow.step(abs, -7, name="p/abs")
        run = flow.run(executor=executor, keep=True)
        assert (run[step].value, run["p"].value) == (7, (5, 6))
        assert [one.name for one in run.steps] == ["p", "p/abs", "p/abs 2", "p/abs 3"]
        other = bf.Flow()
        with pytest.raises(
            errors.UsageError, match="<Step 'p' of 'flow'> is a step of another flow than the one that ran"
        ):
            _ = run[other.step(give, name="p")]

    def test_what_is_kept_of_some_steps(self, executor):
        """Those that were asked for, whatever their number among all steps."""
        flow = bf.Flow()
        flow.step(refuse)
        one = flow.step(give, 1, name="one")
        two = flow.step(give, one, name="two")
        three = flow.step(give, two, name="three")
        run = flow.run(executor=executor, only=[three, one], keep=[two])
        assert [run[step].value for step in (one, two, three)] == [1, 1, 1]
        run = flow.run(executor=executor, only=three)
        assert [run[step].opened is None for step in (one, two, three)] == [True, True, False]


class TestShared:
    def test_a_flow_beside_a_stream_on_one_executor(self, executor):
        """Each gets its own outcomes."""
        seen = []
        for table in bf.stream_batches(give, bf.records(range(12)), per="record", chunk=1, executor=executor):
            flow = bf.Flow()
            step = flow.step(give, table["value"][0].as_py())
            rows = flow.map_records(give, [1, 2])
            run = flow.run(executor=executor, keep=[rows])
            seen.append((run[step].value, run[rows].value["value"].to_pylist()))
        assert seen == [(at, [1, 2]) for at in range(12)]

    def test_a_flow_inside_a_step_on_the_same_executor(self):
        with bf.Serial() as serial:
            warm = [serial]
            here.append(warm)
            flow = bf.Flow()
            step = flow.step(inner)
            assert flow.run(executor=serial)[step].value == 1


here = []


def inner():
    flow = bf.Flow()
    step = flow.step(give, 1)
    return flow.run(executor=here[0][0])[step].value


class TestFailures:
    def test_a_share_of_what_came_to_nothing(self, executor, tmp_path):
        """A step skipped for a failure counts as failed, a job that failed as well; one not wanted does not count."""
        flow = bf.Flow()
        bad = flow.step(refuse, name="bad")
        behind = flow.step(give, bad, name="behind")
        job = flow.map_records(give, bf.read_text(tmp_path / "nothing"), name="job")
        unwanted = flow.step(give, 1, when=lambda _: False, name="unwanted")
        for number, steps in enumerate((behind, job, unwanted, [unwanted, flow.step(give, 2)])):
            flow.step(give, flow.allow_failed(steps, 1.0), name=f"taker {number}")
        run = flow.run(executor=executor, on_error="continue")
        assert {name: state for name, state in states(run).items() if name.startswith("taker")} == {
            "taker 0": "skipped",
            "taker 1": "skipped",
            "taker 2": "succeeded",
            "taker 3": "succeeded",
        }

    def test_an_abort_on_serial_begins_nothing_that_waits(self):
        called = []
        flow = bf.Flow()
        flow.step(refuse)
        for at in range(20):
            flow.step(give, at, per_task=WAITS)
        run = aborted(flow, executor="serial", listeners=[called.append])
        assert run.counts == {"failed": 1, "cancelled": 20}
        ended = [event for event in called if isinstance(event, StepEnded)]
        assert sorted(event.state for event in ended) == ["cancelled"] * 20 + ["failed"]  # each is told of

    def test_one_that_waits_for_another_try_has_failed_when_the_flow_stops(self, executor):
        flow = bf.Flow()
        flow.step(raises, retry=bf.Retry(attempts=2, backoff=60, jitter=0), name="again")
        flow.step(refuse, after=flow.step(give, name="first"), name="stops")
        run = aborted(flow, executor=executor)
        assert states(run) == {"again": "failed", "first": "succeeded", "stops": "failed"}
        assert run.errors.select(["step", "attempts"]).to_pylist() == [
            {"step": "again", "attempts": 1},
            {"step": "stops", "attempts": 1},
        ]

    def test_steps_that_cannot_be_made_again_here(self, remote):
        import os

        pid = os.getpid()

        def plan():
            more = bf.Flow()
            return {"step": more.step(give, 1), "other": Unmakeable(pid)}

        flow = bf.Flow()
        flow.step(plan)
        [row] = aborted(flow, executor=remote).errors.to_pylist()
        assert (row["step"], row["error_type"], row["message"]) == ("plan", "RuntimeError", "not here")

    def test_a_step_that_returns_one_of_the_flow_that_runs(self, executor):
        flow = bf.Flow("mine")
        one = flow.step(give, 1, name="one")
        flow.step(lambda: one, name="two")
        [row] = aborted(flow, executor=executor).errors.to_pylist()
        assert row["message"] == "it returned a step of 'mine', which runs already: write a new Flow inside of it"

    def test_an_exit_while_a_source_is_made(self, executor):
        flow = bf.Flow()
        flow.map_records(give, flow.step(give, [1]), read=exits, name="job")
        assert aborted(flow, executor=executor).errors["error_type"].to_pylist() == ["SystemExit"]


def raises():
    raise OSError("not yet")


def exits(_):
    raise SystemExit(3)


def test_handles_deep_in_what_a_step_returned(executor):
    def plan():
        more = bf.Flow()
        return {"a": [{"b": (more.step(give, 1), [more.step(give, 2)])}]}

    flow = bf.Flow()
    step = flow.step(plan)
    assert flow.run(executor=executor)[step].value == {"a": [{"b": (1, [2])}]}


def test_a_condition_that_is_a_coroutine(executor):
    async def no(*_):
        return False

    flow = bf.Flow()
    flow.step(give, 1, when=no, name="step")
    flow.map_records(give, flow.step(give, [1], name="list"), when=no, name="job")
    assert states(flow.run(executor=executor)) == {"step": "skipped", "list": "succeeded", "job": "skipped"}


def test_a_job_over_what_is_left_of_another(executor):
    flow = bf.Flow()
    some = flow.map_records(lambda x: 6 // x, [1, 0, 2])
    rows = flow.map_records(lambda row: row["value"] + 1, flow.allow_failed(some))
    assert flow.run(executor=executor)[rows].value["value"].to_pylist() == [7, 4]


@pytest.mark.cluster
def test_a_value_of_a_ray_that_is_gone(script):
    done = script(
        """
        import batchflow as bf

        with bf.Ray() as ray:
            flow = bf.Flow()
            step = flow.step(list, (1, 2))
            run = flow.run(executor=ray)
        try:
            run[step].value
        except bf.errors.ExecutorError as error:
            print(error)
        """
    )
    assert done.stdout == "the Ray that held this value was closed meanwhile: ask for the value before\n"


def test_a_run_that_was_interrupted_tells_what_became_of_each_step(tmp_path):
    import os
    import signal

    flow = bf.Flow()
    first = flow.step(os.kill, os.getpid(), signal.SIGINT, name="first")
    flow.step(give, 1, after=first, name="late")
    with pytest.raises(errors.InterruptedRun) as caught:
        flow.run(executor="serial")
    assert states(caught.value.run) == {"first": "succeeded", "late": "cancelled"}
    alone = bf.Flow()
    alone.step(os.kill, os.getpid(), signal.SIGINT, name="last")
    assert alone.run(executor="serial").ok  # nothing was left to do


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_errors": "3"}, "max_errors='3' must be a count"),
        ({"max_errors": True}, "max_errors=True must be a count"),
        ({"max_errors": float("nan")}, "max_errors=nan must be a count"),
        ({"limits": 2}, "limits=2 must be Resources"),
        ({"keep": [3]}, "keep=3 is no step"),
        ({"listeners": print}, "listeners=.* is a function: pass a list"),
    ],
)
def test_runs_that_cannot_be(options, message):
    flow = bf.Flow()
    flow.step(give, 1)
    with pytest.raises(errors.UsageError, match=message):
        flow.run(executor="serial", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_task": 2}, "'give': per_task=2 must be Resources"),
        ({"timeout": True}, "step 'give': timeout=True must be a number of seconds"),
        ({"name": ""}, "step 1 of flow 'flow': name='' must be a text"),
        ({"name": 3}, "step 1 of flow 'flow': name=3 must be a text"),
    ],
)
def test_steps_that_cannot_be(options, message):
    with pytest.raises(errors.UsageError, match=message):
        bf.Flow().step(give, 1, **options)


def test_a_parameter_that_is_called_like_an_option():
    with pytest.raises(
        errors.UsageError, match=r"missing a required argument: 'name' \(name= is an option of the step: pass"
    ):
        bf.Flow().step(lambda name: name, name="north")


def test_functions_of_main_with_what_only_main_has(script):
    """Where calls are pickled once: exceptions to retry on, and rows of a job, may be of ``__main__`` too."""
    done = script(
        """
        import batchflow as bf

        class Odd(Exception):
            pass

        class Thing:
            def __init__(self, value):
                self.value = value

        def fails(path):
            try:
                open(path, "x").close()
            except FileExistsError:
                return Thing(1)
            raise Odd

        def add(thing, things):
            return thing.value + sum(one.value for one in things)

        flow = bf.Flow()
        step = flow.step(fails, "here", retry=bf.Retry(2, on=Odd, backoff=0))
        things = flow.map_records(Thing, [10, 20])
        total = flow.step(add, step, things)
        print(flow.run(executor="processes")[total].value)
        """
    )
    assert done.stdout == "31\n"


def test_threads_may_write_flows_at_the_same_time():
    values = []

    def work(at):
        flow = bf.Flow()
        step = flow.step(give, at)
        values.append(flow.run(executor="serial")[step].value)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(values) == list(range(5))


@pytest.mark.parametrize("name", ["serial", "processes"])
@pytest.mark.parametrize("last", [give, refuse])
def test_a_flow_leaves_nothing_for_the_garbage_collector(warm, name, last):
    """What it held goes with it, large values among that, and short flows wait for no search for garbage."""

    def run():
        flow = bf.Flow()
        first = flow.step(give, 1)
        end = flow.step(last, [flow.step(give, first), flow.step(give, first)])
        return flow.run(executor=warm(name), on_error="continue", progress=False)[end].state

    run()  # loads what is loaded once
    gc.collect()
    gc.disable()
    try:
        assert run() == ("succeeded" if last is give else "failed")
        assert gc.collect() == 0
    finally:
        gc.enable()
