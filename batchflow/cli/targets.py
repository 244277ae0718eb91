"""What the command line names: functions as ``module:name``, outputs of earlier runs."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from batchflow.checkpoint.destination import ERRORS, Destination
from batchflow.checkpoint.destination_checks import canonical_place
from batchflow.checkpoint.history import LEDGER, History
from batchflow.checkpoint.manifest import inputs_of
from batchflow.core.bootstrap import LOADING
from batchflow.core.pickle_by_value import files
from batchflow.core.text import command, did_you_mean, operand
from batchflow.errors import BatchflowError, FunctionError, InputError
from batchflow.flows.flow import Flow
from batchflow.io.readers import again
from batchflow.io.sources import Source
from batchflow.io.sources.listing import is_sent
from batchflow.io.stores import Uri, is_uri, why_refused
from batchflow.jobs.resume import read_history, replay
from batchflow.reporting.export import PAGE, TRACE

if TYPE_CHECKING:
    import pyarrow as pa


def load_function(name: str) -> Callable[..., Any]:
    """Return a function named like ``steps.py:clean`` or ``package.steps:clean``.

    Raises
    ------
    FunctionError
        If the module or the function cannot be found or imported, with the reason.
    """
    module_name, attribute, module = _named(name, "function")
    value = _attribute(module, attribute)
    if not callable(value):
        known = [key for key, item in vars(module).items() if callable(item) and not key.startswith("_")]
        message = f"{module_name} has no function {attribute!r}; it has {', '.join(sorted(known)) or 'none'}"
        message += did_you_mean(attribute, known)
        raise FunctionError(message)
    function: Callable[..., Any] = value
    return function


def load_flow(name: str, args: Mapping[str, Any]) -> Flow:
    """Return a flow named like ``sales/flow.py:flow``, or what a function of that name gives.

    Parameters
    ----------
    args
        Keyword arguments of the function.

    Raises
    ------
    FunctionError
        If there is none, with the reason.
    """
    module_name, attribute, module = _named(name, "flow")
    value = _attribute(module, attribute)
    if callable(value) and not isinstance(value, Flow):
        try:
            value = value(**args)
        except Exception as error:
            if isinstance(error, BatchflowError):
                raise
            message = f"{name} failed to write its flow: {type(error).__name__}: {error}"
            raise FunctionError(message) from error
    if not isinstance(value, Flow):
        known = sorted(key for key, item in vars(module).items() if isinstance(item, Flow))
        message = f"{module_name} has no flow {attribute!r}; it has {', '.join(known) or 'none'}"
        message += did_you_mean(attribute, known)
        raise FunctionError(message)
    return value


def _named(name: str, what: str) -> tuple[str, str, ModuleType]:
    """Return the names of a module and of something in it, and the module."""
    module_name, colon, attribute = name.rpartition(":")
    if not colon or not module_name or not attribute:
        message = f"{name!r} names no {what}: write it like steps.py:clean or package.steps:clean"
        raise FunctionError(message)
    return module_name, attribute, _load_module(module_name)


def _attribute(module: ModuleType, name: str) -> Any:
    try:
        return attrgetter(name)(module)
    except AttributeError:
        return None


def _load_module(name: str) -> ModuleType:
    file = Path(name).resolve() if name.endswith(".py") else None
    if file is not None and not file.is_file():
        near = [str(other.relative_to(Path.cwd())) for other in file.parent.glob("*.py")]
        message = f"there is no file {name!r} (looked in {Path.cwd()}){did_you_mean(name, near)}"
        raise FunctionError(message)
    LOADING.append(None)
    try:
        if file is not None:
            return _load_file(file)
        sys.path.insert(0, os.getcwd())
        return importlib.import_module(name)
    except BatchflowError:
        raise  # of a job at the top of the module
    except (Exception, SystemExit) as error:
        message = f"cannot import {name!r}: {type(error).__name__}: {error}"
        raise FunctionError(message) from error
    finally:
        LOADING.pop()


@cache
def _load_file(path: Path) -> ModuleType:
    """Import a file by its path, once, so that its neighbours can be imported too."""
    name = _module_name(path)
    # Last if the file has the name of a library, which others import by that name.
    sys.path.insert(0 if name == path.stem else len(sys.path), str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    files[name] = module  # a worker on another machine has no such file
    return module


def _module_name(path: Path) -> str:
    """Return the name of the module of a file: not that of a library, which others import by it."""
    stem = path.stem
    is_taken = stem in sys.stdlib_module_names or (stem in sys.modules and stem not in files)
    return f"{stem}_py" if is_taken and getattr(sys.modules.get(stem), "__file__", None) != str(path) else stem


def read_errors(output: str) -> tuple[pa.Table, bool]:
    """Return the error table of an output, and whether its job came to its end.

    Raises
    ------
    InputError
        If the output was not made by batchflow.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    destination, plan, history = find_output(output)
    file, store = destination.meta / ERRORS, destination.store
    if history.ended and store.size(file) is not None:
        return pq.read_table(pa.BufferReader(store.read(file)) if isinstance(file, Uri) else file), True
    return replay(history, tuple(inputs_of(plan))).table(), history.ended


