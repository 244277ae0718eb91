"""What a flow does: who waits for whom, who gets what, what becomes of failures; on every executor."""

import os
import threading
import time

import pyarrow as pa
import pytest
from aborted import aborted

import batchflow as bf
from batchflow import errors
from batchflow.events import ChunkSettled, StepEnded, StepStarted
from batchflow.testing import Script

WAITS = bf.Resources(cpus=0)


def add(*numbers):
    return sum(numbers)


def give(value=None, *_, **__):
    return value


def refuse(*_):
    raise ValueError("no")


def states(run):
    return {step.name: step.state for step in run.steps}


class Meeting:
    """Steps that meet in a folder: each goes on once all of them are there, so they must run at once."""

    def __init__(self, folder, count):
        self.folder = str(folder)
        self.count = count

    def __call__(self, name, *_):
        open(f"{self.folder}/{name}", "w").close()
        end = time.monotonic() + 30
        while len(os.listdir(self.folder)) < self.count:
            assert time.monotonic() < end, "the others did not come"
            time.sleep(0.005)
        return name


class TestValues:
    def test_they_go_from_step_to_step(self, executor):
        flow = bf.Flow()
        two, three = flow.step(give, 2, name="two"), flow.step(give, 3, name="three")
        total = flow.step(add, two, three, 10)
        run = flow.run(executor=executor, keep=[two])
        assert (run[total].value, run["two"].value, run.ok) == (15, 2, True)
        assert states(run) == {"two": "succeeded", "three": "succeeded", "add": "succeeded"}
        assert run.errors.num_rows == 0

    def test_handles_stand_anywhere_in_the_arguments(self, executor):
        flow = bf.Flow()
        one = flow.step(give, 1)
        nested = flow.step(give, {"a": [one, (one, {"b": one})], "c": 0}, name="nested")
        assert flow.run(executor=executor)[nested].value == {"a": [1, (1, {"b": 1})], "c": 0}

    def test_tables_and_any_other_objects(self, executor):
        table = pa.table({"x": range(100_000)})
        flow = bf.Flow()
        made = flow.step(give, table)
        twice = flow.step(lambda one, other: (pa.concat_tables([one, other]), threading.Lock), made, made)
        both, kind = flow.run(executor=executor)[twice].value
        assert both.equals(pa.concat_tables([table, table]))
        assert kind is threading.Lock

    def test_each_step_has_a_copy_of_its_own(self, executor):
        """What one does to its arguments, another one never sees."""
        given = [1, 2]
        flow = bf.Flow()
        first = flow.step(give, given)
        flow.step(lambda items: items.append(3), first, name="spoils")
        read = flow.step(give, first, after=flow["spoils"], name="reads")
        given.append("too late")
        assert flow.run(executor=executor)[read].value == [1, 2]

    def test_a_value_that_others_took_is_told_as_such(self, executor):
        flow = bf.Flow()
        one = flow.step(give, 1, name="one")
        flow.step(add, one)
        run = flow.run(executor=executor)
        with pytest.raises(errors.StepError, match=r"'one' gave nothing: it succeeded, but .*keep=\[step\]"):
            _ = run[one].value

    def test_coroutines_and_generators(self, executor):
        async def later(value):
            return value

        def many(count):
            yield from range(count)

        async def more(count):
            for at in range(count):
                yield at

        flow = bf.Flow()
        steps = flow.step(many, 5), flow.step(more, 3), flow.step(later, 100)
        total = flow.step(lambda some, others, one: sum(some) + sum(others) + one, *steps)
        assert flow.run(executor=executor)[total].value == 113

    def test_what_cannot_be_pickled(self, executor):
        flow = bf.Flow()
        lock = flow.step(lambda: threading.Lock(), name="lock")
        run = aborted(flow, executor=executor)
        [row] = run.errors.to_pylist()
        assert (row["step"], row["phase"], row["error_type"]) == ("lock", "convert", "TypeError")
        assert run[lock].state == "failed"


