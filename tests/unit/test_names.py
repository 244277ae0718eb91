"""Names: a class of the package is found by its name alone."""

import ast
from collections import defaultdict
from pathlib import Path

import batchflow

ROOT = Path(batchflow.__file__).parent


def test_class_names_are_unique():
    places = defaultdict(list)
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path.relative_to(ROOT).as_posix())
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
