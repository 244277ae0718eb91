"""The command line: ``run``, ``plan``, ``scale``, ``flow``, what looks at their outputs, ``submit`` and its kin.

Exit status: 0 all ok; 1 done, some records failed, or the run itself failed, or the sample of ``plan`` shows a
problem; 2 wrong usage or plan, nothing has run; 3 stopped over ``--max-errors``, or as no record succeeds; 130
interrupted. A reader of the output that goes away, like ``| head``, changes nothing. Only `argparse` is loaded
until a command is known to be right.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from batchflow.cli import commands
from batchflow.cli.output import (
    EXIT_STATUS,
    FAILED,
    INTERRUPTED,
    STOPPED,
    USAGE,
    finish_output,
    json_lines,
    open_standard_descriptors,
    own_output,
    print_error,
    print_lines,
    set_json_result,
    show_messages,
)
from batchflow.cli.parser import (
    EXAMPLES,
    Parser,
    add_address,
    add_errors,
    add_flow,
    add_id,
    add_job,
    add_json,
    add_json_lines,
    add_output,
    add_plan,
    add_report,
    add_retry,
    add_scale,
    add_shell,
    add_submit,
)
from batchflow.core.package import __version__
from batchflow.core.text import printable

if TYPE_CHECKING:
    from batchflow.errors import StoppedError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    open_standard_descriptors()
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:
        from batchflow.cli.completion import complete

        complete(parser)
    try:
        arguments = parser.parse_args(argv, _defaults(argv))
        _arrive()
    finally:
        finish_output()  # of --help
    with own_output():
        status = _settled(arguments)
        return _shown_object(arguments, status) if arguments.json else status


def _defaults(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return what commands find beside their arguments."""
    words = list(sys.argv[1:] if argv is None else argv)
    return argparse.Namespace(begun=False, into=None, json=False, told=None, argv=words)


def _shown_object(arguments: argparse.Namespace, status: int) -> int:
    """Print the one object that a program asked for, and return the exit status."""
    from batchflow.errors import OutputError

    try:
        print_lines(json_lines([arguments.told]))
    except OutputError as error:
        return print_error(str(error), FAILED)
    return status


def _settled(arguments: argparse.Namespace) -> int:
    """Run a command, tell what it could not do, and return its exit status."""
    from batchflow.errors import BatchflowError, StoppedError, UsageError

    try:
        status: int = arguments.command(arguments)
    except UsageError as error:
        return _failed(arguments, error, str(error), USAGE)
    except StoppedError as error:
        _failed(arguments, error, str(error), STOPPED)
        show_messages([*getattr(error, "__notes__", ()), f"next: {_after_stop(arguments, error)}"])
        return STOPPED
    except BatchflowError as error:
        return _failed(arguments, error, str(error) or type(error).__name__, FAILED)
    except (ValueError, OverflowError, OSError, RuntimeError) as error:
        if arguments.begun:
            raise
        # what Python says to impossible arguments
        return _failed(arguments, error, f"{type(error).__name__}: {error}", USAGE)
    except KeyboardInterrupt as error:
        from batchflow.core.text import command

        again = command(*_to_resume(arguments.argv))
        _failed(arguments, error, str(error) or "interrupted: run it again", INTERRUPTED)
        show_messages([f"  {printable(again)}"])
        return INTERRUPTED
    return status


def _after_stop(arguments: argparse.Namespace, error: StoppedError) -> str:
    """Return the commands that follow a job which stopped."""
    from batchflow.core.text import command, next_version, operand, with_options, without_option

    words = list(arguments.argv)
    output = arguments.into or getattr(arguments, "output", None)
    if error.reason == "setup" or not output:
        return command(*_to_resume(words))
    look = command("errors", operand(output), "--all")
    if error.reason == "max_errors":
        words = _to_resume(without_option(words, "--max-e"))
        if arguments.verb == "retry":  # it keeps the limit of the run
            words = with_options(words, "--max-errors", "1.0")
    elif arguments.verb == "retry":
        version = next_version(getattr(error.report, "version", None))
        words = with_options(without_option(words, "--vers"), "--version", version)
    else:
        words = with_options(_to_resume(words), "--fresh")
    return f"{look}; once fixed, {command(*words)}"


def _to_resume(words: Sequence[str]) -> list[str]:
    """Return the words of a command that resumes: without ``--fresh``, which would start again."""
    from batchflow.core.text import without_option

    return without_option(words, "--fre", has_value=False)


