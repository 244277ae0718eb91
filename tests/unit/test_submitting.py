"""What `batchflow submit` looks at before anything is sent, and how a log is followed; no cluster."""

import asyncio
import http.server
import io
import json
import os
import socket
import subprocess
import sys
import threading
import zipfile
from typing import ClassVar

import pytest
import ray

from batchflow.cli import main
from batchflow.cli.parser import add_flow, add_job, add_retry, add_scale, add_submit
from batchflow.cli.submit.job_server import JobInfo, JobServer
from batchflow.cli.submit.log_follower import LogPrinter
from batchflow.cli.submit.package import CodePackage, restore_mtimes
from batchflow.cli.submit.request import build_request, runtime_environment
from batchflow.errors import ExecutorError, UsageError
from batchflow.events import JobEnded, JobStarted
from batchflow.reporting.progress.listener import Progress
from batchflow.reporting.progress.terminal import MARK


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr("batchflow.cli.submit.commands.PATIENCE", 0)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # so that what a test sets is gone after it
    (tmp_path / "code/data").mkdir(parents=True)
    (tmp_path / "code/steps.py").write_text("def clean(row):\n    return row\n")
    (tmp_path / "code/other.py").write_text("")
    (tmp_path / "code/data/a.csv").write_text("n\n1\n")
    (tmp_path / "code/.git").mkdir()
    (tmp_path / "code/.git/config").write_text("x")
    (tmp_path / "code/.env").write_text("SECRET=1")
    (tmp_path / "code/__pycache__").mkdir()
    (tmp_path / "code/__pycache__/steps.pyc").write_text("x")
    (tmp_path / "code/env").mkdir()
    (tmp_path / "code/env/pyvenv.cfg").write_text("")
    (tmp_path / "code/.gitignore").write_text("data/\n")
    (tmp_path / "elsewhere.csv").write_text("n\n")
    monkeypatch.chdir(tmp_path / "code")
    return tmp_path / "code"


def ordered(*arguments):
    import argparse

    add = {"run": add_job, "flow": add_flow, "retry": add_retry, "scale": add_scale}[arguments[0]]
    parser = argparse.ArgumentParser()
    add(parser)
    add_submit(parser)
    parser.set_defaults(submitted=arguments[0])
    return build_request(parser.parse_args(arguments[1:]), parser)


def test_scale_goes_along_with_its_numbers_and_takes_no_output(folder):
    wanted = ordered(
        "scale",
        "steps.py:clean",
        "data/*.csv",
        "--workers",
        "1,2,4",
        "--sample",
        "5%",
        "--into",
        "/there/",
        "--plot",
        "/there.svg",
    )
    assert wanted.argv == (
        "scale",
        "steps.py:clean",
        "data/*.csv",
        "--into",
        "/there/",
        "--workers",
        "1,2,4",
        "--sample",
        "5%",
        "--plot",
        "/there.svg",
    )
    assert wanted.into is None
    with pytest.raises(UsageError, match=r"'scale.svg' would be written into the job's own folder"):
        ordered("scale", "steps.py:clean", "data/*.csv", "--plot", "scale.svg")


