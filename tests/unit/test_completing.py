"""TAB in real shells, at a pseudo-terminal: what is typed, and what stands there then."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

STEPS = """
import batchflow as bf

raise SystemExit("TAB imports nothing")

def clean(row):
    return row

async def fetch(row):
    return row

def _own(row):
    return row

flow = bf.Flow()
"""
BEGIN = {
    "bash": (["bash", "--norc", "-i"], 'eval "$(batchflow completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit; compinit -u -D; eval "$(batchflow completion zsh)"'),
}
TO_THE_START = "\x01"


def environment(folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(folder), "TERM": "dumb", "LANG": "C.UTF-8"}


class Terminal:
    """A shell at a pseudo-terminal."""

    def __init__(self, shell, folder):
        self._seen = ""
        self._count = 0
        self._master, slave = pty.openpty()
        command, begin = BEGIN[shell]
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(folder),
            start_new_session=True,
        )
        os.close(slave)
        os.write(self._master, f"{begin}; echo ready $((6 * 7))\n".encode())
        self._read("ready 42")

    def _read(self, pattern):
        """Return what a pattern finds in the output; read until it does."""
        end = time.monotonic() + 30
        while not (found := re.search(pattern, self._seen)):
            assert time.monotonic() < end, self._seen
            if select.select([self._master], [], [], 0.2)[0]:
                self._seen += os.read(self._master, 65536).decode(errors="replace")
        return found

    def completed(self, text):
        """Return what stands there after TAB, as `echo` prints it."""
        self._count += 1
        os.write(self._master, f"{text}\t{TO_THE_START}echo 'at '{self._count}: \n".encode())
        return self._read(rf"at {self._count}: (.*?)\r?\n")[1].strip()

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._master)


class Fish:
    """A fish, which tells by itself what it would complete."""

    def __init__(self, folder):
        self._folder = folder

    def completed(self, text):
        script = f"batchflow completion fish | source; complete -C '{text}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", script],
            cwd=self._folder,
            env=environment(self._folder),
            capture_output=True,
            text=True,
            check=True,
        )
        lines = done.stdout.splitlines()
        assert len(lines) <= 1
        return " ".join([*text.split(" ")[:-1], lines[0].partition("\t")[0]]) if lines else text

    def close(self):
        pass


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def terminal(request, tmp_path_factory):
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} here")
    folder = tmp_path_factory.mktemp("typed")
    (folder / "steps.py").write_text(STEPS)
    (folder / "notes.txt").touch()
    (folder / "sales").mkdir()
    (folder / "sales/north.csv").touch()
    (folder / "clean").mkdir()
    terminal = Fish(folder) if request.param == "fish" else Terminal(request.param, folder)
    yield terminal
    terminal.close()


@pytest.mark.parametrize(
    ("typed", "there"),
    [
        ("batchflow ver", "batchflow verify"),
        ("batchflow submit re", "batchflow submit retry"),
        ("batchflow run ste", "batchflow run steps.py:"),
        ("batchflow run steps.py:cl", "batchflow run steps.py:clean"),
        ("batchflow run steps.py:fe", "batchflow run steps.py:fetch"),
        ("batchflow run steps.py:_o", "batchflow run steps.py:_o"),
        ("batchflow flow steps.py:fl", "batchflow flow steps.py:flow"),
        ("batchflow run steps.py:clean sales/no", "batchflow run steps.py:clean sales/north.csv"),
        (
            "batchflow run steps.py:clean sales/north.csv --max-e",
            "batchflow run steps.py:clean sales/north.csv --max-errors",
        ),
        ("batchflow run --read par", "batchflow run --read parquet"),
        ("batchflow run --per b", "batchflow run --per batch"),
        ("batchflow run --setup steps.py:cl", "batchflow run --setup steps.py:clean"),
        ("batchflow errors cl", "batchflow errors clean/"),
        ("batchflow completion z", "batchflow completion zsh"),
    ],
)
def test_tab(terminal, typed, there):
    assert terminal.completed(typed) == there


def test_a_module_in_a_package(tmp_path, monkeypatch):
    from batchflow.cli.completion import flows, functions, outputs

    (tmp_path / "package").mkdir()
    (tmp_path / "package/steps.py").write_text(STEPS)
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "in.csv").touch()
    (tmp_path / "one.parquet").touch()
    (tmp_path / ".one.parquet_batchflow").mkdir()
    monkeypatch.chdir(tmp_path)
    assert functions("package.steps:") == ["package.steps:clean", "package.steps:fetch"]
    assert functions("package/steps.py:f") == ["package/steps.py:fetch"]
    assert functions("./package/s") == ["./package/steps.py:"]
    assert flows("package.steps:") == ["package.steps:clean", "package.steps:flow"]
    assert functions("broken.py:") == functions("gone.py:") == functions("gone/") == []
    assert functions("") == ["broken.py:", "package/"]
    assert outputs("") == ["one.parquet", "package/"]
