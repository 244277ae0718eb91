import importlib
import inspect
import subprocess
import sys

import pytest

import batchflow
from batchflow import errors


def test_public_names_are_exact_and_sorted():
    assert batchflow.__all__ == sorted(batchflow.__all__)
    assert batchflow.__all__ == [
        "BatchflowError",
        "Flow",
        "Job",
        "Processes",
        "Ray",
        "Report",
        "Resources",
        "Result",
        "Retry",
        "Serial",
        "errors",
        "files",
        "map_batches",
        "map_records",
        "read_csv",
        "read_json",
        "read_parquet",
        "read_text",
        "records",
        "stream_batches",
    ]


@pytest.mark.parametrize("name", batchflow.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(batchflow, name)
    assert inspect.getdoc(value)
    assert name in dir(batchflow)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'batchflow' has no attribute 'map_record'"):
        _ = batchflow.map_record


@pytest.mark.parametrize("verb", ["map_records", "map_batches", "stream_batches"])
def test_every_argument_is_documented(verb):
    function = getattr(batchflow, verb)
    text = inspect.getdoc(function)
    for name in inspect.signature(function).parameters:
        assert f"\n{name}" in text or f", {name}" in text, name


def test_arguments_mean_the_same_in_all_verbs():
    records = inspect.signature(batchflow.map_records).parameters
    batches = inspect.signature(batchflow.map_batches).parameters
    own = {"concurrency"}  # a worker has one batch at a time
    assert list(batches.values()) == [one for name, one in records.items() if name not in own]
    for name, parameter in inspect.signature(batchflow.stream_batches).parameters.items():
        if name not in {"per", "ordered", "max_errors"}:
            assert parameter == records[name]


def test_every_error_is_ours_and_has_a_message_of_its_own():
    classes = [value for value in vars(errors).values() if inspect.isclass(value)]
    for kind in classes:
        assert issubclass(kind, errors.BatchflowError | KeyboardInterrupt | UserWarning)
        assert kind.__name__ in errors.__doc__
    assert str(errors.InputError("where")) == "where"
    assert str(errors.DestinationError("where")) == "where"


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, batchflow; print(*sorted({'pyarrow', 'ray', 'numpy', 'tqdm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_every_module_has_a_docstring():
    import pkgutil

    for module in pkgutil.walk_packages(batchflow.__path__, "batchflow."):
        assert importlib.import_module(module.name).__doc__, module.name
