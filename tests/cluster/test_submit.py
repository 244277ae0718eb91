"""Commands submitted to a real Ray: what runs there, what is told here, and what is left to go on with."""

import json
import os
import re
import signal
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from head import Commands, head

pytestmark = pytest.mark.cluster

STEPS = '''
import os
import pathlib

HERE = pathlib.Path(__file__).parent

def by_factor(row):
    return {"n": row["n"] * int((HERE / "factor.txt").read_text()) * int(open("factor.txt").read())}

def clean(row):
    if row["n"] == 3:
        raise ValueError("three")
    return row

def tell(row):
    return {"given": os.environ["GIVEN"], "taken": os.environ["TAKEN"]}

def gate(row, folder):
    """Leave a trace of each call; wait in the third one, if there is somebody who opens the gate."""
    os.close(os.open(f"{folder}/calls/{row['n']}-{os.getpid()}-{os.urandom(4).hex()}", os.O_CREAT))
    if row["n"] == 3 and os.path.exists(f"{folder}/go"):
        with open(f"{folder}/begun", "w") as file:
            file.write("begun")
        with open(f"{folder}/go") as file:
            file.read()
    return row
'''

FLOW = """
import batchflow as bf
import pyarrow as pa

def double(n):
    return 2 * n

def build(count=1):
    flow = bf.Flow("numbers")
    rows = flow.map_records(double, list(range(count)))
    flow.step(lambda table: table.num_rows, rows, name="rows")
    return flow
"""


@pytest.fixture(scope="module")
def address():
    with head() as started:
        yield started.jobs


@pytest.fixture
def batchflow(address, tmp_path):
    """Run commands in a folder of their own."""
    (tmp_path / "code").mkdir()
    return Commands(tmp_path / "code", address)


@pytest.fixture
def code(batchflow):
    """A clean folder with a module, and files beside it."""
    folder = batchflow.folder
    (folder / "steps.py").write_text(STEPS)
    (folder / "flows.py").write_text(FLOW)
    (folder / "factor.txt").write_text("10")
    (folder / "in").mkdir()
    (folder / "in/a.csv").write_text("n\n1\n2\n")
    (folder / "in/b.csv").write_text("n\n3\n4\n")
    return folder


@pytest.fixture
def client(address, monkeypatch):
    """Ray's own client of the job server."""
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address)  # which it prefers to any argument
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient()


class Gate:
    """Knows when the third record is under way, and lets it go on."""

    def __init__(self, folder):
        self.folder = folder
        self.into = folder / "out"
        (folder / "calls").mkdir()
        for pipe in ("begun", "go"):
            os.mkfifo(folder / pipe)

    @property
    def arguments(self):
        return (
            "run",
            "steps.py:gate",
            "in/*.csv",
            "--into",
            f"{self.into}/",
            "--arg",
            f"folder={self.folder}",
            "--chunk",
            1,
            "--workers",
            1,
        )

    def begun(self):
        with open(self.folder / "begun") as file:
            assert file.read() == "begun"

    def go(self):
        with open(self.folder / "go", "w"):
            pass

    def open(self):
        """Have nobody wait any more."""
        (self.folder / "go").unlink()

    def calls(self):
        return sorted(name.partition("-")[0] for name in os.listdir(self.folder / "calls"))

    def rows(self):
        return pq.read_table(self.into)["n"].to_pylist()


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path)


def id_of(line):
    return re.search(r"batchflow-[0-9a-f]{16}(-\d+)?", line)[0]


def until(running, text):
    """Return the line of its output that has a text in it."""
    for line in running.stdout:
        if text in line:
            return line
    raise AssertionError(running.communicate())


def state(batchflow, job_id):
    (status,) = [job["status"] for job in batchflow.jobs() if job["id"] == job_id]
    return status


def test_a_module_and_the_files_beside_it(batchflow, code):
    out, err = batchflow("submit", "run", "steps.py:by_factor", "in/*.csv")
    rows = [line for line in out.splitlines() if line.startswith("{")]
    assert [json.loads(line)["n"] for line in rows] == [100, 200, 300, 400]
    assert "4 records in, 4 rows out, 0 failed, 0 retries" in out
    begun, ended = err.splitlines()
    assert re.fullmatch(rf"{id_of(begun)} succeeded after \d+ s", ended)
    assert begun == f"submitted {id_of(begun)}"


def test_it_runs_the_batchflow_that_submitted_it(batchflow, code):
    (code / "where.py").write_text("import batchflow\ndef where(row):\n    return batchflow.__file__\n")
    out, _ = batchflow("submit", "run", "where.py:where", "in/a.csv", "--quiet")
    assert {"py_modules_files" in line for line in out.splitlines()} == {True}