def _failed(arguments: argparse.Namespace, error: BaseException, message: str, status: int) -> int:
    """Tell why nothing more comes, to a machine too if it is one that asked, and return the exit status."""
    if arguments.json:
        from batchflow.cli.output import of_error

        set_json_result(arguments, status, of_error(error))
    return print_error(message, status)


def _arrive() -> None:
    """Prepare the folder of a submitted job."""
    if "BATCHFLOW_JOB" in os.environ:
        if sys.version_info < (3, 11):  # noqa: UP036 - sent along and not installed, we come to any Python
            version = ".".join(map(str, sys.version_info[:2]))
            sys.exit(
                print_error(f"the cluster has Python {version}, and batchflow needs 3.11 or later there", USAGE)
            )
        from batchflow.cli.submit.package import restore_mtimes

        restore_mtimes()


def build_parser() -> Parser:
    """Return the parser of the command line."""
    meanings = "".join(f"\n  {status:<4} {text}" for status, text in EXIT_STATUS.items())
    parser = Parser(
        prog="batchflow",
        description="Run a Python function over a very large set of files or records.",
        epilog=f"batchflow COMMAND --help tells the options of each, with examples.\n\nexit status:{meanings}",
    )
    parser.add_argument("--version", action="version", version=f"batchflow {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND", dest="verb")

    def add(name: str, text: str, command: Callable[[argparse.Namespace], int]) -> Parser:
        made: Parser = verbs.add_parser(name, help=text, **_told(name, text))
        made.set_defaults(command=command)
        return made

    proof = "prove that output and errors cover the input exactly once"
    for name, text, command, *adders in (
        ("run", "run a function over files", commands.run, add_job, add_json),
        ("plan", "show what run would do and what would go wrong", commands.plan, add_plan, add_json),
        ("scale", _SCALE, commands.scale, add_scale, add_json),
        ("flow", "run, explain or draw a flow", commands.flow, add_flow, add_json),
        ("errors", "show what failed in a run", commands.errors, add_errors),
        ("retry", "run again only what failed, and put it into its place", commands.retry, add_retry, add_json),
        ("report", "show where the report of a run is, or open it", commands.report, add_report, add_json),
        ("verify", proof, commands.verify, add_output, add_json),
    ):
        made = add(name, text, command)
        for add_arguments in adders:
            add_arguments(made)
    _add_cluster(verbs, add)
    add_shell(add("completion", "print what your shell needs to complete commands on TAB", commands.completion))
    return parser


def _told(name: str, text: str) -> dict[str, Any]:
    """Return what the help of a command says before and behind its arguments."""
    return {"description": f"{text[0].upper()}{text[1:]}.", "epilog": f"examples:{EXAMPLES[name]}"}


_SCALE = "measure how much faster more workers are, and tell what more of them gain"


def _remote(name: str) -> Callable[[argparse.Namespace], int]:
    """Return a command of `submit`, which is loaded when it runs."""

    def command(arguments: argparse.Namespace) -> int:
        from batchflow.cli.submit import commands as remote

        status: int = getattr(remote, name)(arguments)
        return status

    return command


def _add_cluster(verbs: Any, add: Callable[[str, str, Callable[[argparse.Namespace], int]], Parser]) -> None:
    """Add the commands that have to do with jobs of a Ray cluster."""
    text = "send a command to a Ray cluster, and follow it there"
    submit = verbs.add_parser("submit", help=text, **_told("submit", text))
    submitted = submit.add_subparsers(required=True, metavar="COMMAND")
    for name, add_arguments, text in (
        ("run", add_job, "run a function over files"),
        ("flow", add_flow, "run a flow"),
        ("retry", add_retry, "run again only what failed"),
        ("scale", add_scale, "measure what more workers gain"),
    ):
        sub = submitted.add_parser(name, help=text, **_told("submit", f"{text} on a Ray cluster"))
        add_arguments(sub)
        add_submit(sub)
        add_json(sub)
        sub.set_defaults(command=_remote("run_submit"), submitted=name, parser=sub)
    jobs = add("jobs", "list the jobs of a cluster, the newest first", _remote("run_jobs"))
    jobs.add_argument("--all", action="store_true", help="those that batchflow did not submit, too")
    add_json_lines(jobs, "the jobs")
    add_address(jobs)
    logs = add("logs", "show what a job of a cluster has printed", _remote("run_logs"))
    logs.add_argument("--follow", action="store_true", help="until it ends; the exit status is that of the job")
    add_id(logs)
    stop = add("stop", "stop a job of a cluster; what is done is kept", _remote("run_stop"))
    add_id(stop)
    add_json(stop)


if __name__ == "__main__":
    sys.exit(main())
