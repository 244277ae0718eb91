"""The code on these pages runs: ``python`` and ``sh`` blocks, in order, in a folder of each page's own.

- A ``python`` block that begins with ``# name.py`` is written to that file; any other one is a program of its own.
- A ``text`` block is what the block before it printed, but for times, rates and sizes of memory, which differ.
- What cannot run here has ``% skip: next "why"`` before it, and shows as a skipped test.
- ``make docs UPDATE=1`` writes what was really printed into the pages, where it is another.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, SkipParser

MAKE_DATA = Path(__file__).with_name("make_data.py")
SHOWN = "/home/me/shop"
"""What stands on the pages for the folder of a page."""
SETTINGS = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "COLUMNS": "100",
    "PYTHONPATH": "",
    "BATCHFLOW_EXECUTOR": "",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}
VARIES = {
    r"\d[\d,.]* (s|ms|seconds|MB|kB|records/s|workers' worth|chunks)\b": r"# \1",
    r"worth on \d+": "worth on #",
    r"(?m)^(workers' time:|sample|time|memory) .*": r"\1 #",
    r"(?m)^advice: .*\n": "",
}


def run_python(example: Example) -> str | None:
    """Write a file, or run a program."""
    named = re.match(r"# (\w+\.py)\n", example.parsed)
    name = named[1] if named else "example.py"
    (example.namespace["folder"] / name).write_text(example.parsed, encoding="utf-8")
    return None if named else run(example, [sys.executable, name])


def run_sh(example: Example) -> str | None:
    """Run lines of a shell; the first one that fails ends them, unless the page deals with it."""
    return run(example, ["bash", "-euc", example.parsed])


def run(example: Example, command: list[str]) -> str | None:
    """Run a command in the folder of the page; what it prints is kept for the block behind it."""
    folder = example.namespace["folder"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | SETTINGS,
        text=True,
        timeout=100,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        return f"exit status {done.returncode}\n{done.stdout}"
    example.namespace["printed"] = done.stdout.replace(str(folder), SHOWN).strip("\n") + "\n"
    return None


def compare(example: Example) -> str | None:
    """Compare what stands on the page with what was printed, or note it down for the page."""
    printed = example.namespace.pop("printed", None)
    if printed is None:
        return "the block before has printed nothing that could stand here"
    stands, now = masked(example.parsed), masked(printed)
    if stands == now:
        return None
    if os.environ.get("UPDATE"):
        change = example.region.start, example.region.end, f"```text\n{printed}```"
        example.namespace.setdefault("changes", {}).setdefault(example.path, []).append(change)
        return None
    return "\n".join(difflib.unified_diff(stands, now, "page", "printed", lineterm=""))


def masked(text: str) -> list[str]:
    """Return the lines of a text without what differs from run to run."""
    for pattern, instead in VARIES.items():
        text = re.sub(pattern, instead, text)
    return text.strip("\n").splitlines()


def setup(namespace: dict[str, Any]) -> None:
    """Make the folder of a page."""
    namespace["temporary"] = tempfile.TemporaryDirectory(prefix="page-")
    namespace["folder"] = Path(namespace["temporary"].name).resolve()
    subprocess.run([sys.executable, MAKE_DATA], cwd=namespace["folder"], check=True)


def teardown(namespace: dict[str, Any]) -> None:
    """Remove the folder of a page, and write what was printed into the page if that was asked for."""
    namespace["temporary"].cleanup()
    for path, changes in namespace.get("changes", {}).items():
        page = Path(path)
        text = page.read_text(encoding="utf-8")
        for start, end, block in sorted(changes, reverse=True):
            text = text[:start] + block + text[end:]
        page.write_text(text, encoding="utf-8")


pytest_collect_file = Sybil(
    [
        CodeBlockParser("python", run_python),
        CodeBlockParser("sh", run_sh),
        CodeBlockParser("text", compare),
        SkipParser(),
    ],
    pattern="*.md",
    setup=setup,
    teardown=teardown,
).pytest()
