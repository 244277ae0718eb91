"""The arguments of the commands, and what their texts stand for; loads nothing but `argparse`."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_job(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what a job does."""
    add = parser.add_argument
    add("function", metavar="MODULE:FUNCTION", help="steps.py:clean or package.steps:clean")
    add("inputs", nargs="+", metavar="INPUT", help="files, folders, globs (quoted, ** too) or URIs")
    add("--into", metavar="PATH", help="folder/ of parts, or one file like x.parquet; may be a URI, s3://bucket/folder/")
    add("--format", metavar="NAME", help="parquet, csv, jsonl or arrow")
    add("--read", metavar="KIND", help="text, json, csv, parquet or files; by default the suffix tells")
    add("--per", choices=("record", "batch"), default="record", help="what the function gets")
    add("--setup", metavar="MODULE:FUNCTION", help="called once per worker; gives the second argument")
    add("--combine", metavar="MODULE:FUNCTION", help="makes tables smaller until one is left")
    add("--max-errors", metavar="N", help="a count, or a fraction like 0.001; by default all are collected")
    add("--chunk", metavar="SIZE", help="records, or bytes like 8MB")
    add("--part-size", default="128MB", metavar="SIZE")
    add("--version", metavar="NAME", help="names the function: what is done stays, though it was changed")
    add("--fresh", action="store_true", help="replace the output of an earlier run")
    add_limits(parser)


def add_flow(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which flow is run, and how."""
    add = parser.add_argument
    add("flow", metavar="MODULE:FLOW", help="sales/flow.py:flow; or a function that returns a flow")
    add("--only", action="append", metavar="STEP", help="run this step, and what it needs; may be given again")
    add("--on-error", choices=("abort", "continue"), default="abort", help="what to do when a step has failed")
    add("--max-errors", metavar="N", help="a count, or a fraction like 0.001; by default all are collected")
    add("--explain", action="store_true", help="tell what runs with what, and run nothing")
    add("--report", metavar="FILE", help="flow.html: what the run was like; or .json, or .trace.json for Perfetto")
    add("--draw", metavar="FILE", help="flow.svg, or flow.mmd for Mermaid; with --explain as it is written")
    add("--arg", action="append", default=[], metavar="NAME=VALUE", help="of the function that returns the flow")
    add("--workers", type=int, metavar="N", help="cores at most")
    add("--memory", metavar="SIZE", help="memory of the whole flow, like 16GB")
    add("--executor", metavar="NAME", help="serial, processes or ray")
    add("--quiet", action="store_true", help="no progress line and no summary")


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which report is shown, and how."""
    add = parser.add_argument
    add("output", help="folder or file that a run wrote")
    add("--open", action="store_true", help="in a browser; of an object store a copy")
    add("--trace", action="store_true", help="the trace instead, for chrome://tracing and ui.perfetto.dev")


def add_retry(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which output is mended, and with what."""
    add = parser.add_argument
    add("output", help="folder or file that a run wrote")
    add("function", nargs="?", metavar="MODULE:FUNCTION", help="by default the one that made it")
    add("--setup", metavar="MODULE:FUNCTION", help="by default the one of the run")
    add("--version", metavar="NAME", help="names the function, if it was mended meanwhile")
    add_limits(parser)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how a function is called, and where."""
    add = parser.add_argument
    add("--arg", action="append", default=[], metavar="NAME=VALUE", help="keyword argument (JSON or text)")
    add("--workers", type=int, metavar="N", help="tasks side by side at most")
    add("--memory", metavar="SIZE", help="memory of the whole job, like 16GB")
    add("--cpus-per-task", type=float, metavar="N")
    add("--memory-per-task", metavar="SIZE")
    add("--gpus-per-task", type=float, default=0, metavar="N", help="a fraction too; placed by Ray")
    add("--retry", type=int, metavar="N", help="tries at most, where another one may help")
    add("--timeout", type=float, metavar="SECONDS", help="of one task")
    add("--concurrency", type=int, metavar="N", help="calls at once in each worker, for functions that wait")
    add("--rate", metavar="RATE", help="calls of all workers together: 50/s, 100/min, '50/s burst 10'")
    add("--executor", metavar="NAME", help="serial, processes or ray")
    add("--quiet", action="store_true", help="no progress line and no summary")


def add_submit(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what goes to a cluster along with a command."""
    group = parser.add_argument_group("on a cluster", _SENT)
    add = group.add_argument
    add_address(group)
    add("--working-dir", metavar="DIR", help="folder that is sent; by default that of steps.py, or this one")
    add("--exclude", action="append", default=[], metavar="NAME", help="stays here: a name, path or glob")
    add("--pip", action="append", default=[], metavar="PACKAGE", help="installed for the job; may be given again")
    add("--env", action="append", default=[], metavar="NAME[=VALUE]", help=_ENV)
    add("--no-wait", dest="wait", action="store_false", help="return as soon as the job is begun")


_SENT = (
    "These may stand anywhere behind run, flow or retry. The folder is sent without hidden files, __pycache__, "
    "node_modules and virtual environments (500 MiB at most), and batchflow itself with it; the job runs in a "
    "copy of it on the head node. So relative inputs must stand in the folder, absolute paths are those of the "
    "head node, and --into is an absolute path or a URI. The same command given again while its job runs "
    "follows that job; given after its end it goes on, or tries again. Ctrl-C ends the following, not the job."
)
_ENV = (
    "set for the job; without a value that of this machine, so that a secret stands on no command line "
    "(Ray shows it to whoever may see the job)"
)


def add_address(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the argument that says which cluster is meant."""
    text = "job server, like http://head:8265; by default $RAY_API_SERVER_ADDRESS"
    parser.add_argument("--address", metavar="URL", help=text)


def add_id(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which job is meant."""
    parser.add_argument("id", metavar="ID", help="as submit and jobs tell it")
    add_address(parser)


def keyword(text: str) -> tuple[str, Any]:
    """Return name and value of ``--arg name=value``; a value that is no JSON is text."""
    from batchflow.errors import UsageError

    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        message = f"--arg {text!r}: write it like name=value"
        raise UsageError(message)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def number(text: str | None, option: str) -> int | float | None:
    """Return text as a number.

    Raises
    ------
    UsageError
        With the name of the option, if it is none.
    """
    from batchflow.errors import UsageError

    number = whole(text)
    try:
        return float(number) if isinstance(number, str) else number
    except ValueError:
        message = f"{option} {text!r} is not a number"
        raise UsageError(message) from None


def whole(text: str | None) -> int | str | None:
    """Return text as a whole number if it is one."""
    try:
        return None if text is None else int(text)
    except ValueError:
        return text