class TestOrder:
    def test_what_does_not_depend_on_each_other_runs_at_the_same_time(self, remote, tmp_path):
        """However many cores there are: they only wait."""
        meet = Meeting(tmp_path, 4)
        flow = bf.Flow()
        steps = [flow.step(meet, str(at), per_task=WAITS) for at in range(4)]
        together = flow.step(give, steps, name="together")
        assert flow.run(executor=remote)[together].value == ["0", "1", "2", "3"]

    def test_a_chain_does_not_wait_for_the_level_of_another(self, remote, tmp_path):
        """Its second step meets the first one of the other."""
        meet = Meeting(tmp_path, 2)
        flow = bf.Flow()
        flow.step(meet, "slow", per_task=WAITS)
        second = flow.step(meet, "second", flow.step(give, 1), per_task=WAITS)
        assert flow.run(executor=remote)[second].value == "second"

    def test_jobs_and_steps_run_side_by_side(self, remote, tmp_path):
        meet = Meeting(tmp_path, 2)
        flow = bf.Flow()
        step = flow.step(meet, "step", per_task=WAITS)
        rows = flow.map_records(meet, ["record"], per_task=WAITS)
        run = flow.run(executor=remote)
        assert (run[step].value, run[rows].value["value"].to_pylist()) == ("step", ["record"])

    def test_after_is_an_edge_without_data(self, executor, tmp_path):
        def write(path):
            with open(path, "w") as file:
                file.write("there")

        def read(path):
            with open(path) as file:
                return file.read()

        flow = bf.Flow()
        written = flow.step(write, str(tmp_path / "file"))
        told = flow.step(read, str(tmp_path / "file"), after=[written])
        assert flow.run(executor=executor)[told].value == "there"

    def test_caps_hold_for_everything_together(self, remote, tmp_path):
        """One core: never two at once, be they steps or chunks of a job."""

        def alone(_):
            path = f"{tmp_path}/here"
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            time.sleep(0.01)
            os.unlink(path)

        flow = bf.Flow()
        for at in range(6):
            flow.step(alone, at)
        flow.map_records(alone, range(6), chunk=1)
        flow.map_records(alone, range(6), chunk=2)
        assert flow.run(executor=remote, limits=bf.Resources(cpus=1)).raise_for_errors().ok

    def test_what_can_never_run_is_refused_before_anything_does(self, remote):
        flow = bf.Flow()
        flow.step(give, 1)
        flow.step(give, 2, per_task=bf.Resources(cpus=10_000))
        with pytest.raises(errors.ResourceError, match="one task asks for 10000 cpus"):
            flow.run(executor=remote)

    def test_only_some_steps_with_what_they_need(self, executor):
        flow = bf.Flow()
        one = flow.step(give, 1, name="one")
        two = flow.step(add, one, 1, name="two")
        flow.step(add, two, 1, name="three")
        flow.step(refuse, name="other")
        run = flow.run(executor=executor, only="two")
        assert (states(run), run[two].value) == ({"one": "succeeded", "two": "succeeded"}, 2)


