"""The digits of a function: the same wherever it runs, others once it does something else."""

import ctypes
import functools
import os
import socket
import sqlite3
import subprocess
import sys
import textwrap
import tracemalloc
import uuid

import numpy as np
import pyarrow as pa
import pydantic
import pytest

from batchflow.core.fingerprint import FingerprintError, examine, fingerprint


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
        ("FACTOR = 2", "FACTOR = 3"),
        ("return x + 1", "return x + 2"),
        ("return x * 3", "return x * 4"),
        ("by=4", "by=5"),
        ("y - 1", "y - 2"),
        ('"c"}', '"d"}'),
        ("return None", "return 0"),
    ],
)
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
    [
        (1, 2),
        (1, 1.0),
        (range(3), range(1, 4)),
        ("1", 1),
        ([1], (1,)),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        (b"a", "a"),
        (None, False),
        (np.arange(3), np.arange(3) + 1),
        (pa.table({"a": [1]}), pa.table({"a": [2]})),
    ],
)
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
    code = textwrap.dedent(BASE) + "\nfrom batchflow.core.fingerprint import fingerprint\nprint(fingerprint(fn))\n"
    (tmp_path / "steps.py").write_text(code)
    digits = {
        subprocess.run(
            [sys.executable, "steps.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(digits) == 1


class Changing:
    """Pickled differently each time."""

    def __reduce__(self):
        return Changing, (uuid.uuid4().hex,)


class Addressed:
    """Holds its address."""

    def __init__(self):
        self.number = id(self)


class Described:
    """Holds its address as text."""

    def __init__(self):
        self.text = object.__repr__(self)


UNKNOWN = {
    "file": lambda: open(os.devnull),  # noqa: SIM115
    "connection": lambda: sqlite3.connect(":memory:"),
    "socket": lambda: socket.socket(),
    "generator": lambda: (x for x in ()),
    "changing": Changing,
    "address": Addressed,
    "address in text": Described,
    "frompyfunc": lambda: np.frompyfunc(lambda x: x, 1, 1),
    "C function": lambda: ctypes.CDLL(None).abs,
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", UNKNOWN)
def test_value_without_a_fingerprint_is_refused_by_name(kind):
    value = UNKNOWN[kind]()

    def fn(x):
        return value

    with pytest.raises(FingerprintError, match=r"value of .*fn"):
        fingerprint(fn)


def test_large_array_is_hashed_without_a_copy():
    array = np.zeros(1 << 27, dtype=np.uint8)
    tracemalloc.start()
    try:
        fingerprint(array)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_installed_packages_count_by_version():
    found = examine(lambda table: pa.concat_tables([table, np.sum]))
    assert found.packages == {"numpy": np.__version__, "pyarrow": pa.__version__}


class Model(pydantic.BaseModel):
    a: int = 1

    @pydantic.field_validator("a")
    @classmethod
    def check(cls, value):
        return value + 1


def test_use_of_a_pydantic_class_does_not_change_its_digits():
    before = fingerprint(Model)
    Model(a=2).a = 3
    assert Model(a=2) == Model.model_validate_json(Model(a=2).model_copy().model_dump_json()).model_copy(
        update={"a": 3}
    )
    assert str(Model.__signature__) == "(*, a: int = 1) -> None"
    assert Model.model_json_schema()["properties"]["a"]["default"] == 1
    assert fingerprint(Model) == before


def test_dunder_attribute_that_cannot_be_compared_is_named():
    class Tool:
        __state__ = (number for number in range(3))

    with pytest.raises(
        FingerprintError, match=r"^\.__state__ of .*Tool is a builtins\.generator, which pickle does not take$"
    ):
        fingerprint(Tool)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "environ"),
        ("sys", "path"),
        ("sys", "argv"),
        ("sys", "stdout"),
        ("sys", "stderr"),
        ("sys", "stdin"),
        ("warnings", "filters"),
        ("random", "random"),
        ("random", "randint"),
        ("numpy.random", "rand"),
    ],
)
def test_process_state_counts_by_name_in_any_spelling(module, name):
    """What it holds differs between two shells, as does the stream that a test or a notebook puts there."""
    fn = f"from {module} import {name} as state\ndef fn(x, also=state):\n    return state"
    script = f"""
import os, random, sys, warnings, io
import numpy.random
if sys.argv[1:]:
    os.environ["ANYTHING"] = "1"
    sys.path.append("/anywhere")
    sys.stdout, sys.stderr, sys.stdin, real = io.StringIO(), io.StringIO(), io.StringIO(), sys.stdout
    warnings.simplefilter("error")
    random.seed(int(sys.argv[1]))
    numpy.random.seed(int(sys.argv[1]))
    import zipfile
names = {{"__name__": "steps"}}
exec({fn!r}, names)
from batchflow.core.fingerprint import fingerprint
print(fingerprint(names["fn"]), file=sys.__stdout__)
"""
    digests = {
        subprocess.run([sys.executable, "-c", script, *more], capture_output=True, text=True, check=True).stdout
        for more in ([], ["1"], ["2"])
    }
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["x", "f'plugins.{x}'", "'plugins.' + x", "x or 'json'"])
def test_import_of_a_computed_name_is_refused(name):
    fn = made(f"import importlib\ndef fn(x): return importlib.import_module({name})")
    with pytest.raises(FingerprintError, match=r"^fn\(\) imports a module whose name only a call tells$"):
        fingerprint(fn)


def test_names_looked_up_by_text_without_a_file_are_refused():
    names = {"__name__": "module_without_a_file"}
    exec("K = 1\ndef fn(x): return eval('K')", names)
    with pytest.raises(FingerprintError, match=r"^fn\(\) looks up names by text, in a module without a file$"):
        fingerprint(names["fn"])


def test_what_is_only_named_like_a_builtin_looks_nothing_up():
    assert fingerprint(made("def eval(x): return x\ndef fn(x): return eval(x)"))
    assert fingerprint(made("def fn(model): return model.eval().globals"))
