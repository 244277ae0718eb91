"""What a run leaves to look at: beside an output, saved from a result or a flow, shown by the command line."""

import json
import os
import re
import webbrowser

import pytest
import trace_format
from seen import seen

import batchflow as bf
from batchflow import errors
from batchflow.cli import main
from batchflow.reporting import export as papers
from batchflow.reporting.timeline import STATES


def clean(line):
    if line == "3":
        raise ValueError("three </script>")
    return {"n": int(line)}


def run(tmp_path, **options):
    (tmp_path / "in.txt").write_text("1\n2\n3\n4\n5\n")
    return bf.map_records(
        clean, bf.read_text(str(tmp_path / "in.txt")), **{"executor": "serial", "chunk": "4B", **options}
    )


def told(path):
    """Return what a page, or a file of values, tells."""
    text = path.read_text()
    if path.suffix == ".html":
        (text,) = re.findall(r'<script type="application/json" id="told">(.*?)</script>', text)
    return json.loads(text)


def check(folder):
    """Assert that the files of a run tell the same, and return that."""
    values = told(folder / "report.json")
    assert told(folder / "report.html") == values
    assert list(trace_format.problems(told(folder / "trace.json"))) == []
    return values


def states(values):
    at = values["timeline"]["columns"].index("state")
    return [STATES[task[at]] for task in values["timeline"]["tasks"]]


def test_a_run_leaves_a_report_beside_its_output(tmp_path, executor):
    result = run(tmp_path, into=tmp_path / "out/", executor=executor)
    values = check(tmp_path / ".out_batchflow")
    assert (values["rows_in"], values["rows_out"], values["failed"], values["complete"]) == (5, 4, 1, True)
    assert sorted(states(values)) == ["ok", "ok", "some failed"]
    (group,) = values["errors"]["groups"]
    assert (group["error_type"], group["where"][:15], group["count"]) == ("ValueError", "test_reports.py", 1)
    assert group["examples"][0]["record"] == 3
    assert values["plan"]["function"].endswith("test_reports.clean")
    assert values["plan"]["options"] == {"chunk": "4B"}
    assert values["environment"]["batchflow"] == bf.__version__
    for name in ("copy.html", "copy.json"):
        result.save_report(tmp_path / name)
        assert told(tmp_path / name) == values
    result.save_report(tmp_path / "copy.trace.json")
    assert told(tmp_path / "copy.trace.json") == told(tmp_path / ".out_batchflow/trace.json")


def test_so_does_one_file(tmp_path):
    run(tmp_path, into=tmp_path / "out.parquet")
    assert check(tmp_path / ".out.parquet_batchflow")["rows_out"] == 4


def test_a_run_that_is_stopped_leaves_what_it_came_to(tmp_path):
    with pytest.raises(errors.StoppedError):
        run(tmp_path, into=tmp_path / "out/", max_errors=0)
    values = check(tmp_path / ".out_batchflow")
    assert not values["complete"]
    assert values["errors"]["groups"][0]["count"] == 1
    assert states(values) == ["ok", "some failed"]


def test_after_nothing_was_left_to_do_it_is_that_of_the_run_before(tmp_path):
    run(tmp_path, into=tmp_path / "out/")
    before = (tmp_path / ".out_batchflow/report.html").read_bytes()
    again = bf.map_records(clean, bf.read_text(str(tmp_path / "in.txt")), into=tmp_path / "out/", chunk="4B")
    assert "nothing to do" in str(again.report)
    again.save_report(tmp_path / "copy.html")
    assert (tmp_path / "copy.html").read_bytes() == before


def test_what_a_retry_mended_is_told_of_no_more(tmp_path):
    run(tmp_path, into=tmp_path / "out/")
    source = bf.read_text(str(tmp_path / "in.txt"))
    bf.Job(
        lambda line: {"n": int(line)},
        source,
        into=str(tmp_path / "out/"),
        chunk="4B",
        version="2",
        executor="serial",
    ).retry_failed()
    values = check(tmp_path / ".out_batchflow")
    assert (values["errors"]["groups"], values["failed"], values["rows_out"]) == ([], 0, 5)
    assert states(values) == ["ok"]


def test_deaths_and_tries_are_told_of(tmp_path):
    def fn(n):
        if n == 3:
            os._exit(7)
        return {"n": n}

    bf.map_records(fn, bf.records(range(8)), into=tmp_path / "out/", executor=bf.Processes(workers=1), chunk=8)
    values = check(tmp_path / ".out_batchflow")
    at = values["timeline"]["columns"].index("state")
    deaths = [mark for mark in values["timeline"]["marks"] if STATES[mark[at + 1]] == "died"]
    assert len(deaths) == 3  # the chunk, then the record alone, tried twice
    assert all(values["timeline"]["workers"][mark[1]] for mark in deaths)
    names = [
        event["name"]
        for event in told(tmp_path / ".out_batchflow/trace.json")["traceEvents"]
        if event["ph"] == "i"
    ]
    assert names.count("died") == len(deaths)


