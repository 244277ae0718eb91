"""A flow of which a step fails says so: it raises, and a job without any success has failed everywhere."""

import json
import pickle

import pytest
from aborted import aborted

import batchflow as bf
from batchflow.cli import main
from batchflow.errors import FlowError


def give(value=None, *_):
    return value


def refuse(*_):
    raise ValueError("no")


def flow_of(fn=refuse, **options):
    flow = bf.Flow("sales")
    rows = flow.map_records(fn, [1, 2, 3], name="clean", **options)
    flow.step(give, rows, name="total")
    flow.step(give, 7, name="apart")
    return flow


def test_aborted_flow_raises_with_its_run(executor):
    flow = bf.Flow("sales")
    load = flow.step(refuse, name="load")
    total = flow.step(give, load, name="total")
    with pytest.raises(FlowError, match=r"^step 'load' failed: ValueError: no\nsales: 2 steps") as ended:
        flow.run(executor=executor)
    run = ended.value.run
    assert (run[load].state, run[total].state) == ("failed", "skipped")
    assert run.errors["step"].to_pylist() == ["load"]
    assert pickle.loads(pickle.dumps(FlowError("no", None))).args == ("no",)


def test_continued_flow_returns_its_run(executor):
    run = flow_of().run(executor=executor, on_error="continue")
    assert {step.name: step.state for step in run.steps} == {
        "clean": "failed",
        "total": "skipped",
        "apart": "succeeded",
    }
    assert run["apart"].value == 7


@pytest.mark.parametrize("into", [None, "out/"])
def test_job_without_a_success_is_a_failed_step(executor, tmp_path, into):
    run = aborted(flow_of(into=into and f"{tmp_path}/{into}"), executor=executor)
    step = run["clean"]
    assert step.state == "failed"
    assert (
        step.why
        == "no record succeeded: 3 records failed, the first one: records, record 1: ValueError: no (call)"
    )
    assert step.report.failed == 3
    with pytest.raises(bf.errors.StepError, match="failed: no record succeeded"):
        _ = step.value
    assert run.errors["record"].to_pylist() == [1, 2, 3]
    assert "1 failed" in str(run)
    run.draw(tmp_path / "flow.svg")
    assert "\N{BALLOT X} failed" in (tmp_path / "flow.svg").read_text()
    run.draw(tmp_path / "flow.mmd")
    assert "\N{BALLOT X} failed" in (tmp_path / "flow.mmd").read_text()


def test_job_without_a_success_stays_failed_when_nothing_is_left(tmp_path):
    """The second run finds the output finished."""
    for _ in range(2):
        assert aborted(flow_of(into=f"{tmp_path}/o/"), executor="serial")["clean"].state == "failed"


def test_job_of_no_records_has_not_failed(executor):
    flow = bf.Flow()
    rows = flow.map_records(refuse, [], name="clean")
    assert flow.run(executor=executor)[rows].state == "succeeded"


def test_command_line_ends_as_python_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows.py").write_text(
        "import batchflow as bf\n"
        "def refuse(x):\n    raise ValueError(x)\n"
        "def flow():\n    flow = bf.Flow('sales')\n    rows = flow.map_records(refuse, [1, 2], name='clean')\n"
        "    flow.step(len, rows, name='total')\n    return flow\n"
    )
    for more in ([], ["--on-error", "continue"]):
        command = [
            "flow",
            "flows.py:flow",
            "--executor",
            "serial",
            "--json",
            "--report",
            "r.html",
            "--draw",
            "f.svg",
        ]
        assert main([*command, *more]) == 1
        told = json.loads(capsys.readouterr().out)
        assert [step["state"] for step in told["steps"]] == ["failed", "skipped"]
        assert "failed" in (tmp_path / "f.svg").read_text()
        assert (tmp_path / "r.html").exists()
        for name in ("r.html", "f.svg"):
            (tmp_path / name).unlink()
