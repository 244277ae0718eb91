"""What is printed after "next:" works when it is pasted, wherever it is printed."""

import os
import re
import shlex

import pytest

import batchflow as bf
from batchflow.cli import main
from batchflow.errors import FlowError, UsageError

STEPS = "def size(line, factor=1):\n    return {'n': int(line) * factor}\n"
FIXED = "def size(line, factor=1):\n    return {'n': int(line, 16) * factor}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "in.txt").write_text("1\na\n2\n")
    return tmp_path


def next_line(text):
    return re.search(r"^next: (.*)$", text, re.MULTILINE)[1]


def commands_of(line):
    """Return the commands of a line, without the words between them."""
    return [shlex.split(part)[1:] for part in re.findall(r"batchflow .*?(?=; [a-z]|$)", line)]


@pytest.fixture
def shell(folder):
    """Run a command line in a process of its own, and return its exit status and what it printed."""
    import subprocess
    import sys

    def run(words):
        done = subprocess.run(
            [sys.executable, "-m", "batchflow.cli", *words],
            capture_output=True,
            text=True,
            timeout=100,
            cwd=folder,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize("into", ["out/", "it is.parquet"])
def test_run_with_failures_names_the_commands_that_retry_it(folder, shell, into):
    run = ["run", "steps.py:size", "in.txt", "--into", into, "--arg", "factor=10", "--executor", "serial"]
    status, _, err = shell(run)
    assert status == 1
    look, retry = commands_of(next_line(err))
    status, out, _ = shell(look)
    assert (status, "record 2" in out) == (1, True)
    (folder / "steps.py").write_text(FIXED)
    status, _, err = shell(retry)
    assert (status, "next:" in err) == (0, False)
    assert shell(["verify", into])[0] == 0
    table = bf.map_records(dict, bf.read_parquet(into), executor="serial").values
    assert table == [{"n": 10}, {"n": 100}, {"n": 20}]


def test_retry_with_failures_names_the_commands_that_follow(folder, shell):
    shell(["run", "steps.py:size", "in.txt", "--into", "out/", "--executor", "serial"])
    status, _, err = shell(["retry", "out/", "--executor", "serial", "--version", "2"])
    assert status == 1
    look, retry = commands_of(next_line(err))
    assert shell(look)[0] == 1
    assert "3" in retry
    (folder / "steps.py").write_text(FIXED)
    assert shell(retry)[0] == 0


def test_retry_from_another_folder_names_the_output_from_there(folder, monkeypatch, capsys):
    assert main(["run", "steps.py:size", "in.txt", "--into", "out/", "--executor", "serial"]) == 1
    (folder / "else").mkdir()
    monkeypatch.chdir(folder / "else")
    capsys.readouterr()
    assert main(["retry", "../out/", "--executor", "serial"]) == 1
    monkeypatch.chdir(folder / "else")
    look, retry = commands_of(next_line(capsys.readouterr().err))
    assert main(look) == 1
    monkeypatch.chdir(folder / "else")
    assert main(retry) == 1


def test_run_in_memory_names_the_command_that_keeps_failures(folder, shell):
    status, _, err = shell(["run", "steps.py:size", "in.txt", "--executor", "serial"])
    assert status == 1
    run, retry = commands_of(next_line(err))
    assert shell(run)[0] == 1
    (folder / "steps.py").write_text(FIXED)
    assert shell(retry)[0] == 0


def pasted(folder, line):
    """Paste each command of a line into a shell, and return their exit statuses."""
    import subprocess
    import sys

    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin/batchflow"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m batchflow "$@"\n')
    program.chmod(0o755)
    commands = [part[part.index("batchflow ") :] for part in line.split("; ")]
    environment = os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}"}
    return [
        subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, timeout=100, check=False
        ).returncode
        for command in commands
    ]


PLACES = ["-dash/", "a $HOME 'b' \"c\"/", "größe/", "-x *.parquet"]


@pytest.mark.parametrize("place", PLACES)
def test_odd_place_is_pasted_into_a_shell_as_it_is(folder, shell, place):
    (folder / "-in.txt").write_text("1\na\n")
    run = ["run", "steps.py:size", f"--into={place}", "--executor", "serial"]
    stopped = shell([*run, "--max-errors=0", "--", "-in.txt"])
    assert stopped[0] == 3
    assert pasted(folder, next_line(stopped[2])) == [1, 1]
    line = next_line(shell([*run, "--fresh", "--", "-in.txt"])[2])
    (folder / "steps.py").write_text(FIXED)
    assert pasted(folder, line) == [1, 0]


def test_options_are_added_before_a_double_dash(folder, shell):
    (folder / "-in.txt").write_text("1\na\n")
    line = next_line(shell(["run", "steps.py:size", "--executor", "serial", "--", "-in.txt"])[2])
    assert line == (
        "batchflow run steps.py:size --executor serial --into out/ -- -in.txt; once fixed, "
        "batchflow retry out/ --version 2 --executor serial"
    )
    assert pasted(folder, line)[0] == 1
    (folder / "steps.py").write_text(FIXED)
    assert pasted(folder, line)[1] == 0