def test_code_below_the_working_dir_and_above_the_inputs(batchflow, code):
    (code / "pack").mkdir()
    (code / "pack/__init__.py").write_text("")
    (code / "steps.py").rename(code / "pack/steps.py")
    arguments = ("pack/steps.py:clean", "in/a.csv", "--working-dir", ".", "--quiet")
    assert batchflow("submit", "run", *arguments)[0].split() == ['{"n":1}', '{"n":2}']
    out, _ = batchflow("submit", "run", "pack.steps:clean", "in/a.csv", "--quiet")
    assert out.split() == ['{"n":1}', '{"n":2}']


def test_submitted_twice_it_runs_once(batchflow, code, gate):
    first = batchflow.start("submit", *gate.arguments)
    gate.begun()
    second = batchflow.start("submit", *gate.arguments)
    job_id = id_of(first.stderr.readline())
    assert second.stderr.readline() == f"runs already: {job_id}\n"
    gate.go()
    for running in (first, second):
        out, err = running.communicate(timeout=60)
        assert running.returncode == 0, err
        assert "4 records in, 4 rows out" in out
    assert (gate.calls(), gate.rows()) == (["1", "2", "3", "4"], [1, 2, 3, 4])
    assert [job["id"] for job in batchflow.about(gate.into)] == [job_id]
    out, err = batchflow("submit", *gate.arguments)
    assert "nothing to do" in out
    assert err.startswith(f"submitted {job_id}-2\n")
    assert gate.calls() == ["1", "2", "3", "4"]
    assert [job["id"] for job in batchflow.about(gate.into)] == [f"{job_id}-2", job_id]


def test_submitted_twice_at_the_same_moment(batchflow, code, gate):
    gate.open()
    both = [batchflow.start("submit", *gate.arguments) for _ in range(2)]
    told = [running.communicate(timeout=100) for running in both]
    assert [running.returncode for running in both] == [0, 0], told
    assert gate.rows() == [1, 2, 3, 4]
    assert gate.calls() == ["1", "2", "3", "4"]


def test_another_job_that_writes_the_same_is_refused(batchflow, code, gate):
    _, err = batchflow("submit", *gate.arguments, "--no-wait")
    gate.begun()
    (code / "factor.txt").write_text("11")
    _, refused = batchflow("submit", *gate.arguments, status=2)
    job_id = id_of(err)
    assert refused == f"batchflow: {job_id} is writing {gate.into}: let it end, or batchflow stop {job_id}\n"
    gate.go()
    batchflow("logs", job_id, "--follow")


def test_begun_and_left_alone_and_followed_later(batchflow, code, gate, client):
    out, err = batchflow("submit", *gate.arguments, "--no-wait")
    job_id = id_of(err)
    assert (out, err.splitlines()) == (
        "",
        [
            f"submitted {job_id}",
            f"next: batchflow logs {job_id} --follow; batchflow stop {job_id}",
        ],
    )
    gate.begun()
    following = batchflow.start("logs", job_id, "--follow")
    gate.go()
    out, err = following.communicate(timeout=60)
    assert (following.returncode, "4 records in, 4 rows out" in out) == (0, True), err
    assert "batchflow progress" not in out
    again, _ = batchflow("logs", job_id)
    assert again == out
    assert "batchflow progress: " in client.get_job_logs(job_id)  # as lines, for who follows at a terminal


def test_ctrl_c_ends_the_following_and_not_the_job(batchflow, code, gate):
    following = batchflow.start("submit", *gate.arguments)
    gate.begun()
    job_id = id_of(following.stderr.readline())
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=60)
    assert (following.returncode, err) == (
        130,
        f"batchflow: followed no longer; the job goes on: batchflow stop {job_id} stops it\n",
    )
    assert state(batchflow, job_id) == "RUNNING"
    gate.go()
    batchflow("logs", job_id, "--follow")
    assert gate.rows() == [1, 2, 3, 4]


def test_a_job_that_is_stopped_keeps_what_is_done(batchflow, code, gate):
    following = batchflow.start("submit", *gate.arguments)
    gate.begun()
    job_id = id_of(following.stderr.readline())
    stopping = batchflow.start("stop", job_id)
    until(following, "finishing what is running, 10 s at most")
    gate.go()
    out, err = following.communicate(timeout=60)
    assert following.returncode == 130, err
    assert f"what is done is kept in {gate.into}" in out
    _, err = stopping.communicate(timeout=60)
    assert (stopping.returncode, err.startswith(f"{job_id} stopped after ")) == (0, True), err
    assert state(batchflow, job_id) == "STOPPED"
    _, err = batchflow("stop", job_id)
    assert err.startswith(f"{job_id} stopped after ")
    gate.open()
    out, err = batchflow("submit", *gate.arguments)
    assert err.startswith(f"submitted {job_id}-2\n")
    assert (gate.rows(), gate.calls()) == ([1, 2, 3, 4], ["1", "2", "3", "4"])  # also the one that was running


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("steps.py:clean", "in/*.csv"), 1, "1 x ValueError in call: in/b.csv, record 1: three"),
        (("steps.py:clena", "in/*.csv"), 2, "batchflow: steps.py has no function 'clena'"),
        (("steps.py:clean", "in/*.csv", "--max-errors", 0), 3, "stopped: more than max_errors=0 failed"),
    ],
)
def test_the_exit_status_is_that_of_the_job(batchflow, code, arguments, status, text):
    out, err = batchflow("submit", "run", *arguments, status=status)
    assert text in out
    job_id = id_of(err)
    assert f"{job_id} failed after" in err
    batchflow("logs", job_id, "--follow", status=status)


