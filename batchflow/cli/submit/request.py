"""``batchflow submit``: a command of ours as a job of a Ray cluster.

What the command names is looked at here, as the paths of this machine mean nothing there: code goes along,
inputs go along if they stand beside it, and an output must stand where it is not thrown away with the job.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from batchflow.cli.submit.job_server import PREFIX, JobServer
from batchflow.cli.submit.package import CodePackage
from batchflow.core.interrupts import DRAIN_SECONDS
from batchflow.core.package import PACKAGE_DIR
from batchflow.core.text import operand
from batchflow.errors import UsageError
from batchflow.io.stores import is_uri, why_refused
from batchflow.reporting.progress.listener import LINES

STOP_SECONDS = DRAIN_SECONDS + 10
"""What a job is given to end, once it is stopped."""

_CODE = ("function", "setup", "combine", "flow")
_WRITTEN = ("into", "output", "draw", "plot", "report")
_OURS = ("pip", "env", "exclude", "working_dir", "address", "wait", "json", "help")
_DIGITS = 16


class SubmitRequest(NamedTuple):
    """What a cluster is asked to do."""

    argv: tuple[str, ...]
    """The command, its paths as they are in the parcel."""
    parcel: CodePackage
    into: str | None
    pip: tuple[str, ...]
    env: Mapping[str, str]

    @property
    def name(self) -> str:
        """The id of its job: the same for the same command, code, packages and variables."""
        meaning = [self.argv, self.parcel.digest(), self.pip, sorted(self.env.items())]
        return PREFIX + hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:_DIGITS]

    @property
    def what(self) -> str:
        """The command in words."""
        return shlex.join(self.argv)


def build_request(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> SubmitRequest:
    """Return what the arguments of ``batchflow submit`` ask for.

    Parameters
    ----------
    parser
        The parser of the command behind ``submit``.

    Raises
    ------
    UsageError
        If it cannot work in another folder on another machine.
    """
    env = dict(map(_variable, arguments.env))
    root = _root(arguments)
    parcel = CodePackage(root, arguments.exclude)
    moved = argparse.Namespace(**vars(arguments))
    for name in _CODE:
        if text := getattr(arguments, name, None):
            setattr(moved, name, _moved_code(text, parcel))
    if hasattr(arguments, "inputs"):
        moved.inputs = [_moved_input(text, parcel) for text in arguments.inputs]
    for name in _WRITTEN:
        _check_written(getattr(arguments, name, None))
    if arguments.submitted == "retry" and not arguments.function:
        message = (
            "name the function, which is sent along: "
            f"batchflow submit {shlex.join(['retry', operand(arguments.output), 'steps.py:clean'])}"
        )
        raise UsageError(message)
    into = getattr(arguments, "into", None) or getattr(arguments, "output", None)
    argv = (arguments.submitted, *_argv(moved, parser))
    into = None if arguments.submitted == "scale" else into  # which writes nothing there
    return SubmitRequest(argv, parcel, into and into.rstrip("/"), tuple(arguments.pip), env)


def _variable(text: str) -> tuple[str, str]:
    """Return name and value of ``--env NAME=VALUE``, or of ``--env NAME``, whose value is the one here."""
    name, equals, value = text.partition("=")
    if not name:
        message = f"--env {text!r}: write it like NAME=VALUE, or NAME for its value here"
        raise UsageError(message)
    if not equals:
        if name not in os.environ:
            message = f"--env {name}: it is not set here; set it, or write {name}=VALUE"
            raise UsageError(message)
        value = os.environ[name]
    return name, value


def _file_of(text: str) -> str | None:
    """Return the file of ``steps.py:clean``; ``None`` of ``package.steps:clean``."""
    module = text.rpartition(":")[0]
    return module if module.endswith(".py") else None


def _root(arguments: argparse.Namespace) -> Path:
    """Return the folder that is sent: the one asked for, that of the code, or this one for a package in it."""
    if arguments.working_dir is not None:
        return Path(arguments.working_dir).resolve()
    names = [getattr(arguments, name, None) for name in _CODE]
    files = [file for text in names if text and (file := _file_of(text))]
    return Path(files[0]).resolve().parent if files else Path.cwd()


def _moved_code(text: str, parcel: CodePackage) -> str:
    """Return the name of a function as the job will find it."""
    file = _file_of(text)
    if file is None:
        return text
    if not Path(file).is_file():
        message = f"there is no file {file!r} (looked in {Path.cwd()})"
        raise UsageError(message)
    inside = os.path.relpath(Path(file).resolve(), parcel.root)
    if not _is_inside(inside):
        message = f"{file} lies outside of {parcel.root}, which is sent: name a --working-dir that holds it"
        raise UsageError(message)
    if not parcel.holds(inside):
        message = f"{file} is left out of what is sent, as it is hidden or excluded"
        raise UsageError(message)
    return f"{inside}:{text.rpartition(':')[2]}"


def _is_inside(path: str) -> bool:
    return path != os.pardir and not path.startswith(os.pardir + os.sep)


def _is_anywhere(path: str) -> bool:
    """Whether a path means the same in every folder; on the head node it does, if it is there."""
    refused = why_refused(path) if is_uri(path) else None
    if refused:
        raise UsageError(refused)
    return "://" in path or path.startswith(("/", "~"))


def _moved_input(text: str, parcel: CodePackage) -> str:
    """Return an input as the job will find it."""
    if _is_anywhere(text):
        return text
    inside = os.path.relpath(Path(text).absolute(), parcel.root)
    elsewhere = "name it by a URI like s3://, or by its path on the head node"
    if not _is_inside(inside):
        message = f"the input {text!r} lies outside of {parcel.root}, which is sent: {elsewhere}, or --working-dir"
        raise UsageError(message)
    found = [text] if os.path.exists(text) else glob.glob(text, recursive=True)
    if not found:
        message = f"no file matches {text!r} (looked in {Path.cwd()})"
        raise UsageError(message)
    if not any(parcel.holds(os.path.relpath(Path(path).absolute(), parcel.root)) for path in found):
        message = f"the input {text!r} is left out of what is sent, as it is hidden or excluded: {elsewhere}"
        raise UsageError(message)
    return inside


def _check_written(path: str | None) -> None:
    if path is not None and not _is_anywhere(path):
        message = (
            f"{path!r} would be written into the job's own folder, which Ray throws away: "
            "give an absolute path on the head node, or a URI such as s3://"
        )
        raise UsageError(message)


def _argv(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the arguments as they are typed, without those that are for `submit` itself."""
    options: list[str] = []
    for action in parser._actions:
        value = getattr(arguments, action.dest, None)
        if action.dest in _OURS or value == action.default:
            continue
        values: list[Any] = value if isinstance(value, list) else [value]
        if not action.option_strings:
            yield from values
        elif action.nargs == 0:
            options.append(action.option_strings[-1])
        else:
            options += [part for one in values for part in _typed(action.option_strings[-1], str(one))]
    yield from options


