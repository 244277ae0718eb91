"""`batchflow retry` applies the options of the run, unless its own command line overrides them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchflow as bf
from batchflow.checkpoint.manifest import job_options, options_of
from batchflow.cli import main
from batchflow.cli.targets import find_output
from batchflow.core.rate import parse_rate
from batchflow.core.retry import Retry
from batchflow.jobs.job import Job
from batchflow.plan import JobSpec

AMOUNTS = st.builds(
    bf.Resources,
    cpus=st.none() | st.integers(0, 64),
    memory=st.none() | st.sampled_from(["1GB", 50_000_000]),
    gpus=st.sampled_from([0, 0.5, 2]),
    custom=st.none() | st.just({"disk": 1.0}),
    accelerator=st.none(),
)
POLICIES = st.builds(
    Retry,
    attempts=st.integers(1, 9),
    on=st.sampled_from([None, (), (OSError, TimeoutError), bf.errors.RetryAfter]),
    backoff=st.floats(0, 9),
    jitter=st.floats(0, 1),
)


class ThrottledError(Exception):
    pass


@given(
    limits=AMOUNTS,
    per_task=AMOUNTS,
    retry=POLICIES,
    timeout=st.none() | st.floats(0.1, 99),
    concurrency=st.none() | st.integers(1, 300),
    max_errors=st.none() | st.integers(0, 9) | st.floats(0, 1),
    chunk=st.none() | st.just("8MB") | st.integers(1, 99),
    isolate=st.sampled_from([None, True, False]),
)
def test_recorded_options_give_back_the_same_job(**options):
    spec = JobSpec(len, bf.records([]), **options)
    back = JobSpec(len, spec.source, **job_options(json.loads(json.dumps(options_of(spec)))))
    for name in options.keys() - {"retry"}:
        assert getattr(back, name) == options[name]
    kinds = spec.retry.on if isinstance(spec.retry.on, tuple | None) else (spec.retry.on,)
    assert back.retry == spec.retry._replace(on=kinds)


@pytest.mark.parametrize("rate", [5, 0.001, "7/min", "1000/h burst 12", "50/s burst 10", 999_999])
def test_recorded_rate_gives_back_the_same_rate(rate):
    spec = JobSpec(len, bf.records([]), rate=rate)
    before, after = parse_rate(rate), parse_rate(options_of(spec)["rate"])
    assert after.burst == before.burst
    assert after.interval == pytest.approx(before.interval, rel=1e-6)


def test_exception_that_is_gone_names_the_option():
    spec = JobSpec(len, bf.records([]), retry=Retry(on=(ThrottledError,)))
    options = options_of(spec)
    assert job_options(options)["retry"].on == (ThrottledError,)
    options["retry"]["on"] = ["steps_that_are_gone:ThrottledError"]
    with pytest.raises(
        bf.errors.FunctionError, match=r"cannot find steps_that_are_gone:ThrottledError.*say --retry N"
    ):
        job_options(options)


def _retried(monkeypatch, arguments):
    jobs = []

    def retry_failed(job):
        jobs.append(job)
        return bf.map_records(len, bf.records([]), executor="serial")

    with monkeypatch.context() as patch:
        patch.setattr(Job, "retry_failed", retry_failed)
        main(["retry", *arguments])
    (job,) = jobs
    return job


def test_retry_command_applies_options_of_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps.py").write_text("def size(line):\n    return {'n': int(line)}\n")
    (tmp_path / "in.txt").write_text("1\nx\n")
    run = "run steps.py:size in.txt --into out/ --executor serial --rate 500/s --timeout 7 --retry 4 --memory 2GB"
    assert main([*run.split(), "--workers", "2", "--memory-per-task", "1GB", "--max-errors", "9"]) == 1
    job = _retried(monkeypatch, ["out/"])
    assert (parse_rate(job.rate), job.timeout, job.max_errors) == (parse_rate("500/s"), 7.0, 9)
    assert (job.retry.attempts, job.limits, job.per_task) == (
        4,
        bf.Resources(2, "2GB"),
        bf.Resources(memory="1GB"),
    )
    job = _retried(monkeypatch, ["out/", "--rate", "9/s", "--retry", "2", "--workers", "1"])
    assert (parse_rate(job.rate), job.timeout) == (parse_rate("9/s"), 7.0)
    assert (job.retry.attempts, job.limits) == (2, bf.Resources(1, "2GB"))


def test_resumed_run_records_its_own_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("1\nx\n" * 9)

    def run(**options):
        return bf.map_records(int, bf.read_text("in.txt"), into="out/", executor="serial", chunk="8B", **options)

    with pytest.raises(bf.errors.StoppedError):
        run(max_errors=0)
    assert run(timeout=5).report.failed == 9
    options = find_output("out/")[1]["options"]
    assert (options["max_errors"], options["timeout"]) == (None, 5)