def find_report(output: str, *, trace: bool = False) -> Path | Uri:
    """Return where the page, or the trace, of an output lies.

    Raises
    ------
    InputError
        If there is none.
    """
    destination = _destination(_place(output))
    place = destination.meta / (TRACE if trace else PAGE)
    if destination.store.size(place) is None:
        find_output(output)  # what is no output at all is told as everywhere
        message = f"{output!r} has no report: no {place}, which a run leaves when it ends, finished or not"
        raise InputError(message)
    return place


def find_output(output: str) -> tuple[Destination, dict[str, Any], History]:
    """Return an output of batchflow by its path, with its plan and its history.

    Raises
    ------
    InputError
        If there is none.
    LedgerError
        If what is written down of it was changed.
    """
    path = _place(output)
    try:
        destination, plan, history = _looked_up(path)
    except OSError as error:
        message = f"cannot read {path}: {error}"
        raise InputError(message) from error
    if plan is None or history is None:
        store = destination.store
        known = store.kind(path) or store.kind(destination.meta)
        why = f"there is no {LEDGER} in {destination.meta}" if known else f"{path} does not exist"
        message = f"{output!r} is no output of batchflow: {why}; name the folder or file that a run wrote"
        raise InputError(message)
    return replace(destination, format=plan["format"]), plan, history


def _place(output: str) -> Path | Uri:
    refused = why_refused(output) if is_uri(output) else None
    if refused:
        raise InputError(refused)
    return canonical_place(output)


def _destination(path: Path | Uri) -> Destination:
    """Return what is at a path: a folder, or one file, which may not be whole yet."""
    destination = Destination(path, "", one_file=False)
    return replace(destination, one_file=destination.store.kind(path) != "folder")


def _looked_up(path: Path | Uri) -> tuple[Destination, dict[str, Any] | None, History | None]:
    """Return what is at a path: a job that stopped before its one file was whole left its ledger beside it."""
    destination = _destination(path)
    return destination, *read_history(destination)


def source_of(plan: dict[str, Any], *, of: Callable[[list[str]], list[str]] = list) -> Source | None:
    """Return the source of an output, from the folder that its relative paths start from.

    ``None`` where its records were in the memory of a program.

    Parameters
    ----------
    of
        Chooses some of the paths of its inputs.
    """
    if not is_sent(plan["folder"]):  # what came with this job is newer
        with suppress(OSError):  # the folder of another machine; paths may be absolute
            os.chdir(plan["folder"])
    paths = [item.uri for item in inputs_of(plan)]
    return again(plan["source"], of(paths) or paths)


def load_again(place: dict[str, str | None], output: str) -> Callable[..., Any]:
    """Return a function by the place that the plan of an output tells of.

    Raises
    ------
    FunctionError
        If it cannot be found again.
    """
    module, name, file = place["module"], place["name"] or "", place["file"]
    if module == "__main__" and file and "<" not in name:
        return load_function(f"{file}:{name}")  # of a script, whose jobs are under a main guard
    if module in (None, "__main__") or "<" in name:
        message = (
            f"the function {name} that made {output!r} is defined in a program or another function: "
            f"name one that can be imported, "
            f"{command('retry', operand(output), 'steps.py:clean', '--version', '2')}"
        )
        raise FunctionError(message)
    by_file = file and module in (Path(file).stem, f"{Path(file).stem}_py") and not is_sent(file)
    return load_function(f"{file if by_file else module}:{name}")