def test_the_parcel_is_the_folder_without_what_nobody_needs(folder, tmp_path):
    parcel = CodePackage(folder)
    assert list(parcel.files) == ["other.py", "steps.py", "data/a.csv"]
    assert list(CodePackage(folder, ["data/", "other*"]).files) == ["steps.py"]
    parcel.write(tmp_path / "one.zip")
    CodePackage(folder).write(tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == [".batchflow-times.json", "other.py", "steps.py", "data/a.csv"]
        assert archive.read("data/a.csv") == b"n\n1\n"


def test_files_have_their_times_again_where_they_arrive(folder, tmp_path, monkeypatch):
    os.utime(folder / "data/a.csv", ns=(5, 10**18 + 7))
    CodePackage(folder).write(tmp_path / "one.zip")
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        archive.extractall(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    restore_mtimes()
    assert os.stat("data/a.csv").st_mtime_ns == 10**18 + 7


def test_a_folder_that_is_too_large_is_refused_with_what_makes_it_so(folder):
    with open(folder / "data/large", "wb") as file:
        os.truncate(file.fileno(), 600 * 1024**2)
    with pytest.raises(
        UsageError, match=r"has 600 MiB and more, 600 of it in 'data', and a cluster takes 500 MiB of"
    ):
        CodePackage(folder)
    assert "steps.py" in CodePackage(folder, ["data/large"]).files


def test_the_id_tells_what_is_to_be_done(folder, monkeypatch):
    monkeypatch.setenv("KEY", "1")
    arguments = ("run", "steps.py:clean", "data/*.csv", "--into", "/there/", "--env", "KEY")
    name = ordered(*arguments).name
    assert name == ordered(*arguments[:3], "--env", "KEY", "--no-wait", "--address", "x", *arguments[3:5]).name
    (folder / ".hidden").write_text("is not sent")
    os.utime(folder / "steps.py")
    assert ordered(*arguments).name == name
    others = [ordered(*arguments, *more).name for more in (("--pip", "x"), ("--env", "A=1"), ("--workers", "2"))]
    monkeypatch.setenv("KEY", "2")
    others.append(ordered(*arguments).name)
    monkeypatch.setenv("KEY", "1")
    (folder / "other.py").write_text("changed = True")
    others.append(ordered(*arguments).name)
    assert len({name, *others}) == 6


def test_the_command_is_the_one_that_was_typed_with_paths_of_the_parcel(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    wanted = ordered(
        "run",
        "code/steps.py:clean",
        "code/data/**/*.csv",
        "s3://b/x",
        "/there/y",
        "--setup",
        "code/other.py:load",
        "--into",
        "s3://b/out/",
        "--arg",
        "a=b c",
        "--arg",
        "d=1",
        "--max-errors=-1",
        "--fresh",
        "--pip",
        "x",
        "--workers",
        "2",
    )
    assert wanted.argv == (
        "run",
        "steps.py:clean",
        "data/**/*.csv",
        "s3://b/x",
        "/there/y",
        "--setup",
        "other.py:load",
        "--arg",
        "a=b c",
        "--arg",
        "d=1",
        "--into",
        "s3://b/out/",
        "--fresh",
        "--max-errors=-1",
        "--workers",
        "2",
    )
    assert wanted.parcel.root == folder
    assert (wanted.into, wanted.pip) == ("s3://b/out", ("x",))
    assert ordered("retry", "/out/", "code/steps.py:clean", "--version", "2").argv == (
        "retry",
        "/out/",
        "steps.py:clean",
        "--version",
        "2",
    )
    assert ordered("flow", "code/steps.py:f", "--only", "a", "--only", "b").argv == (
        "flow",
        "steps.py:f",
        "--only",
        "a",
        "--only",
        "b",
    )
    assert ordered("run", "code/steps.py:clean", "/x", "--working-dir", ".").argv[1] == "code/steps.py:clean"
    assert ordered("run", "code.steps:clean", "/x").parcel.root == folder.parent


def test_batchflow_goes_along_unless_it_is_asked_for(folder, tmp_path):
    def shipped(*packages):
        options = [word for package in packages for word in ("--pip", package)]
        modules = runtime_environment(ordered("run", "steps.py:clean", "/x", *options), tmp_path).get(
            "py_modules", ()
        )
        assert [os.path.exists(f"{module}/cli/main.py") for module in modules] in ([], [True])
        return bool(modules)

    assert shipped("polars", "batchflowers")
    assert not shipped("polars", "batchflow==0.1")
    assert not shipped("batchflow[cluster] @ https://example.com/b.whl")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run", "gone.py:f", "/x"), "there is no file 'gone.py' (looked in "),
        (("run", "steps.py:f", "/x", "--working-dir", "gone"), "there is no folder "),
        (
            ("run", "steps.py:f", "/x", "--working-dir", "data"),
            "code/data, which is sent: name a --working-dir that",
        ),
        (
            ("run", "steps.py:f", "/x", "--exclude", "*.py"),
            "steps.py is left out of what is sent, as it is hidden or",
        ),
        (("run", "steps.py:f", "../elsewhere.csv"), "the input '../elsewhere.csv' lies outside of "),
        (("run", "steps.py:f", "gone/*.csv"), "no file matches 'gone/*.csv' (looked in "),
        (
            ("run", "steps.py:f", ".git"),
            "the input '.git' is left out of what is sent, as it is hidden or excluded: ",
        ),
        (
            ("run", "steps.py:f", "/x", "--into", "out/"),
            "'out/' would be written into the job's own folder, which Ray",
        ),
        (("flow", "steps.py:f", "--draw", "x.svg"), "'x.svg' would be written into the job's own folder"),
        (("flow", "steps.py:f", "--report", "x.html"), "'x.html' would be written into the job's own folder"),
        (("retry", "out/", "steps.py:f"), "'out/' would be written into the job's own folder"),
        (
            ("retry", "/out/"),
            "name the function, which is sent along: batchflow submit retry /out/ steps.py:clean",
        ),
        (("run", "steps.py:f", "/x", "--env", "NOT_SET_HERE"), "--env NOT_SET_HERE: it is not set here"),
        (("run", "steps.py:f", "/x", "--env", "=1"), "--env '=1': write it like NAME=VALUE"),
        (("run", "steps.py:f", "/x"), "name the job server of the cluster: --address http://head:8265"),
        (("run", "steps.py:f", "/x", "--address", "ray://h:1"), "'ray://h:1' is not the address of a job server"),
        (
            ("run", "steps.py:f", "/x", "--address", "127.0.0.1:1"),
            "no job server of Ray answers at http://127.0.0.1:1",
        ),
    ],
)
def test_what_cannot_work_there_is_refused_here(capsys, arguments, text):
    assert main(["submit", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert err.startswith("batchflow: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", [("jobs",), ("logs", "x"), ("stop", "x")])
def test_commands_that_find_no_cluster(capsys, command):
    assert main([*command]) == 2
    assert capsys.readouterr().err.startswith("batchflow: name the job server of the cluster: --address http://")


def test_a_python_that_is_too_old_for_us_is_told_where_the_job_runs(capsys, monkeypatch):
    monkeypatch.setenv("BATCHFLOW_JOB", "batchflow-1")
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    with pytest.raises(SystemExit, match="2"):
        main(["jobs"])
    told = capsys.readouterr().err
    assert told == "batchflow: the cluster has Python 3.9, and batchflow needs 3.11 or later there\n"


def test_a_missing_extra_is_told(tmp_path):
    code = (
        "import sys; sys.modules['pydantic'] = None\nfrom batchflow.cli import main\n"
        "sys.exit(main(['jobs', '--address', 'http://127.0.0.1:1']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "batchflow: the job server of a cluster needs ray[default]: pip install 'batchflow[cl"
    )


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, "refuses us, as its RAY_AUTH_MODE is token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"),
        (404, "is no job server of Ray, which listens on port 8265 by default"),
        (200, "no job server of Ray answers at"),
    ],
)
def test_servers_that_are_not_what_we_look_for(capsys, status, text):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert main(["jobs", "--address", f"http://127.0.0.1:{server.server_port}/"]) == 2
        finally:
            server.shutdown()
            thread.join()
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


class Client:
    """A client of Ray's whose connection breaks after so many pieces of a log."""

    def __init__(self, pieces, breaks):
        self.pieces = pieces
        self.breaks = list(breaks)

    async def tail_job_logs(self, _):
        until = self.breaks.pop(0) if self.breaks else len(self.pieces)
        if until == "silent":
            await asyncio.Event().wait()
        for piece in self.pieces[:until]:
            yield piece
        if until < len(self.pieces):
            raise RuntimeError("closed")

    def get_job_info(self, job_id):
        from types import SimpleNamespace

        return SimpleNamespace(
            submission_id=job_id,
            job_id=None,
            status="FAILED",
            start_time=1000,
            end_time=3000,
            metadata=None,
            entrypoint="x",
            driver_exit_code=3,
            message="",
        )

    def get_job_logs(self, _):
        return "".join(self.pieces) + "the rest\n"


def followed(breaks):
    cluster = JobServer.__new__(JobServer)
    cluster.address = "http://head:8265"
    cluster._client = Client(["one\n", "two\n", "three\n"], breaks)
    heard = []
    return cluster.follow("x", heard.append), "".join(heard)


def test_a_connection_that_breaks_costs_no_line_and_doubles_none(monkeypatch):
    monkeypatch.setattr("batchflow.cli.submit.job_server._TURN", 0)
    job, heard = followed([2, 0, 1])
    assert heard == "one\ntwo\nthree\nthe rest\n"
    assert (job.exit_status, job.seconds) == (3, 2)
    monkeypatch.setattr("batchflow.cli.submit.job_server.PATIENCE", -1)
    with pytest.raises(ExecutorError, match="may go on: batchflow logs x --follow"):
        followed([1, 1, 1])


def test_a_connection_that_is_gone_without_a_word_does_not_hold_up_who_follows(monkeypatch):
    monkeypatch.setattr("batchflow.cli.submit.job_server._SILENCE", 0.01)
    job, heard = followed(["silent"])
    assert heard == "one\ntwo\nthree\nthe rest\n"
    assert job.over


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("SUCCEEDED", None, 0),
        ("FAILED", 2, 2),
        ("FAILED", None, 1),
        ("FAILED", -9, 1),
        ("STOPPED", None, 130),
    ],
)
def test_exit_status(status, code, expected):
    assert JobInfo("x", status, None, None, "", None, code, "").exit_status == expected


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_drawn_in_place_and_cleared_for_lines():
    lines, terminal = [], Terminal()
    log = LogPrinter(lines.append, terminal)
    log.hear(
        "Running entrypoint for job x: y\n2026-01-01 1 INFO job_manager.py -- begins\na\tb\x1b[31m\n" + MARK + "1"
    )
    log.hear("0 %\n" + MARK + "20 %\nsecond\nlast")
    log.close()
    assert lines == ["a       b\\x1b[31m", "second", "last"]
    assert terminal.getvalue() == "\r\x1b[K10 %\r\x1b[K20 %\r\x1b[K"
    lines, nobody = [], io.StringIO()
    log = LogPrinter(lines.append, nobody)
    log.hear(f"one\n{MARK}10 %\ntwo\n")
    assert (lines, nobody.getvalue()) == (["one", "two"], "")


