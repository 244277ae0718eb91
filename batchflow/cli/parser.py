"""Arguments of the commands, and the parser that reads them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from batchflow.core.text import did_you_mean


def add_job(parser: argparse.ArgumentParser, *, workers: bool = True) -> None:
    """Add the arguments that say what a job does, and unless told otherwise by how many workers."""
    parser.add_argument("function", metavar="MODULE:FUNCTION", help="steps.py:clean or package.steps:clean")
    text = "files, folders, globs (quoted, ** too) or URIs"
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=text)
    add = _group(parser, "input and function").add_argument
    add("--read", metavar="KIND", help="text, json, csv, parquet or files; by default the suffix tells")
    add("--types", action="append", default=[], metavar="COLUMN=TYPE", help=_TYPES)
    add("--delimiter", metavar="CHAR", help="between the cells of CSV; by default a comma, a tab for .tsv")
    add("--quote", metavar="CHAR", help="around cells of CSV; '' if quotes are text; by default '\"'")
    add("--encoding", metavar="NAME", help="of text, JSON and CSV, like latin-1 or utf-16; by default utf-8")
    add("--per", choices=("record", "batch"), default="record", help="what the function gets; by default a record")
    add("--setup", metavar="MODULE:FUNCTION", help="called once per worker; gives the second argument")
    add("--combine", metavar="MODULE:FUNCTION", help="makes tables smaller until one is left")
    add("--arg", action="append", default=[], metavar="NAME=VALUE", help=_ARG)
    add = _group(parser, "output").add_argument
    add(
        "--into",
        metavar="PATH",
        help="folder/ of parts, or one file like x.parquet; may be a URI, s3://bucket/folder/",
    )
    add("--format", metavar="NAME", help="parquet, csv, jsonl or arrow; by default the suffix tells, or parquet")
    add("--part-size", default="128MB", metavar="SIZE", help="of the parts in a folder, about; by default 128MB")
    add("--version", metavar="NAME", help="names the function: what is done stays, though it was changed")
    add("--fresh", action="store_true", help="replace the output of an earlier run; by default the run goes on")
    add = _group(parser, "failures").add_argument
    add("--max-errors", metavar="N", help=_MAX_ERRORS)
    add_limits(parser, workers=workers)
    text = "of a task: records, or bytes like 8MB; by default about half a second's worth"
    _group(parser, "caps").add_argument("--chunk", metavar="SIZE", help=text)


def add_scale(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what is measured, and how."""
    add_job(parser, workers=False)
    add = _group(parser, "measuring").add_argument
    add("--workers", metavar="N,N", help="1,2,4,8: how many side by side; by default up to the cores")
    add("--sample", metavar="N", help="records, or a share: 5%%, 0.05, all over the input; by default all of it")
    add("--rounds", type=int, default=3, metavar="N", help="turns of each number; medians count; by default 3")
    add("--plot", metavar="FILE", help="the curve as SVG: scale.svg")


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what is planned, and how much of it is tried out."""
    add_job(parser)
    add = _group(parser, "trying out").add_argument
    add("--sample", type=int, metavar="K", help="records that are tried at most, for 0.3 s; by default 5000")
    add("--no-sample", dest="sample", action="store_const", const=0, help="call nothing")


def add_flow(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which flow is run, and how."""
    add = parser.add_argument
    add("flow", metavar="MODULE:FLOW", help="sales/flow.py:flow; or a function that returns a flow")
    add("--arg", action="append", default=[], metavar="NAME=VALUE", help="of the function that returns the flow")
    add("--only", action="append", metavar="STEP", help="run this step, and what it needs; may be given again")
    add("--explain", action="store_true", help="tell what runs with what, and run nothing")
    add("--report", metavar="FILE", help="flow.html: what the run was like; or .json, or .trace.json for Perfetto")
    add("--draw", metavar="FILE", help="flow.svg, or flow.mmd for Mermaid; with --explain as it is written")
    add = _group(parser, "failures").add_argument
    text = "what to do when a step has failed; by default abort"
    add("--on-error", choices=("abort", "continue"), default="abort", help=text)
    add("--max-errors", metavar="N", help=_MAX_ERRORS)
    add = _group(parser, "caps").add_argument
    add("--workers", type=int, metavar="N", help="cores at most; by default all of them")
    add("--memory", metavar="SIZE", help="of the whole flow, like 16GB; by default that of the machine")
    _add_running(parser)


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which report is shown, and how."""
    add_output(parser)
    add = parser.add_argument
    add("--open", action="store_true", help="in a browser; of an object store a copy")
    add("--trace", action="store_true", help="the trace instead, for chrome://tracing and ui.perfetto.dev")


def add_retry(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which output is mended, and with what."""
    parser.add_argument("output", metavar="OUTPUT", help="folder or file that a run wrote")
    text = "the function that was mended; by default the one that made it"
    parser.add_argument("function", nargs="?", metavar="MODULE:FUNCTION", help=text)
    add = _group(parser, "input and function").add_argument
    add("--setup", metavar="MODULE:FUNCTION", help="by default the one of the run")
    add("--arg", action="append", default=[], metavar="NAME=VALUE", help=_ARG)
    add("--version", metavar="NAME", help="names the function, if it was mended meanwhile")
    text = "stop over a count, or a fraction like 0.001; by default that of the run"
    _group(parser, "failures").add_argument("--max-errors", metavar="N", help=text)
    add_limits(parser)