def test_tasks_that_isolate_a_record_are_named_and_drawn(tmp_path):
    def fn(n):
        if n == 3:
            os._exit(7)
        return {"n": n}

    result = bf.map_records(
        fn, bf.records(range(8)), into=tmp_path / "out/", executor=bf.Processes(workers=1), chunk=8
    )
    values = check(tmp_path / ".out_batchflow")
    tasks = [dict(zip(values["timeline"]["columns"], row, strict=True)) for row in values["timeline"]["tasks"]]
    assert sorted((task["records"], task["isolating"]) for task in tasks) == [(3, 1), (4, 1)]  # before, and after
    assert values["isolation_tasks"] == 4  # all once more, those two, and the record
    assert "(4 tasks to isolate a failed record, " in str(result.report).splitlines()[0]
    drawn = [event for event in told(tmp_path / ".out_batchflow/trace.json")["traceEvents"] if event["ph"] == "X"]
    assert [event["args"]["isolating"] for event in drawn] == [True, True]


def test_report_without_isolation_says_nothing_of_it(tmp_path):
    result = run(tmp_path)
    assert result.report.isolation_tasks == 0
    assert "isolate" not in str(result.report)


@pytest.mark.parametrize("options", [{}, {"combine": lambda table: table}])
def test_a_result_in_memory_saves_its_report(tmp_path, options):
    result = run(tmp_path, **options)
    result.save_report(tmp_path / "report.json")
    assert told(tmp_path / "report.json")["rows_out"] == result.report.rows_out
    assert told(tmp_path / "report.json")["plan"]["output"] is None
    assert len(states(told(tmp_path / "report.json"))) == 3


