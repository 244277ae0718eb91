"""Rows that are used although records failed, unseen: one warning, at the user's line."""

import warnings

import pyarrow as pa
import pytest

import batchflow as bf
from batchflow.cli import main
from batchflow.errors import FailedRecordsError, FailedRecordsWarning

pytestmark = pytest.mark.filterwarnings("error")

MESSAGE = (
    r"^2 records failed, the first one: records, record 1: ZeroDivisionError: .* \(call\); "
    r"result.errors lists them, and max_errors= says how many may fail without this warning$"
)


def divide(x):
    return {"x": 12 // x}


def job(tmp_path=None, **options):
    into = tmp_path and f"{tmp_path}/out/"
    return bf.map_records(divide, bf.records([0, 1, 0]), executor="serial", into=into, **options)


USES = {
    "table": lambda result: result.table,
    "values": lambda result: result.values,
    "stream": pa.table,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("disk", [False, True])
def test_rows_used_unseen_warn_once_at_the_line_of_the_user(tmp_path, use, disk):
    result = job(tmp_path if disk else None)
    with pytest.warns(FailedRecordsWarning, match=MESSAGE) as seen:
        use(result)
    assert [warning.filename for warning in seen] == [__file__]
    use(result)  # warnings are errors here


def test_errors_looked_at_silence_it():
    result = job()
    assert result.errors.num_rows == 2
    assert result.table.num_rows == 1


def test_errors_raised_silence_it():
    result = job()
    with pytest.raises(FailedRecordsError):
        result.raise_for_errors()
    assert result.table.num_rows == 1


@pytest.mark.parametrize("limit", [2, 1.0])
def test_max_errors_silences_it(limit):
    assert job(max_errors=limit).values == [{"x": 12}]


def test_what_takes_no_rows_does_not_warn(tmp_path):
    result = job(tmp_path)
    assert (len(result), result.report.failed) == (1, 2)
    assert "2 failed" in str(result)
    assert "error" in result._repr_html_()
    result.save_report(tmp_path / "r.html")
    with pytest.warns(FailedRecordsWarning):
        _ = result.values


def test_result_without_failures_does_not_warn():
    assert bf.map_records(divide, bf.records([1]), executor="serial").values == [{"x": 12}]


def test_finished_output_warns_again(tmp_path):
    job(tmp_path)
    with pytest.warns(FailedRecordsWarning):
        _ = job(tmp_path).values


def test_retry_that_leaves_failures_warns(tmp_path):
    job(tmp_path)
    result = bf.Job(divide, bf.records([0, 1, 0]), executor="serial", into=f"{tmp_path}/out/").retry_failed()
    with pytest.warns(FailedRecordsWarning):
        _ = result.values


def test_commands_do_not_warn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps.py").write_text("def size(line):\n    return {'n': int(line)}\n")
    (tmp_path / "in.txt").write_text("1\nx\n")
    run = ["run", "steps.py:size", "in.txt", "--executor", "serial"]
    for command in (run, [*run, "--json"], [*run, "--into", "o/"], ["retry", "o/", "--executor", "serial"]):
        assert main(command) == 1
    assert "Warning" not in capsys.readouterr().err


def _flow(**options):
    flow = bf.Flow()
    rows = flow.map_records(divide, [0, 1, 0], name="divide", **options)
    return flow, flow.step(len, rows, name="count")


def test_value_of_a_flow_warns_once_if_records_failed():
    """Also that of a step which took such rows."""
    flow, count = _flow()
    run = flow.run(executor="serial")
    message = r"^2 records failed, the first one: divide: records, record 1: .*; run.errors lists them"
    with pytest.warns(FailedRecordsWarning, match=message) as seen:
        assert run[count].value == 1
    assert [warning.filename for warning in seen] == [__file__]
    assert run[count].value == 1


@pytest.mark.parametrize(
    ("job_options", "run_options", "look"),
    [({"max_errors": 2}, {}, False), ({}, {"max_errors": 2}, False), ({}, {}, True)],
)
def test_value_of_a_flow_is_silent_if_failures_are_known(job_options, run_options, look):
    flow, count = _flow(**job_options)
    run = flow.run(executor="serial", **run_options)
    if look:
        assert run.errors.num_rows == 2
    assert run[count].value == 1


def test_warning_can_be_turned_off_by_its_class():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FailedRecordsWarning)
        assert job().values == [{"x": 12}]
