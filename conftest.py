"""Data for the code blocks of the README, which run as tests in a folder of their own."""

from __future__ import annotations

import compileall
import gzip
import json
import random
from pathlib import Path

import pytest


def pytest_sessionstart() -> None:
    """Compile the package as pip does when it installs it: tests start hundreds of processes that import it."""
    compileall.compile_dir(Path(__file__).with_name("batchflow"), quiet=1)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make ``logs/`` with two files of calls, one line of them damaged, and go there."""
    rng = random.Random(7)
    lines = [
        json.dumps({"path": rng.choice(["/", "/cart", "/search"]), "ms": rng.randrange(200)}) for _ in range(5000)
    ]
    (tmp_path / "logs").mkdir()
    with gzip.open(tmp_path / "logs/a.jsonl.gz", "wt") as file:
        file.write("\n".join(lines[:2500]) + "\n")
    lines[2500 + 1706] = '{"path": /cart}'
    (tmp_path / "logs/b.jsonl").write_text("\n".join(lines[2500:]) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path