class TestJobs:
    def test_over_what_a_step_gave(self, executor, tmp_path):
        (tmp_path / "a.txt").write_text("a\nb\n")
        (tmp_path / "b.txt").write_text("c\n")
        flow = bf.Flow()
        numbers = flow.map_records(lambda x: {"x": 2 * x}, flow.step(give, [1, 2, 3]))
        again = flow.map_records(lambda row: {"y": row["x"] + 1}, numbers)
        paths = flow.step(lambda folder: sorted(f"{folder}/{name}" for name in os.listdir(folder)), str(tmp_path))
        sizes = flow.map_records(lambda file: {"size": file.size}, paths, read=bf.files)
        lines = flow.map_records(str.upper, flow.step(bf.read_text, paths))
        total = flow.map_batches(lambda table: {"n": [table.num_rows]}, again, combine=None, chunk=2)
        run = flow.run(executor=executor, keep=True)
        assert run[again].value.to_pylist() == [{"y": 3}, {"y": 5}, {"y": 7}]
        assert run[sizes].value.to_pylist() == [{"size": 4}, {"size": 2}]
        assert run[lines].value["value"].to_pylist() == ["A", "B", "C"]
        assert sum(run[total].value["n"].to_pylist()) == 3
        assert run[numbers].report.rows_in == 3

    def test_on_disk(self, executor, tmp_path):
        flow = bf.Flow()
        rows = flow.map_records(lambda x: {"x": x}, range(10), into=tmp_path / "out.parquet")
        total = flow.step(
            lambda path: pa.parquet.read_table(path).num_rows if hasattr(pa, "parquet") else path, rows
        )
        run = flow.run(executor=executor, keep=[rows])
        assert run[rows].value == str(tmp_path / "out.parquet")
        assert run[total].state == "succeeded"
        again = bf.Flow()
        rows = again.map_records(lambda x: {"x": x}, range(10), into=tmp_path / "out.parquet")
        assert again.run(executor=executor)[rows].state == "cached"

    def test_failed_records_do_not_stop_it_and_stand_in_the_one_error_table(self, executor):
        flow = bf.Flow()
        rows = flow.map_records(lambda x: {"x": 1 // x}, [1, 0, 2], name="divide")
        flow.step(refuse, rows)
        run = aborted(flow, executor=executor)
        told = run.errors.select(["step", "record", "phase", "error_type", "attempts"]).to_pylist()
        assert told == [
            {"step": "divide", "record": 2, "phase": "call", "error_type": "ZeroDivisionError", "attempts": 1},
            {"step": "refuse", "record": None, "phase": "call", "error_type": "ValueError", "attempts": 1},
        ]
        assert states(run) == {"divide": "succeeded", "refuse": "failed"}

    def test_its_own_limit_of_errors_fails_the_step(self, executor):
        flow = bf.Flow()
        rows = flow.map_records(lambda x: 1 // x, [1, 0, 2], max_errors=0, name="divide")
        run = aborted(flow, executor=executor)
        assert run[rows].state == "failed"
        assert run.errors["error_type"].to_pylist() == ["ZeroDivisionError", "StoppedError"]

    def test_arguments_may_be_handles(self, executor):
        flow = bf.Flow()
        factor = flow.step(give, 3)
        rows = flow.map_records(lambda x, factor: x * factor, range(4), args={"factor": factor})
        assert flow.run(executor=executor)[rows].value["value"].to_pylist() == [0, 3, 6, 9]

    def test_objects_that_no_table_holds_come_as_a_list(self, executor):
        flow = bf.Flow()
        rows = flow.map_records(lambda x: complex(x, 1), [1, 2])
        total = flow.step(sum, rows)
        assert flow.run(executor=executor)[total].value == 3 + 2j

    @pytest.mark.parametrize("chunk", [1, 3, 100])
    def test_split_process_combine_gives_the_same_however_it_is_cut(self, executor, chunk):
        flow = bf.Flow()
        words = flow.step(lambda text: text.split(), "the quick brown fox jumps over the lazy dog " * 5)
        counted = flow.map_records(lambda word: {"word": word, "n": 1}, words, chunk=chunk)
        total = flow.step(
            lambda table: dict(sorted(table.group_by("word").aggregate([("n", "sum")]).to_pydict().items())),
            counted,
        )
        value = flow.run(executor=executor)[total].value
        assert dict(zip(value["word"], value["n_sum"], strict=True)) == {
            "the": 10,
            "quick": 5,
            "brown": 5,
            "fox": 5,
            "jumps": 5,
            "over": 5,
            "lazy": 5,
            "dog": 5,
        }


class TestFailures:
    def test_abort_starts_nothing_more(self, executor):
        flow = bf.Flow()
        flow.step(refuse)
        late = flow.step(give, 1, after=flow.step(give, 2), name="late")
        run = aborted(flow, executor=executor, limits=bf.Resources(cpus=1))
        assert states(run) == {"refuse": "failed", "give": run["give"].state, "late": "cancelled"}
        assert not run.ok
        with pytest.raises(errors.StepError, match="'late' gave nothing: it was cancelled: the flow was stopped"):
            _ = run[late].value

    def test_continue_goes_on_with_what_does_not_depend_on_it(self, executor):
        flow = bf.Flow()
        bad = flow.step(refuse)
        flow.step(add, bad, 1, name="takes")
        flow.step(give, 1, after=bad, name="waits")
        flow.step(give, after=flow["takes"], name="further")
        other = flow.step(give, 7, name="other")
        run = flow.run(executor=executor, on_error="continue")
        assert {step.name: (step.state, step.why) for step in run.steps} == {
            "refuse": ("failed", "ValueError: no"),
            "takes": ("skipped", "'refuse' failed"),
            "waits": ("skipped", "'refuse' failed"),
            "further": ("skipped", "'takes' was skipped"),
            "other": ("succeeded", ""),
        }
        assert run[other].value == 7
        with pytest.raises(errors.FailedRecordsError, match="1 record failed: refuse: ValueError: no"):
            run.raise_for_errors()

    def test_retry_and_attempts(self, executor, tmp_path):
        script = Script(tmp_path, {"a": ["raise", "raise", "ok"], "b": "raise"})
        flow = bf.Flow()
        retry = bf.Retry(attempts=3, backoff=0.0)
        good, bad = flow.step(script, "a", retry=retry, name="a"), flow.step(script, "b", retry=retry, name="b")
        hopeless = flow.step(refuse, retry=retry)
        run = flow.run(executor=executor, on_error="continue")
        assert (run[good].value, run[good].attempts, run[bad].attempts, run[hopeless].attempts) == ("a", 3, 3, 1)
        assert run.errors.select(["step", "attempts"]).to_pylist() == [
            {"step": "b", "attempts": 3},
            {"step": "refuse", "attempts": 1},
        ]

    def test_who_asks_to_be_called_later_is(self, executor, tmp_path):
        """Without any retry= three times, and not before its time."""
        script = Script(tmp_path, {"a": [errors.RetryAfter(0.3), "ok"], "b": errors.RetryAfter(0)})
        flow = bf.Flow()
        good, bad = flow.step(script, "a", name="a"), flow.step(script, "b", name="b")
        run = flow.run(executor=executor, on_error="continue")
        assert (run[good].value, run[good].attempts, run[bad].attempts) == ("a", 2, 3)
        assert run[good].seconds >= 0.3

    @pytest.mark.parametrize(
        ("manner", "phase", "kind"),
        [
            ("os._exit", "worker", "WorkerDied"),
            ("SIGSEGV", "worker", "WorkerDied"),
            ("hang", "timeout", "TimeoutError"),
            ("hang in C", "timeout", "TimeoutError"),
            ("memory", "memory", "MemoryError"),
            ("sys.exit", "call", "SystemExit"),
        ],
    )
    def test_what_ends_its_worker_fails_alone(self, remote, tmp_path, manner, phase, kind):
        script = Script(tmp_path, {"guilty": manner})
        flow = bf.Flow()
        limit = 0.5 if kind == "TimeoutError" else None
        flow.step(script, "guilty", timeout=limit, per_task=bf.Resources(memory="300MB"))
        others = [flow.step(script, at) for at in range(6)]
        run = flow.run(executor=remote, on_error="continue")
        assert [run[step].value for step in others] == list(range(6))
        assert run.errors.select(["step", "phase", "error_type", "attempts"]).to_pylist() == [
            {"step": "Script", "phase": phase, "error_type": kind, "attempts": 1}
        ]

    def test_a_worker_that_died_is_tried_again_if_asked(self, remote, tmp_path):
        script = Script(tmp_path, {"guilty": ["SIGKILL", "ok"]})
        flow = bf.Flow()
        step = flow.step(script, "guilty", retry=bf.Retry(attempts=2, backoff=0))
        run = flow.run(executor=remote)
        assert (run[step].value, run[step].attempts) == ("guilty", 2)

    def test_who_asks_for_failures_gets_them(self, executor):
        flow = bf.Flow()
        steps = [flow.step(give, 1, name="a"), flow.step(refuse, name="b"), flow.step(give, 3, name="c")]
        rows = flow.map_records(lambda x: 1 // x, [1, 0], name="rows")

        def tell(some, one, records):
            return (
                some.value,
                some.succeeded,
                some.failed,
                some.errors["step"].to_pylist(),
                one.value,
                one.failed,
                records.value["value"].to_pylist(),
                records.succeeded,
                records.failed,
                records.errors["error_type"].to_pylist(),
            )

        told = flow.step(tell, flow.allow_failed(steps), flow.allow_failed(steps[1]), flow.allow_failed(rows))
        run = flow.run(executor=executor, on_error="continue")
        assert run[told].value == ([1, 3], 2, 1, ["b"], None, 1, [1], 1, 1, ["ZeroDivisionError"])

    @pytest.mark.parametrize(("share", "state"), [(0.5, "succeeded"), (0.7, "skipped")])
    def test_a_share_that_must_have_succeeded(self, executor, share, state):
        flow = bf.Flow()
        steps = [flow.step(give, 1), flow.step(refuse), flow.step(give, 2)]
        rows = flow.map_records(lambda x: 1 // x, [1, 0, 1], name="rows")
        flow.step(give, flow.allow_failed(steps, min_success=share), name="of steps")
        flow.step(give, flow.allow_failed(rows, share), name="of records")
        run = flow.run(executor=executor, on_error="continue")
        why = "" if state == "succeeded" else "only 2 of 3 succeeded, less than min_success=0.7"
        assert [(run[name].state, run[name].why) for name in ("of steps", "of records")] == [(state, why)] * 2

    @pytest.mark.parametrize(("limit", "stops"), [(0, True), (1, True), (2, False), (0.2, True), (0.5, False)])
    def test_a_limit_for_the_whole_flow(self, executor, limit, stops):
        flow = bf.Flow()
        flow.map_records(lambda x: 1 // x, [1, 0, 2, 3])
        flow.step(refuse)
        flow.step(give, 1)
        if stops:
            with pytest.raises(errors.StoppedError, match=f"more than max_errors={limit} failed") as caught:
                flow.run(executor=executor, on_error="continue", max_errors=limit)
            assert caught.value.errors.num_rows >= 1
            assert caught.value.report.counts
        else:
            assert flow.run(executor=executor, on_error="continue", max_errors=limit).errors.num_rows == 2


class TestConditions:
    def test_a_branch_is_skipped(self, executor):
        flow = bf.Flow()
        no, yes = flow.step(give, [], name="no"), flow.step(give, [1], name="yes")
        taken = flow.step(give, 1, when=yes, name="taken")
        left = flow.step(give, 2, when=no, name="left")
        flow.step(add, left, name="behind")
        waits = flow.step(give, 3, after=left, name="waits")
        joined = flow.step(give, [taken, flow.step(give, 4, when=no, default="none", name="other")], name="joined")
        run = flow.run(executor=executor)
        assert {step.name: step.why for step in run.steps if step.state == "skipped"} == {
            "left": "its when= did not hold",
            "behind": "'left' was skipped",
            "other": "its when= did not hold",
        }
        assert (run[joined].value, run[waits].value, run.ok) == ([1, "none"], 3, True)

    def test_a_function_of_the_same_arguments(self, executor):
        flow = bf.Flow()
        number = flow.step(give, 4)
        big = flow.step(add, number, 1, when=lambda number, _: number > 5, default=0, name="big")
        small = flow.step(add, number, 1, when=lambda number, _: number < 5, name="small")
        rows = flow.map_records(give, flow.step(give, [], name="none"), when=len, default="empty", name="rows")
        run = flow.run(executor=executor)
        assert (run[big].value, run[small].value, run[rows].value) == (0, 5, "empty")

    def test_one_that_raises_fails_its_step(self, executor):
        flow = bf.Flow()
        flow.step(give, 1, when=refuse, name="step")
        flow.map_records(give, flow.step(give, [1], name="list"), when=refuse, name="job")
        run = flow.run(executor=executor, on_error="continue")
        assert states(run) == {"step": "failed", "list": "succeeded", "job": "failed"}
        assert run.errors["error_type"].to_pylist() == ["ValueError", "ValueError"]


class TestMoreSteps:
    def test_a_step_may_return_more_of_them(self, executor):
        def plan(count):
            more = bf.Flow("more")
            parts = [more.step(give, at) for at in range(count)]
            return {"total": more.step(add, *parts), "none": None, "rows": more.map_records(abs, [-1, 2])}

        flow = bf.Flow()
        planned = flow.step(plan, flow.step(give, 4), name="plan")
        end = flow.step(lambda value: (value["total"], value["rows"]["value"].to_pylist()), planned, name="end")
        run = flow.run(executor=executor)
        assert run[end].value == (6, [1, 2])
        assert [step.name for step in run.steps] == [
            "give",
            "plan",
            "end",
            "plan/give",
            "plan/give 2",
            "plan/give 3",
            "plan/give 4",
            "plan/add",
            "plan/abs",
        ]
        assert "plan/" in run.explain()

    def test_and_those_again(self, executor):
        def count_down(number):
            if number == 0:
                return ["end"]
            more = bf.Flow()
            return more.step(count_down, number - 1)

        flow = bf.Flow()
        step = flow.step(count_down, 3)
        assert flow.run(executor=executor)[step].value == ["end"]

    def test_where_they_fail_so_does_what_depends_on_them(self, executor):
        def plan():
            more = bf.Flow()
            return [more.step(refuse), more.step(give, 1)]

        flow = bf.Flow()
        flow.step(give, flow.step(plan, name="plan"), name="end")
        run = flow.run(executor=executor, on_error="continue")
        assert {step.name: step.why for step in run.steps if step.state != "succeeded"} == {
            "plan/refuse": "ValueError: no",
            "plan": "'plan/refuse' failed",
            "end": "'plan' was skipped",
        }


def test_listeners_hear_of_steps(executor):
    heard = []
    flow = bf.Flow()
    flow.step(refuse, after=flow.step(give, 1))
    aborted(flow, executor=executor, listeners=[heard.append])
    assert [event for event in heard if isinstance(event, StepStarted | StepEnded)] == [
        StepStarted("give", 1),
        StepEnded("give", "succeeded", 1, ""),
        StepStarted("refuse", 1),
        StepEnded("refuse", "failed", 1, "ValueError: no"),
    ]


def test_times_and_workers_are_told(executor):
    flow = bf.Flow("times")
    first = flow.step(time.sleep, 0.05)
    second = flow.step(give, first, name="second")
    run = flow.run(executor=executor)
    assert 0 <= run[first].start < run[first].end <= run[second].end <= run.seconds
    assert run[first].seconds >= 0.05
    assert str(run).startswith("times: 2 steps in ")
    assert run[first].worker
    assert "critical path" in run.explain()


@pytest.mark.parametrize("suffix", [".svg", ".mmd"])
def test_a_run_is_drawn(tmp_path, suffix):
    flow = bf.Flow("<drawn>")
    flow.step(refuse, flow.step(give, 1))
    flow.draw(tmp_path / f"before{suffix}")
    aborted(flow, executor="serial").draw(tmp_path / f"after{suffix}")
    before, after = ((tmp_path / f"{name}{suffix}").read_text() for name in ("before", "after"))
    assert "refuse" in before
    assert "failed" in after
    with pytest.raises(errors.UsageError, match=r"cannot draw .*x\.png: name it \.svg"):
        flow.draw(tmp_path / "x.png")


@pytest.mark.slow
def test_ten_thousand_steps_and_a_chain_of_a_thousand(executor):
    count = 10_000 if executor.name == "serial" else 300
    flow = bf.Flow()
    wide = [flow.step(give, at) for at in range(count)]
    chain = flow.step(give, 0)
    for _ in range(count // 10):
        chain = flow.step(add, chain, 1)
    total = flow.step(sum, wide)
    run = flow.run(executor=executor)
    assert (run[chain].value, run[total].value) == (count // 10, sum(range(count)))


def test_the_progress_line_counts_steps(capsys):
    flow = bf.Flow()
    flow.step(give, flow.step(give, 1))
    flow.map_records(give, range(10))
    flow.run(executor="serial", progress=True)
    err = capsys.readouterr().err
    assert "3/3" in err
    assert "steps" in err
    flow.run(executor="serial")
    assert capsys.readouterr().err == ""


def test_jobs_side_by_side_get_their_share(executor):
    """None waits for another to come to its end, however few cores there are."""
    ended = []
    flow = bf.Flow()
    for name in ("one", "two", "three"):
        flow.map_records(give, range(30), chunk=3, name=name)

    def hear(event):
        if isinstance(event, StepEnded):
            ended.append((event.step, len(done)))
        elif isinstance(event, ChunkSettled):
            done.append(event)

    done = []
    flow.run(executor=executor, limits=bf.Resources(cpus=1), listeners=[hear])
    assert len(done) == 30
    assert min(count for _, count in ended) > 20


def test_twenty_jobs_that_only_wait_run_at_the_same_time(warm, tmp_path):
    meet = Meeting(tmp_path, 20)
    flow = bf.Flow()
    for at in range(20):
        flow.map_records(meet, [str(at)], per_task=WAITS, name=f"job {at}")
    assert flow.run(executor=warm("processes")).raise_for_errors().ok