def test_what_a_job_lacked_is_told():
    def why(code, text=""):
        log = LogPrinter(lambda _: None, io.StringIO())
        log.hear(text)
        return log.why(JobInfo("x", "FAILED", None, None, "", None, code, "no such image"))

    assert why(None) == "x could not begin: no such image"
    assert why(127) == "the head node of the cluster has no `python` on its PATH"
    assert (
        why(1, "python: No module named batchflow\n")
        == "the cluster has no package 'batchflow': submit it with --pip batchflow"
    )
    ours = why(1, "ModuleNotFoundError: No module named 'msgspec'\n")
    assert ours.startswith("the cluster has no package 'msgspec': submit it with --pip ")
    assert "--pip msgspec" in ours
    assert "--pip ray" not in ours
    assert why(1, "ModuleNotFoundError: No module named 'ray'\n") == (
        "the `python` on the PATH of the cluster's head node is one without Ray: put the one that Ray was started with "
        "first there, as activating its environment before `ray start` does"
    )
    assert why(1, "ValueError\n") is None


def test_progress_in_a_log_is_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setenv("BATCHFLOW_PROGRESS", "lines")
    progress = Progress()
    progress(JobStarted("records", 10, "serial", 1, done=4))
    progress(JobEnded(complete=True))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{MARK}40% 4/10 records [00:00<?, 0/1 busy]"
    Progress(shown=False)(JobStarted("records", 10, "serial", 1))
    assert capsys.readouterr().err == ""


