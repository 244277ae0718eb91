"""What the help says: something of every argument, examples that are right, the meaning of each exit status."""

import argparse
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from batchflow.cli.main import build_parser, main
from batchflow.cli.output import EXIT_STATUS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/command-line.md").read_text()


def commands(parser, above=()):
    """Yield each parser of a command, with its name."""
    yield " ".join(above), parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from commands(sub, (*above, name))


COMMANDS = dict(commands(build_parser()))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_is_explained_and_every_command_has_examples(name):
    parser = COMMANDS[name]
    assert parser.description.endswith(".")
    assert parser.epilog
    for action in parser._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), action
    told = parser.format_help()
    assert max(map(len, told.splitlines())) <= 120
    assert not name or name.startswith("completion") or f"  batchflow {name.split()[0]} " in told


def examples():
    for name, parser in COMMANDS.items():
        for line in (parser.epilog or "").splitlines():
            if line.startswith("  batchflow ") and "|" not in line and not name.startswith("completion"):
                yield line.strip()
    for document in ("README.md", "docs/command-line.md"):
        for block in re.findall(r"```sh\n(.*?)```", (ROOT / document).read_text(), re.DOTALL):
            for line in re.split(r"\n|; ", block):
                if line.startswith("batchflow "):
                    yield re.split(r" +# | \| ", line)[0]


@pytest.mark.parametrize("line", dict.fromkeys(examples()))
def test_examples_are_right(line):
    _, *words = shlex.split(line)
    assert build_parser().parse_args(words).verb == words[0]


def test_each_exit_status_is_told_the_same_everywhere():
    told = {
        int(status): text.replace("`", "")
        for status, text in re.findall(r"^\| (\d+) \| (.*) \|$", DOCUMENT, re.MULTILINE)
    }
    assert told == EXIT_STATUS
    shown = build_parser().format_help()
    for status, text in EXIT_STATUS.items():
        assert f"  {status:<4} {text}\n" in shown


STEPS = """
import batchflow as bf

def clean(row):
    if row["n"] == 3:
        raise ValueError("three")
    return row

def mended(row):
    return row

def broken(table):
    raise SystemExit(7)

good, bad = bf.Flow("good"), bf.Flow("bad")
good.step(int, name="one")
bad.step(int, "x", name="one")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("status")
    (folder / "f.py").write_text(STEPS)
    (folder / "in.csv").write_text("n\n1\n2\n3\n")
    return folder


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("run f.py:mended in.csv --into good/", 0),
        ("run f.py:clean in.csv --into bad/", 1),
        ("run f.py:mended in.csv --combine f.py:broken", 1),
        ("run f.py:clean in.csv --max-errors 0", 3),
        ("run f.py:clean gone.csv", 2),
        ("run f.py:clean", 2),
        ("errors good/", 0),
        ("errors bad/", 1),
        ("errors gone/", 2),
        ("verify bad/", 0),
        ("verify gone/", 2),
        ("retry bad/", 1),
        ("retry bad/ f.py:mended", 2),
        ("retry bad/ f.py:mended --version 2", 0),
        ("retry gone/", 2),
        ("plan f.py:mended in.csv", 0),
        ("plan f.py:clean in.csv", 1),
        ("plan f.py:clean gone.csv", 2),
        ("flow f.py:good", 0),
        ("flow f.py:good --explain", 0),
        ("flow f.py:bad", 1),
        ("flow f.py:bad --max-errors 0", 3),
        ("flow f.py:none", 2),
        ("completion bash", 0),
        ("completion tcsh", 2),
        ("--help", 0),
        ("", 2),
    ],
)
def test_exit_status(folder, monkeypatch, line, status):
    """In this order: the runs come before what looks at their outputs."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BATCHFLOW_EXECUTOR", "serial")
    try:
        ended = main(line.split())
    except SystemExit as left:
        ended = left.code
    assert ended == status


def test_verify_that_finds_something_ends_with_1(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert main(["run", "f.py:mended", "in.csv", "--into", "torn/", "--executor", "serial"]) == 0
    Path("torn/part-00000.parquet").unlink()
    assert main(["verify", "torn/"]) == 1


def at_a_terminal(folder, *arguments, **variables):
    """Return all that a command writes to a terminal, which is its output and its messages."""
    master, slave = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "BATCHFLOW_EXECUTOR": "serial", **variables}
    command = [sys.executable, "-m", "batchflow.cli", *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                more = os.read(master, 65536)
            except OSError:  # nobody holds the other end any more
                break
            if not more:
                break
            seen += more
    os.close(master)
    return process.returncode, seen.decode()


COLOUR = re.compile(r"\x1b\[[\d;]*m")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "f.py:clean", "in.csv"),
        ("flow", "f.py:bad"),
        ("run", "f.py:clean_", "in.csv"),
        ("run", "--help"),
        ("rnu",),
    ],
)
def test_no_color_is_obeyed(folder, arguments):
    status, seen = at_a_terminal(folder, *arguments, NO_COLOR="1")
    assert seen
    assert not COLOUR.search(seen)
    if sys.version_info < (3, 14):  # from then on argparse colours its help by itself
        assert at_a_terminal(folder, *arguments)[0] == status
        assert not COLOUR.search(at_a_terminal(folder, *arguments, FORCE_COLOR="1")[1])


def test_what_programs_read_has_no_colour_even_if_it_is_forced(folder):
    command = [
        sys.executable,
        "-m",
        "batchflow.cli",
        "run",
        "f.py:clean",
        "in.csv",
        "--json",
        "--executor",
        "serial",
    ]
    environment = os.environ | {"FORCE_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["values"] == [{"n": 1}, {"n": 2}]