def test_retry_with_another_function_goes_on_with_that_one(folder, shell):
    shell(["run", "steps.py:size", "in.txt", "--into", "out/", "--executor", "serial"])
    (folder / "other.py").write_text(STEPS)
    line = next_line(shell(["retry", "out/", "other.py:size", "--version", "2", "--executor", "serial"])[2])
    (folder / "other.py").write_text(FIXED)
    assert pasted(folder, line) == [1, 0]


def test_interrupted_run_names_the_command_that_resumes(folder, monkeypatch, capsys):
    def press(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("batchflow.cli.commands.run", press)
    assert main(["run", "steps.py:size", "in.txt", "--into", "a b/", "--fresh"]) == 130
    assert capsys.readouterr().err.splitlines()[-1].strip() == "batchflow run steps.py:size in.txt --into 'a b/'"


def test_job_of_a_cluster_names_commands_that_are_submitted(folder, monkeypatch, capsys):
    from batchflow.core.text import command

    monkeypatch.setenv("BATCHFLOW_JOB", "clean-1")
    assert (
        command("run", "steps.py:size", "s3://b/in put/") == "batchflow submit run steps.py:size 's3://b/in put/'"
    )
    assert command("errors", "s3://b/out/") == "batchflow errors s3://b/out/"


def test_function_that_cannot_be_found_names_a_command_that_is_quoted(folder, capsys):
    bf.map_records(
        lambda line: int(line), bf.read_text("in.txt"), into="-my out/", executor="serial", progress=False
    )
    assert main(["retry", "./-my out/"]) == 2
    assert capsys.readouterr().err.endswith("batchflow retry './-my out/' steps.py:clean --version 2\n")


SCRIPT = """
import batchflow as bf

def size(line):
    return {{"n": int(line{more})}}

if __name__ == "__main__":
    print(bf.map_records(size, bf.read_text("in.txt"), into="out/", executor="serial", progress=False{options}){retry})
"""


def test_script_with_failures_is_told_what_to_write(folder, script):
    script(SCRIPT.format(more="", options="", retry=""))
    out = script(SCRIPT.format(more="", options="", retry="")).stdout
    line = next_line(out)
    assert line == "result.errors lists them; once fixed, result.retry_failed(size, version='2')"
    done = script(SCRIPT.format(more=", 16", options=", version='2'", retry=".retry_failed(size, version='2')"))
    assert "0 failed" in done.stdout
    assert main(["verify", "out/"]) == 0


def test_output_of_a_script_is_retried_by_command(folder, shell, script):
    """Its function is that of the file; a script that starts its job while it is imported is refused."""
    script(SCRIPT.format(more="", options="", retry=""))
    (folder / "script.py").write_text(SCRIPT.format(more=", 16", options="", retry=""))
    assert shell(["retry", "out/", "--version", "2", "--executor", "serial"])[0] == 0
    bare = SCRIPT.format(more="", options="", retry="").replace('if __name__ == "__main__":', "if True:")
    (folder / "script.py").write_text(bare.replace("out/", "bare/"))
    script(bare.replace("out/", "bare/"))
    status, _, err = shell(["retry", "bare/", "--version", "2", "--executor", "serial"])
    assert status == 2
    assert 'put the job under  if __name__ == "__main__":' in err


def test_line_of_a_result_works_in_the_same_session(folder):
    def size(line):
        return {"n": int(line)}

    result = bf.map_records(size, bf.read_text("in.txt"), into="out/", executor="serial", rate=500)
    line = next_line(str(result))

    def size(line):
        return {"n": int(line, 16)}

    result = eval(line.rpartition("once fixed, ")[2])
    assert result.errors.num_rows == 0
    assert result.values == [{"n": 1}, {"n": 10}, {"n": 2}]
    assert result._job.rate == 500


def test_result_in_memory_cannot_be_retried(folder):
    result = bf.map_records(int, bf.read_text("in.txt"), executor="serial")
    assert next_line(str(result)).startswith("result.errors lists them; with into= they are kept")
    with pytest.raises(UsageError, match="only an output on disk can be retried: run the job with into="):
        result.retry_failed()


def test_fresh_job_can_be_retried(folder):
    job = bf.Job(int, bf.read_text("in.txt"), into="out/", executor="serial", fresh=True)
    job.run()
    assert job.retry_failed().report.failed == 1


FLOW = """
import os
import batchflow as bf

def refuse(x):
    if not os.path.exists("fixed"):
        raise ValueError(x)
    return x

def flow():
    flow = bf.Flow("sales")
    flow.step(refuse, 1, name="load")
    for n in range(20):
        flow.step(len, "abc", name=f"more {n}")
    return flow
"""


def test_flow_with_failures_names_the_commands_that_follow(folder, shell):
    (folder / "flows.py").write_text(FLOW)
    command = ["flow", "flows.py:flow", "--executor", "serial"]
    status, _, err = shell(command)
    assert status == 1
    again, on = commands_of(next_line(err))
    assert again == command
    assert shell(on)[0] == 1
    (folder / "fixed").touch()
    assert shell(again)[0] == 0


def test_flow_in_python_is_told_in_its_words(folder):
    flow = bf.Flow()
    flow.step(int, "x", name="load")
    with pytest.raises(FlowError) as ended:
        flow.run(executor="serial")
    line = next_line(str(ended.value))
    assert line == "run.errors lists them; once fixed, run the flow again: steps with cache=True or into= are kept"
    assert "batchflow" not in line
