"""The command line where standard output or error is not a file that takes everything: rows safe, one sentence."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from batchflow.cli.output import json_lines

STEPS = r"""
import ctypes, os, subprocess
print("loaded")
def f(line): return {"t": line}
def surrogate(line): return {"t": "\ud800" + line, 1: 2**70}
def many(line): return "x" * 100_000
def chatty(line):
    print("printed")
    os.write(1, b"written\n")
    subprocess.run(["echo", "child"])
    ctypes.CDLL(None).puts(b"C code")
    ctypes.CDLL(None).fflush(None)
    return line
"""
BATCHFLOW = f"{sys.executable} -c 'import sys; from batchflow.cli import main; sys.exit(main())'"


@pytest.fixture
def shell(tmp_path):
    """Return a function that runs a command of batchflow in a shell, with a tail of redirections."""
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "in.txt").write_text("ä\nb\n", encoding="utf-8")

    def run(arguments, tail="", **env):
        return subprocess.run(
            ["sh", "-c", f"{BATCHFLOW} {arguments} {tail}"],
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
            env={**os.environ, "TMPDIR": str(tmp_path), **env},
        )

    return run


RUN = "run steps.py:f in.txt --executor serial --quiet"


def lines(answer):
    return answer.stderr.decode().splitlines()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_rows_are_utf8_whatever_the_encoding(shell, encoding):
    answer = shell(RUN, PYTHONIOENCODING=encoding)
    assert answer.returncode == 0
    assert [json.loads(line) for line in answer.stdout.splitlines()] == [{"t": "ä"}, {"t": "b"}]


@pytest.mark.parametrize("command", ["plan steps.py:f in.txt --executor serial", "run --help", "verify out/"])
def test_text_is_shown_in_any_encoding(shell, command):
    shell(f"{RUN} --into out/")
    answer = shell(command, PYTHONIOENCODING="ascii")
    assert answer.returncode == 0
    assert answer.stdout.isascii()


def test_lone_surrogates_and_odd_keys_are_rows(shell):
    answer = shell("run steps.py:surrogate in.txt --executor serial --quiet")
    assert answer.returncode == 0, lines(answer)
    assert json.loads(answer.stdout.splitlines()[1]) == {"t": "\ud800b", "1": 2**70}


def test_value_that_holds_itself_is_shown():
    loop = []
    loop.append(loop)
    assert [*json_lines([loop, "a"])] == ['"[[...]]"', '"a"']


def test_closed_standard_error_mixes_nothing_into_rows(shell):
    answer = shell("run steps.py:f in.txt --executor serial", "2>&-")
    assert (answer.returncode, answer.stdout.decode()) == (0, '{"t":"ä"}\n{"t":"b"}\n')


def test_closed_standard_output_is_refused_before_the_run(shell):
    answer = shell(RUN, ">&-")
    assert answer.returncode == 2
    assert lines(answer) == [
        "batchflow: standard output is closed, and the values would go there: add --into FOLDER"
    ]


@pytest.mark.parametrize("tail", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_harm_an_output(shell, tail):
    answer = shell("run steps.py:f in.txt --into out/", tail)
    assert answer.returncode == 0
    assert b"each accounted for once" in shell("verify out/").stdout


def test_full_disk_keeps_the_values_in_a_file(shell, tmp_path):
    answer = shell(RUN, "> /dev/full")
    assert answer.returncode == 1
    (message,) = lines(answer)[-1:]
    path = re.fullmatch(
        r"batchflow: cannot write to standard output: No space left on device; the values are in (.*)", message
    )[1]
    assert Path(path).parent == tmp_path
    assert Path(path).read_text(encoding="utf-8") == '{"t":"ä"}\n{"t":"b"}\n'


@pytest.mark.parametrize("command", ["run --help", "plan steps.py:f in.txt", "jobs --help", f"{RUN} --json"])
def test_full_disk_is_one_sentence(shell, command):
    answer = shell(command, "> /dev/full")
    assert "Traceback" not in answer.stderr.decode()
    assert "Exception ignored" not in answer.stderr.decode()


def test_reader_that_leaves_changes_no_status(shell):
    answer = shell("run steps.py:many in.txt --executor serial --quiet", "| head -c 10; exit ${PIPESTATUS:-0}")
    assert answer.stdout == b'"xxxxxxxxx'
    assert [line for line in lines(answer) if line != "loaded"] == []


def test_full_standard_error_changes_nothing(shell):
    answer = shell("run steps.py:f in.txt --executor serial", "2> /dev/full")
    assert (answer.returncode, answer.stdout.decode()) == (0, '{"t":"ä"}\n{"t":"b"}\n')


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_what_functions_print_is_not_among_rows(shell, executor):
    answer = shell(f"run steps.py:chatty in.txt --executor {executor} --quiet")
    assert (answer.returncode, answer.stdout.decode()) == (0, '"ä"\n"b"\n')
    for text in ("loaded", "printed", "written", "child", "C code"):
        assert text in answer.stderr.decode()


def test_terminal_that_goes_away_costs_no_rows(tmp_path, shell):
    master, terminal = os.openpty()
    code = "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); from batchflow.cli import main; sys.exit(main())"
    (tmp_path / "steps.py").write_text(
        "import sys\ndef f(line):\n    open('begun', 'w').close()\n    sys.stdin.readline()\n    return line\n"
    )
    os.mkfifo(tmp_path / "begun")
    arguments = ["run", "steps.py:f", "in.txt", "--executor", "serial", "--into", "out/"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    (tmp_path / "begun").read_bytes()  # progress is drawn by now
    os.close(master)
    (tmp_path / "begun").unlink()
    process.communicate(b"\n\n", timeout=60)
    assert process.returncode == 0
    assert b"each accounted for once" in shell("verify out/").stdout