@pytest.mark.parametrize("name", ["report", "report.pdf", "report.json.gz"])
def test_a_name_that_tells_no_kind_is_refused(tmp_path, name):
    with pytest.raises(
        errors.UsageError, match=r"name it \.html \(a page\), \.json \(values\) or \.trace\.json \(a trace\)"
    ):
        run(tmp_path).save_report(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_an_output_without_a_report_says_so(tmp_path):
    result = run(tmp_path, into=tmp_path / "out/")
    (tmp_path / ".out_batchflow/report.json").write_text('{"rows_in": 5}')  # of an older version
    with pytest.raises(errors.InputError, match=r"no report: .*report\.json is not one"):
        result.save_report(tmp_path / "copy.html")
    (tmp_path / ".out_batchflow/report.json").unlink()
    with pytest.raises(errors.InputError, match=r"no report: there is no .*report\.json; a job leaves one"):
        result.save_report(tmp_path / "copy.html")


# ---- Flows


def half(number):
    return {"half": 10 // number}


def flow_of(tmp_path):
    flow = bf.Flow("sales </script>")
    numbers = flow.step(lambda: [1, 2, 0, 5], name="numbers")
    halves = flow.map_records(half, numbers, name="halves", into=str(tmp_path / "halves/"))
    flow.step(lambda: [][1], name="broken")
    flow.step(lambda path: path, halves, name="told", after=flow["broken"])
    return flow


def test_a_flow_saves_its_report(tmp_path, executor):
    flow_run = flow_of(tmp_path).run(on_error="continue", executor=executor)
    flow_run.save_report(tmp_path / "flow.json")
    values = told(tmp_path / "flow.json")
    assert [
        (step["name"], step["kind"], step["state"], step["rows_in"], step["failed"])
        for step in sorted(values["steps"], key=lambda step: step["name"])
    ] == [
        ("broken", "step", "failed", None, 1),
        ("halves", "map", "succeeded", 4, 1),
        ("numbers", "step", "succeeded", None, 0),
        ("told", "step", "skipped", None, 0),
    ]
    assert dict(values["counts"]) == {"succeeded": 2, "failed": 1, "skipped": 1}
    assert sorted(group["error_type"] for group in values["errors"]["groups"]) == [
        "IndexError",
        "ZeroDivisionError",
    ]
    assert [
        group["examples"][0]["step"]
        for group in values["errors"]["groups"]
        if group["error_type"] == "ZeroDivisionError"
    ] == ["halves"]
    assert values["graph"].startswith("<svg")
    assert values["critical"]
    flow_run.save_report(tmp_path / "flow.trace.json")
    trace = told(tmp_path / "flow.trace.json")
    assert list(trace_format.problems(trace)) == []
    assert {event["name"] for event in trace["traceEvents"] if event["ph"] == "X"} == {
        "numbers",
        "halves",
        "broken",
    }
    flow_run.save_report(tmp_path / "flow.html")
    page = told(tmp_path / "flow.html")
    assert page == {name: value for name, value in values.items() if name != "graph"}
    assert check(tmp_path / ".halves_batchflow")["failed"] == 1


def test_of_a_flow_of_thousands_of_steps_the_longest_and_the_failed_are_told(tmp_path):
    flow = bf.Flow("many")
    for number in range(5000):
        flow.step(divmod, 7, number - 10)
    flow_run = flow.run(on_error="continue", executor="serial")
    flow_run.save_report(tmp_path / "flow.html")
    values = told(tmp_path / "flow.html")
    assert (values["total"], len(values["steps"])) == (5000, 4000)
    assert [step["number"] for step in values["steps"] if step["state"] == "failed"] == [10]
    assert (tmp_path / "flow.html").stat().st_size < 2_000_000


# ---- The command line

STEPS = """
import batchflow as bf

def clean(line):
    return {"n": int(line)}

flow = bf.Flow("two")
flow.step(int, "1", name="one")
flow.step(int, "x", name="bad")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "in.txt").write_text("1\n2\n")
    assert main(["run", "steps.py:clean", "in.txt", "--into", "out/", "--quiet", "--executor", "serial"]) == 0
    return tmp_path


def test_the_command_tells_where_the_report_is(folder, capsys):
    assert main(["report", "out/"]) == 0
    assert capsys.readouterr().out == f"{folder}/.out_batchflow/report.html\n"
    assert main(["report", "out", "--trace"]) == 0
    assert capsys.readouterr().out == f"{folder}/.out_batchflow/trace.json\n"


def test_the_command_opens_it_in_a_browser(folder, capsys, monkeypatch):
    (folder / "browser").write_text(f'#!/bin/sh\necho "$1" > {folder}/opened\n')
    (folder / "browser").chmod(0o755)
    monkeypatch.setattr(webbrowser, "_tryorder", None)  # it is looked for once in a process
    monkeypatch.setenv("BROWSER", f"{folder}/browser")
    assert main(["report", "out/", "--open"]) == 0
    assert (folder / "opened").read_text() == f"file://{folder}/.out_batchflow/report.html\n"


def test_the_command_says_so_where_no_browser_can_be_opened(folder, capsys, monkeypatch):
    monkeypatch.setattr(webbrowser, "_tryorder", [])
    assert main(["report", "out/", "--open"]) == 1
    assert (
        capsys.readouterr().err
        == f"no browser could be opened here: copy the file, or open file://{folder}/.out_batchflow/report.html\n"
    )


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "out/",
            "'out/' has no report: no {folder}/.out_batchflow/report.html, which a run leaves when it ends, finished or not",
        ),
        (
            ".",
            "'.' is no output of batchflow: there is no ledger.log in {folder.parent}/.{folder.name}_batchflow; name the folder or file that a run wrote",
        ),
    ],
)
def test_the_command_says_so_where_there_is_none(folder, capsys, output, message):
    (folder / ".out_batchflow/report.html").unlink()
    assert main(["report", output]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"batchflow: {message.format(folder=folder)}\n")


def test_a_flow_writes_its_report_also_where_it_stops(folder, capsys):
    assert main(["flow", "steps.py:flow", "--report", "flow.html", "--quiet", "--executor", "serial"]) == 1
    assert told(folder / "flow.html")["flow"] == "two"
    (folder / "flow.html").unlink()
    assert (
        main(
            [
                "flow",
                "steps.py:flow",
                "--report",
                "flow.html",
                "--quiet",
                "--executor",
                "serial",
                "--max-errors",
                "0",
            ]
        )
        == 3
    )
    assert dict(told(folder / "flow.html")["counts"]) == {"succeeded": 1, "failed": 1}


@pytest.mark.parametrize(("name", "why"), [("flow.pdf", "name it .html"), ("no/flow.html", "there is no folder")])
def test_a_flow_refuses_the_name_of_a_report_before_it_runs(folder, capsys, name, why):
    assert main(["flow", "steps.py:flow", "--report", name]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.startswith(f"batchflow: cannot save a report as {name}: {why}")) == ("", True)


def test_a_report_that_cannot_be_written_is_told_in_one_line(tmp_path):
    result = run(tmp_path)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(errors.OutputError, match=r"^cannot write the report .*/report\.html: Is a directory$"):
        result.save_report(tmp_path / "report.html")


def test_a_page_that_cannot_be_made_costs_no_rows(tmp_path, monkeypatch, caplog):
    def broken(told):
        raise KeyError("colour")

    monkeypatch.setattr(papers, "page", broken)
    result = run(tmp_path, into=tmp_path / "out/")
    assert seen(result).table["n"].to_pylist() == [1, 2, 4, 5]
    assert sorted(path.name for path in (tmp_path / ".out_batchflow").glob("*.json")) == [
        "plan.json",
        "report.json",
        "trace.json",
    ]
    assert [record.message for record in caplog.records] == ["cannot make report.html, which is left out"]
