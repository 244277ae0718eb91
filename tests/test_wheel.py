"""What is installed: the wheel, as it is built."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as opened:
        yield opened


def test_the_wheel_holds_every_module_and_nothing_else(wheel):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "batchflow").rglob("*.py")}
    assert modules <= set(wheel.namelist())
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert sorted(tops) == ["batchflow", "batchflow-0.1.0.dist-info"]


def test_the_wheel_tells_that_it_is_typed(wheel):
    assert "batchflow/py.typed" in wheel.namelist()
    metadata = wheel.read("batchflow-0.1.0.dist-info/METADATA").decode()
    assert "Classifier: Typing :: Typed" in metadata