def test_jobs_in_lines_and_in_json(capsys, monkeypatch):
    jobs = [
        JobInfo("batchflow-1", "SUCCEEDED", 10.0, 12.5, "run steps.py:f x", "/out", 0, ""),
        JobInfo("raysubmit_1", "PENDING", None, None, "echo \x1b", None, None, ""),
    ]
    monkeypatch.setattr(
        "batchflow.cli.submit.commands.JobServer", lambda _: type("Fake", (), {"jobs": lambda _: jobs})()
    )
    assert main(["jobs"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split() == ["batchflow-1", "SUCCEEDED", *line.split()[2:4], "2", "s", "run", "steps.py:f", "x"]
    assert main(["jobs", "--all"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "raysubmit_1",
        "PENDING",
        "-",
        "0",
        "s",
        "echo",
        r"\x1b",
    ]
    assert main(["jobs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "id": "batchflow-1",
        "status": "SUCCEEDED",
        "begun": 10.0,
        "seconds": 2.5,
        "what": "run steps.py:f x",
        "into": "/out",
        "exit_code": 0,
    }


class StartingHead(http.server.BaseHTTPRequestHandler):
    """A job server that refuses its first requests of each kind."""

    refusals: ClassVar = {"/api/version": [], "/api/jobs/": [], "submit": []}

    def do_GET(self):
        answer = {"ray_version": ray.__version__, "version": "4"} if self.path == "/api/version" else []
        self.answer(self.path, answer if self.path in self.refusals else {})

    def do_PUT(self):
        self.answer("upload", {})

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer("submit", {"job_id": sent["submission_id"], "submission_id": sent["submission_id"]})

    def answer(self, kind, body):
        refusals = self.refusals.get(kind)
        status, data = refusals.pop(0) if refusals else (200, json.dumps(body).encode())
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def starting_head():
    with http.server.HTTPServer(("127.0.0.1", 0), StartingHead) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


AGENT = b"No available agent to submit job, please try again later."


@pytest.mark.parametrize(
    ("kind", "refusal", "why"),
    [
        ("/api/version", (503, b"starting"), "503 Server Error"),
        ("/api/jobs/", (503, b"starting"), "status code 503"),
        ("submit", (500, AGENT), "No available agent to submit job, please try again later"),
        ("submit", (502, b"bad gateway"), "status code 502"),
    ],
)
def test_submit_waits_for_a_cluster_that_starts(folder, capsys, monkeypatch, starting_head, kind, refusal, why):
    monkeypatch.setattr("batchflow.cli.submit.commands.PATIENCE", 60)
    monkeypatch.setattr("batchflow.cli.submit.job_server._TURN", 0.001)
    monkeypatch.setitem(StartingHead.refusals, kind, [refusal] * 3)
    address = f"http://127.0.0.1:{starting_head.server_port}"
    assert (
        main(["submit", "run", "steps.py:clean", "/x.csv", "--into", "/out/", "--no-wait", "--address", address])
        == 0
    )
    assert StartingHead.refusals[kind] == []  # each was met
    (message, submitted, _) = capsys.readouterr().err.splitlines()
    assert message == f"batchflow: {address} is not ready ({why}): waiting up to 60 s for it"
    assert submitted.startswith("submitted batchflow-")


def test_submit_waits_for_a_port_that_opens(folder, capsys, monkeypatch):
    monkeypatch.setattr("batchflow.cli.submit.commands.PATIENCE", 60)
    monkeypatch.setattr("batchflow.cli.submit.job_server._TURN", 0.001)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begun = []

    def open_port(line):
        server = http.server.HTTPServer(("127.0.0.1", port), StartingHead)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        begun.append((server, thread, line))

    JobServer(f"127.0.0.1:{port}", patience=60, announce=open_port)
    ((server, thread, line),) = begun
    server.shutdown()
    thread.join()
    server.server_close()
    assert line == f"http://127.0.0.1:{port} is not ready (Connection refused): waiting up to 60 s for it"


def test_submit_gives_up_after_its_patience(folder, capsys, monkeypatch, starting_head):
    monkeypatch.setattr("batchflow.cli.submit.commands.PATIENCE", 0.05)
    monkeypatch.setattr("batchflow.cli.submit.job_server._TURN", 0.001)
    monkeypatch.setitem(StartingHead.refusals, "submit", [(500, AGENT)] * 1000)
    address = f"http://127.0.0.1:{starting_head.server_port}"
    assert main(["submit", "run", "steps.py:clean", "/x.csv", "--into", "/out/", "--address", address]) == 2
    assert "No available agent" in capsys.readouterr().err.splitlines()[-1]


def test_submit_does_not_wait_for_a_refusal_of_another_kind(folder, capsys, monkeypatch, starting_head):
    monkeypatch.setattr("batchflow.cli.submit.commands.PATIENCE", 60)
    monkeypatch.setitem(StartingHead.refusals, "submit", [(400, b"no such resource")])
    address = f"http://127.0.0.1:{starting_head.server_port}"
    assert main(["submit", "run", "steps.py:clean", "/x.csv", "--into", "/out/", "--address", address]) == 2
    assert "no such resource" in capsys.readouterr().err