def test_a_package_that_the_cluster_has_not(batchflow, code):
    (code / "broken.py").write_text("import nowhere_to_be_found\n")
    _, err = batchflow("submit", "run", "broken.py:f", "in/*.csv", status=2)
    assert (
        "batchflow: the cluster has no package 'nowhere_to_be_found': submit it with --pip nowhere_to_be_found\n"
        in err
    )


def test_a_flow(batchflow, code):
    out, _ = batchflow("submit", "flow", "flows.py:build", "--arg", "count=3", "--quiet")
    assert json.loads(out) == {"step": "rows", "value": 3}


def test_a_retry_takes_the_mended_function_and_the_inputs_sent_before(batchflow, code, tmp_path):
    into = f"{tmp_path}/out/"
    batchflow("submit", "run", "steps.py:clean", "in/*.csv", "--into", into, status=1)
    (code / "steps.py").write_text(STEPS.replace("== 3:", '== "three":', 1))
    out, _ = batchflow("submit", "retry", into, "steps.py:clean", "--version", 2)
    assert "1 error tried again: 1 gone, 0 left" in out
    assert pq.read_table(into)["n"].to_pylist() == [1, 2, 3, 4]


def test_variables(batchflow, code):
    arguments = ("steps.py:tell", "in/a.csv", "--quiet", "--env", "GIVEN=a b", "--env", "TAKEN")
    out, err = batchflow("submit", "run", *arguments, TAKEN="a secret")
    assert json.loads(out.splitlines()[0]) == {"given": "a b", "taken": "a secret"}
    (job,) = [job for job in batchflow.jobs() if job["id"] == id_of(err)]
    assert "secret" not in job["what"]


@pytest.fixture
def thin(tmp_path):
    """Return the Python of an environment that has what ours has, but little in its own folder.

    Ray copies the environment of its node for each set of packages: ours is 2 GB, a minute or two.
    """
    folder = tmp_path / "thin"
    venv.create(folder, symlinks=True)
    ours, its = (sysconfig.get_path("purelib", vars={"base": at}) for at in (sys.prefix, str(folder)))
    Path(its, "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return folder / "bin" / "python"


def test_packages_are_installed_for_the_job(thin, code, tmp_path):
    wheel = tmp_path / "thrice-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("thrice.py", "def of(n):\n    return 3 * n\n")
        file.writestr("thrice-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thrice\nVersion: 1.0\n")
        file.writestr(
            "thrice-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr("thrice-1.0.dist-info/RECORD", "")
    (code / "steps.py").write_text('def thrice(row):\n    import thrice\n    return {"n": thrice.of(row["n"])}\n')
    with head(thin) as started:
        out, err = Commands(code, started.jobs)(
            "submit", "run", "steps.py:thrice", "in/a.csv", "--quiet", "--pip", wheel
        )
    assert [json.loads(line) for line in out.splitlines()] == [{"n": 3}, {"n": 6}]
    assert f"{id_of(err)} succeeded after" in err


def test_a_cluster_with_tokens(code):
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0f" * 32}
    with head(**token) as started:
        batchflow = Commands(code, started.jobs)
        arguments = ("steps.py:by_factor", "in/a.csv", "--quiet")
        expected = [{"n": 100}, {"n": 200}]
        for command, more in [("run", {"RAY_ADDRESS": started.node}), ("submit", {})]:
            given = ("submit", "run") if command == "submit" else ("run",)
            out, _ = batchflow(*given, *arguments, **token, **more)
            assert [json.loads(line) for line in out.splitlines()] == expected
        _, err = batchflow("jobs", status=2)
        assert err == (
            f"batchflow: {started.jobs} refuses us, as its RAY_AUTH_MODE is token: set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the token of the cluster\n"
        )


def test_jobs_of_others_are_listed_on_request(batchflow, client):
    other = client.submit_job(entrypoint="echo hello")
    assert other not in batchflow("jobs")[0]
    out, _ = batchflow("jobs", "--all")
    assert re.match(rf"{other} +(PENDING|RUNNING|SUCCEEDED) +\d{{4}}-\d\d-\d\d [\d:]{{8}} +\d+ s  echo hello", out)
    assert batchflow("logs", other, "--follow")[0] == "hello\n"


@pytest.mark.parametrize("command", [("logs",), ("logs", "--follow"), ("stop",)])
def test_an_id_that_nobody_knows(batchflow, address, command):
    _, err = batchflow(*command, "batchflow-0", status=2)
    assert err == f"batchflow: {address} knows no job 'batchflow-0': batchflow jobs lists those it knows\n"