def add_limits(parser: argparse.ArgumentParser, *, workers: bool = True) -> None:
    """Add the arguments that say how a function is called, and where."""
    add = _group(parser, "failures").add_argument
    add("--retry", type=int, metavar="N", help="tries at most, where another one may help; by default 1")
    add("--timeout", type=float, metavar="SECONDS", help="of one task, from its real start; by default none")
    add = _group(parser, "caps").add_argument
    if workers:
        add("--workers", type=int, metavar="N", help="tasks side by side at most; by default one for each core")
    add("--memory", metavar="SIZE", help="of the whole job, like 16GB; by default that of the machine")
    add("--cpus-per-task", type=float, metavar="N", help="0 for one that only waits; by default 1")
    add("--memory-per-task", metavar="SIZE", help="like 1GB; a task that takes more is stopped; by default no cap")
    add("--gpus-per-task", type=float, default=0, metavar="N", help="a fraction too; placed by Ray; by default 0")
    add("--concurrency", type=int, metavar="N", help="calls at once in each worker, for functions that wait")
    add("--rate", metavar="RATE", help="calls of all workers together: 50/s, 100/min, '50/s burst 10'")
    _add_running(parser)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the argument that says which output is looked at."""
    parser.add_argument("output", metavar="OUTPUT", help="folder or file that a run wrote")


def add_errors(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which errors are shown, and how."""
    add_output(parser)
    parser.add_argument("--all", action="store_true", help="every row, with its traceback; otherwise grouped")
    add_json_lines(parser, "the rows")


_ARG = "keyword argument of the function, JSON or text; may be given again"
_TYPES = (
    "of a column of CSV, or of JSON with --per batch: str, int, float, bool, date or datetime; "
    "by default inferred; may be given again"
)
_MAX_ERRORS = "stop over a count, or a fraction like 0.001; by default all are collected"


