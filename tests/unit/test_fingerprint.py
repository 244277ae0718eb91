"""The digits of a function: the same wherever it runs, others once it does something else."""

import functools
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pytest

from batchflow.fingerprint import fingerprint


def made(code, name="fn"):
    """Return what code defines, as a module of its own would."""
    names = {"__name__": "steps"}
    exec(compile(textwrap.dedent(code), "steps.py", "exec"), names)
    return names[name]


BASE = """
    FACTOR = 2

    def helper(x):
        return x + 1

    class Tool:
        def use(self, x):
            return x * 3

    def fn(x, by=4):
        if x in {"a", "b", "c"}:
            return None
        return helper(x) * FACTOR + Tool().use(x) + (lambda y: y - 1)(by)
"""


def test_comments_blank_lines_and_places_do_not_count():
    other = "\n\n# a comment\n" + textwrap.dedent(BASE).replace("return x + 1", "return x + 1  # more")
    assert fingerprint(made(BASE)) == fingerprint(made(other))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FACTOR = 2", "FACTOR = 3"), ("return x + 1", "return x + 2"), ("return x * 3", "return x * 4"),
        ("by=4", "by=5"), ("y - 1", "y - 2"), ('"c"}', '"d"}'), ("return None", "return 0"),
    ],
)  # fmt: skip
def test_whatever_it_does_counts(old, new):
    assert old in BASE
    assert fingerprint(made(BASE)) != fingerprint(made(BASE.replace(old, new)))


def test_what_it_closes_over_counts():
    def make(n):
        return lambda x: x + n

    assert fingerprint(make(1)) == fingerprint(make(1))
    assert fingerprint(make(1)) != fingerprint(make(2))
    assert fingerprint(functools.partial(max, 1)) != fingerprint(functools.partial(max, 2))
    assert fingerprint(functools.partial(max, key=len)) != fingerprint(functools.partial(max, key=str))


class Adder:
    """A function with a state."""

    def __init__(self, n):
        self.n = n

    def __call__(self, x):
        return x + self.n


def test_objects_that_can_be_called_and_methods():
    assert fingerprint(Adder(1)) == fingerprint(Adder(1))
    assert fingerprint(Adder(1)) != fingerprint(Adder(2))
    assert fingerprint(Adder(1).__call__) != fingerprint(Adder(2).__call__)
    assert fingerprint(len) != fingerprint(max)


@pytest.mark.parametrize(
    "pair",
    [(1, 2), (1, 1.0), (range(3), range(1, 4)), ("1", 1), ([1], (1,)), ({"a": 1}, {"a": 2}), ({1, 2}, {1, 3}), (b"a", "a"), (None, False),
     (np.arange(3), np.arange(3) + 1), (pa.table({"a": [1]}), pa.table({"a": [2]}))],
)  # fmt: skip
def test_values_differ(pair):
    one, two = pair
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(two)


def test_what_refers_to_itself_comes_to_an_end():
    loop = []
    loop.append(loop)
    assert fingerprint(loop) == fingerprint(loop)

    def recursive(n):
        return n and recursive(n - 1)

    assert fingerprint(recursive)


def test_the_same_in_every_process(tmp_path):
    code = textwrap.dedent(BASE) + "\nfrom batchflow.fingerprint import fingerprint\nprint(fingerprint(fn))\n"
    (tmp_path / "steps.py").write_text(code)
    digits = {
        subprocess.run(
            [sys.executable, "steps.py"], cwd=tmp_path, capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "2")
    }  # fmt: skip
    assert len(digits) == 1