def _typed(option: str, value: str) -> Sequence[str]:
    return [f"{option}={value}"] if value.startswith("-") else [option, value]


def submit(order: SubmitRequest, cluster: JobServer) -> tuple[str, bool]:
    """Begin the job, unless it runs already; returns its id, and whether it is a new one."""
    while True:
        job_id, runs = cluster.find(order.name, order.into)
        if runs:
            return job_id, False
        what = {"batchflow": order.what} | ({"batchflow_into": order.into} if order.into else {})
        with tempfile.TemporaryDirectory(prefix="bf-submit-") as folder:
            parcel = Path(folder, "parcel.zip")
            order.parcel.write(parcel)
            if cluster.begin(job_id, _entrypoint(order), runtime_environment(order, parcel), what):
                return job_id, True


def _entrypoint(order: SubmitRequest) -> str:
    """Return the command of the job: in place of its shell, so that signals and exit status are its own."""
    return f"exec python -m batchflow.cli {order.what}"


def runtime_environment(order: SubmitRequest, parcel: Path) -> dict[str, Any]:
    """Return Ray's ``runtime_env``."""
    stopping = {
        # Ctrl-C and not SIGTERM: it is heard by the driver, and does not end the workers before they are done.
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_JOB_STOP_WAIT_TIME_S": f"{STOP_SECONDS:.0f}",
    }
    environment: dict[str, Any] = {
        "working_dir": str(parcel),
        "excludes": ["__pycache__"],
        "env_vars": {"BATCHFLOW_PROGRESS": LINES, "BATCHFLOW_JOB": order.name, **stopping, **order.env},
    }
    if order.pip:
        environment["pip"] = list(order.pip)
    if not any(_names_us(package) for package in order.pip):
        # The batchflow that reads these arguments is the one that runs them, whatever the cluster has.
        environment["py_modules"] = [str(Path(PACKAGE_DIR).resolve())]
    return environment


def _names_us(package: str) -> bool:
    name = package.strip().lower()
    return name.startswith("batchflow") and not name[len("batchflow") :][:1].isalnum()