def _group(parser: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """Return the group of that title, which commands share."""
    groups = (group for group in parser._action_groups if group.title == title)
    return next(groups, None) or parser.add_argument_group(title)


def _add_running(parser: argparse.ArgumentParser) -> None:
    add = _group(parser, _RUNNING).add_argument
    text = "serial, processes or ray; by default ray where it runs already or RAY_ADDRESS is set, else processes"
    add("--executor", metavar="NAME", help=text)
    add("--quiet", action="store_true", help="no progress line and no summary")


_RUNNING = "where it runs, and what is told"


def add_shell(parser: argparse.ArgumentParser) -> None:
    """Add the argument that says which shell is meant, and what to write into its file."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the one that you type into")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the argument that asks for one JSON object."""
    text = 'for programs: all of standard output is one JSON object; rows that go nowhere else are its "values"'
    _group(parser, _RUNNING).add_argument("--json", action="store_true", help=text)


def add_json_lines(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the argument that asks for JSON Lines."""
    parser.add_argument("--json", action="store_true", dest="lines", help=f"for programs: {what} as JSON Lines")


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
    "These may stand anywhere behind the command. The folder is sent without hidden files, __pycache__, "
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


EXAMPLES = {
    "run": """
  batchflow run steps.py:clean 'sales/*.csv' --into clean/
  batchflow run steps.py:clean 'sales/*.csv' --into clean/ --workers 8 --max-errors 10 --timeout 60 --retry 3
  batchflow run steps.py:clean old.csv --into clean/ --delimiter ';' --types postcode=str --types day=date
  batchflow run steps.py:fetch urls.csv --into pages/ --concurrency 200 --rate 50/s
  batchflow run steps.py:totals sales/ --read parquet --per batch --combine steps.py:totals --json""",
    "plan": """
  batchflow plan steps.py:clean 'sales/*.csv' --into clean/
  batchflow plan steps.py:clean 'sales/*.csv' --into clean/ --no-sample --json""",
    "scale": """
  batchflow scale steps.py:clean 'sales/*.csv' --workers 1,2,4,8 --sample 5%
  batchflow scale steps.py:clean 'sales/*.csv' --plot scale.svg""",
    "flow": """
  batchflow flow sales/flow.py:flow --on-error continue --draw flow.svg
  batchflow flow sales/flow.py:flow --explain
  batchflow flow sales/flow.py:made --arg year=2024 --only report""",
    "errors": """
  batchflow errors clean/
  batchflow errors clean/ --all
  batchflow errors clean/ --json""",
    "report": """
  batchflow report clean/ --open
  batchflow report clean/ --trace""",
    "retry": """
  batchflow retry clean/
  batchflow retry clean/ steps.py:clean --version 2""",
    "verify": """
  batchflow verify clean/
  batchflow verify clean/ --json""",
    "submit": """
  batchflow submit run steps.py:clean 's3://b/in/*.csv' --into s3://b/clean/ --address http://head:8265
  batchflow submit flow sales/flow.py:flow --no-wait
  batchflow submit retry s3://b/clean/ steps.py:clean --version 2
  batchflow submit scale steps.py:clean 's3://b/in/*.csv' --workers 8,16,32 --sample 1%""",
    "jobs": """
  batchflow jobs
  batchflow jobs --all --json --address http://head:8265""",
    "logs": """
  batchflow logs ID
  batchflow logs ID --follow""",
    "stop": """
  batchflow stop ID""",
    "completion": """
  eval "$(batchflow completion bash)"       in ~/.bashrc
  eval "$(batchflow completion zsh)"        in ~/.zshrc, behind compinit
  batchflow completion fish | source        in ~/.config/fish/config.fish""",
}
"""Of each command, as its help shows them."""


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


def reader_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what ``--types``, ``--delimiter``, ``--quote`` and ``--encoding`` say, as options of a reader.

    Raises
    ------
    UsageError
        If a type names no column.
    """
    from batchflow.errors import UsageError

    options: dict[str, Any] = {}
    if arguments.delimiter is not None:
        options["delimiter"] = arguments.delimiter.replace("\\t", "\t")
    if arguments.quote is not None:
        options["quote"] = arguments.quote or None
    if arguments.encoding is not None:
        options["encoding"] = arguments.encoding
    for text in arguments.types:
        name, equals, kind = text.rpartition("=")
        if not equals or not name:
            message = f"--types {text!r}: write it like amount=float"
            raise UsageError(message)
        options.setdefault("types", {})[name] = kind
    return options


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


class Help(argparse.HelpFormatter):
    """Leaves texts of several lines, as examples are, as they stand; others are wrapped."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """Tells what may have been meant by an option or a choice that it does not know.

    An option that a command does not know is told with the name of that command.
    """

    suggest_on_error = False
    """Python does it from 3.14 on, for choices only."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": Help} | options)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments, of which there must be none that is not known."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown)}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong in one line, and where to read more; the whole usage would hide it."""
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help tells more)\n")

    def _meant(self, unknown: Iterable[str]) -> str:
        options = [text.partition("=")[0] for text in unknown if text.startswith("--")]
        return did_you_mean(options[0], self._option_string_actions) if options else ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += did_you_mean(str(value), map(str, action.choices or ()))
            raise
