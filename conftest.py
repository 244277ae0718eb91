"""Data for the code blocks of the README, which run as tests in a folder of their own."""

from __future__ import annotations

import compileall
import runpy
from pathlib import Path

import pytest


def pytest_sessionstart() -> None:
    """Compile the package as pip does when it installs it: tests start hundreds of processes that import it."""
    compileall.compile_dir(Path(__file__).with_name("batchflow"), quiet=1)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the data of the documents into an empty folder, and go there."""
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(Path(__file__).with_name("docs") / "make_data.py"), run_name="__main__")
    return tmp_path
