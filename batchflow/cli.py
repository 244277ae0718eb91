"""The command line: ``batchflow run``, ``plan``, ``flow``, ``errors``, ``retry`` and ``verify``.

Exit status: 0 all ok; 1 done, some records failed, or the run itself failed; 2 wrong usage or plan,
nothing has run; 3 stopped over ``--max-errors``; 130 interrupted. A reader of the output that goes away,
like ``| head``, changes nothing. Only `argparse` is loaded until a command is known to be right.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from batchflow.printable import printable, printable_json

if TYPE_CHECKING:
    from batchflow.combining.result import Result
    from batchflow.events import Event
    from batchflow.flow_run import FlowRun
    from batchflow.job import Job

OK, FAILED, USAGE, STOPPED, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    arguments = _parser().parse_args(argv, argparse.Namespace(begun=False, into=None))
    from batchflow.errors import BatchflowError, StoppedError, UsageError

    try:
        status: int = arguments.command(arguments)
    except UsageError as error:
        return _fail(str(error), USAGE)
    except StoppedError as error:
        _fail(str(error), STOPPED)
        if arguments.into:
            _show([f"next: batchflow errors {arguments.into}; or go on with a larger --max-errors"], sys.stderr)
        return STOPPED
    except BatchflowError as error:
        return _fail(str(error) or type(error).__name__, FAILED)
    except (ValueError, OverflowError, OSError, RuntimeError) as error:
        if arguments.begun:
            raise
        return _fail(f"{type(error).__name__}: {error}", USAGE)  # what Python says to impossible arguments
    except KeyboardInterrupt as error:
        again = shlex.join(["batchflow", *(sys.argv[1:] if argv is None else argv)])
        _fail(str(error) or "interrupted: run it again", INTERRUPTED)
        _show([f"  {printable(again)}"], sys.stderr)
        return INTERRUPTED
    return status


def _fail(message: str, status: int) -> int:
    lines = message.splitlines() if status == FAILED else [message]  # a traceback may follow
    _show(map(printable, ["batchflow: " + lines[0], *lines[1:]]), sys.stderr)
    return status


def _show(lines: Iterable[object], stream: TextIO) -> None:
    """Print lines, as long as somebody reads them."""
    try:
        for line in lines:
            print(line, file=stream)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is still to be flushed goes nowhere


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="batchflow",
        description="Run a Python function over a very large set of files or records.",
        epilog="exit status: 0 all ok, 1 some or the run failed, 2 wrong usage or plan, nothing has run, "
        "3 stopped over --max-errors, 130 interrupted",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        ("run", _run, "run a function over files"),
        ("plan", _plan, "show what run would do; runs nothing"),
    ):
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        _add_job(sub)
        sub.set_defaults(command=command)
    flow = commands.add_parser("flow", help="run, explain or draw a flow", description="Run a flow.")
    _add_flow(flow)
    flow.set_defaults(command=_flow)
    errors = commands.add_parser("errors", help="show what failed in a run")
    errors.add_argument("output", help="folder or file that a run wrote")
    errors.add_argument("--all", action="store_true", help="every row, with its traceback; otherwise grouped")
    errors.add_argument("--json", action="store_true", help="the rows as JSON Lines")
    errors.set_defaults(command=_errors)
    retry = commands.add_parser("retry", help="run again only what failed, and put it into its place")
    retry.add_argument("output", help="folder or file that a run wrote")
    retry.add_argument("function", nargs="?", metavar="MODULE:FUNCTION", help="by default the one that made it")
    retry.add_argument("--setup", metavar="MODULE:FUNCTION", help="by default the one of the run")
    retry.add_argument("--version", metavar="NAME", help="names the function, if it was mended meanwhile")
    _add_limits(retry)
    retry.set_defaults(command=_retry)
    verify = commands.add_parser("verify", help="prove that output and errors cover the input exactly once")
    verify.add_argument("output", help="folder or file that a run wrote")
    verify.set_defaults(command=_verify)
    return parser


def _add_job(parser: argparse.ArgumentParser) -> None:
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
    _add_limits(parser)


def _add_flow(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which flow is run, and how."""
    add = parser.add_argument
    add("flow", metavar="MODULE:FLOW", help="sales/flow.py:flow; or a function that returns a flow")
    add("--only", action="append", metavar="STEP", help="run this step, and what it needs; may be given again")
    add("--on-error", choices=("abort", "continue"), default="abort", help="what to do when a step has failed")
    add("--max-errors", metavar="N", help="a count, or a fraction like 0.001; by default all are collected")
    add("--explain", action="store_true", help="tell what runs with what, and run nothing")
    add("--draw", metavar="FILE", help="flow.svg, or flow.mmd for Mermaid; with --explain as it is written")
    add("--arg", action="append", default=[], metavar="NAME=VALUE", help="of the function that returns the flow")
    add("--workers", type=int, metavar="N", help="cores at most")
    add("--memory", metavar="SIZE", help="memory of the whole flow, like 16GB")
    add("--executor", metavar="NAME", help="serial, processes or ray")
    add("--quiet", action="store_true", help="no progress line and no summary")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how a function is called, and where."""
    add = parser.add_argument
    add("--arg", action="append", default=[], metavar="NAME=VALUE", help="keyword argument (JSON or text)")
    add("--workers", type=int, metavar="N", help="tasks side by side at most")
    add("--memory", metavar="SIZE", help="memory of the whole job, like 16GB")
    add("--cpus-per-task", type=float, metavar="N")
    add("--memory-per-task", metavar="SIZE")
    add("--retry", type=int, metavar="N", help="tries at most, where another one may help")
    add("--timeout", type=float, metavar="SECONDS", help="of one task")
    add("--concurrency", type=int, metavar="N", help="calls at once in each worker, for functions that wait")
    add("--rate", metavar="RATE", help="calls of all workers together: 50/s, 100/min, '50/s burst 10'")
    add("--executor", metavar="NAME", help="serial, processes or ray")
    add("--quiet", action="store_true", help="no progress line and no summary")


def _job(arguments: argparse.Namespace) -> Job:
    """Return the job that the arguments describe."""
    from batchflow.job import Job
    from batchflow.loading import load_function
    from batchflow.readers import guess

    def optional(name: str | None) -> Callable[..., Any] | None:
        return None if name is None else load_function(name)

    return Job(
        fn=load_function(arguments.function),
        source=guess(arguments.inputs, arguments.read),
        per=arguments.per,
        into=arguments.into,
        format=arguments.format,
        setup=optional(arguments.setup),
        combine=optional(arguments.combine),
        max_errors=_number(arguments.max_errors, "--max-errors"),
        chunk=_whole(arguments.chunk),
        part_size=arguments.part_size,
        version=arguments.version,
        fresh=arguments.fresh,
        **_limits(arguments),
    )


def _limits(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the arguments of `_add_limits` say, as fields of a job."""
    from batchflow.resources import Resources
    from batchflow.retry import NEVER, Retry

    return {
        "args": dict(map(_keyword, arguments.arg)),
        "limits": Resources(cpus=arguments.workers, memory=arguments.memory),
        "per_task": Resources(cpus=arguments.cpus_per_task, memory=arguments.memory_per_task),
        "retry": NEVER if arguments.retry is None else Retry(attempts=arguments.retry),
        "timeout": arguments.timeout,
        "concurrency": arguments.concurrency,
        "rate": arguments.rate,
        "executor": arguments.executor,
        "progress": False if arguments.quiet else None,
        "listeners": [_begins(arguments)],
    }


def _begins(arguments: argparse.Namespace) -> Callable[[Event], None]:
    """Return a listener that notes that something has run."""

    def begin(_: Event) -> None:
        arguments.begun = True

    return begin


def _keyword(text: str) -> tuple[str, Any]:
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


def _number(text: str | None, option: str) -> int | float | None:
    from batchflow.errors import UsageError

    number = _whole(text)
    try:
        return float(number) if isinstance(number, str) else number
    except ValueError:
        message = f"{option} {text!r} is not a number"
        raise UsageError(message) from None


def _whole(text: str | None) -> int | str | None:
    """Return text as a whole number if it is one."""
    try:
        return None if text is None else int(text)
    except ValueError:
        return text


def _run(arguments: argparse.Namespace) -> int:
    return _told_result(_job(arguments).run(), arguments, arguments.into)


def _flow(arguments: argparse.Namespace) -> int:
    from batchflow.loading import load_flow
    from batchflow.resources import Resources

    flow = load_flow(arguments.flow, dict(map(_keyword, arguments.arg)))
    if arguments.explain:
        _show([flow.explain()], sys.stdout)
        if arguments.draw:
            flow.draw(arguments.draw)
        return OK
    run = flow.run(
        on_error=arguments.on_error,
        max_errors=_number(arguments.max_errors, "--max-errors"),
        only=arguments.only,
        limits=Resources(cpus=arguments.workers, memory=arguments.memory),
        executor=arguments.executor,
        progress=False if arguments.quiet else None,
        listeners=[_begins(arguments)],
    )
    if arguments.draw:
        run.draw(arguments.draw)
    return _told_flow(run, arguments)


def _told_flow(run: FlowRun, arguments: argparse.Namespace) -> int:
    """Tell what a flow came to, and return its exit status: what steps gave that no other one took, in JSON."""
    values = [{"step": step.name, "value": step.value} for step in run.steps if step.opened is not None]
    _show(_json_lines(values), sys.stdout)
    if not arguments.quiet:
        _show([run, *([_grouped(run.errors)] if run.errors.num_rows else [])], sys.stderr)
    return OK if run.ok else FAILED


def _retry(arguments: argparse.Namespace) -> int:
    from batchflow.errors import InputError
    from batchflow.job import Job
    from batchflow.loading import find_output, load_again, load_function, source_of

    destination, plan, history = find_output(arguments.output)
    failed = sum(len(done.failures) for done in history.chunks.values())
    forgotten = plan["args"].keys() - {text.partition("=")[0] for text in arguments.arg}
    if forgotten:
        option = f"--arg {min(forgotten)}=VALUE"
        message = f"the function takes arguments, whose values are written down nowhere: {option}"
        raise InputError(message)
    function = load_function(arguments.function) if arguments.function else None
    setup = load_function(arguments.setup) if arguments.setup else None
    source = source_of(plan)
    if source is None:
        where = f"the records of {arguments.output!r} were in the memory of a program"
        message = f"{where}: call Job(...).retry_failed() in it"
        raise InputError(message)
    job = Job(
        fn=function or load_again(plan["function"], arguments.output),
        source=source,
        per=plan["per"],
        into=str(destination.path) + ("" if destination.one_file else "/"),
        format=plan["format"],
        setup=setup or (load_again(plan["setup"], arguments.output) if plan["setup"] else None),
        version=arguments.version,
        **_limits(arguments),
    )
    result = job.retry_failed()
    left = result.errors.num_rows
    if failed and not arguments.quiet:
        _show([f"{failed:,} errors tried again: {failed - left:,} are gone, {left:,} stay"], sys.stderr)
    return _told_result(result, arguments, arguments.output)


def _verify(arguments: argparse.Namespace) -> int:
    from batchflow.errors import LedgerError
    from batchflow.loading import find_output, source_of
    from batchflow.printable import printable
    from batchflow.verifying import proof, verify

    try:
        destination, plan, history = find_output(arguments.output)
        problems = list(verify(destination, plan, history, source_of(plan)))
    except LedgerError as error:
        problems = [str(error)]
    _show(map(printable, problems or [proof(history)]), sys.stdout)
    if problems:
        _show(["what is missing is made by running the job again; what was changed, with --fresh"], sys.stderr)
    return FAILED if problems else OK


def _told_result(result: Result, arguments: argparse.Namespace, output: str | None) -> int:
    """Tell what a run came to, and return its exit status."""
    told: list[object] = [result.report]
    if result.errors.num_rows:
        told.append(_grouped(result.errors))
    if result.path is None:
        _show(_json_lines(result.values), sys.stdout)
    else:
        told.append(f"output in {output}")
        if result.errors.num_rows:
            again = f"batchflow retry {output} --version 2"
            told.append(f"next: batchflow errors {output} --all; once mended, {again}")
    if not arguments.quiet:
        _show(told, sys.stderr)
    return FAILED if result.errors.num_rows else OK


def _json_lines(values: Iterable[Any]) -> Iterator[str]:
    """Yield values as JSON Lines, as ``--format jsonl`` writes them."""
    import msgspec

    for value in values:
        yield printable_json(msgspec.json.encode(value, enc_hook=_plain).decode())


def _plain(value: Any) -> Any:
    """Return a value that JSON does not know as one that it knows: numbers, rows of tables, else text."""
    if hasattr(value, "num_rows") and hasattr(value, "to_pylist"):
        return value.to_pylist()
    return value.item() if type(value).__module__ == "numpy" and not getattr(value, "shape", True) else str(value)


def _plan(arguments: argparse.Namespace) -> int:
    _show([_job(arguments).plan().explain()], sys.stdout)
    return OK


def _errors(arguments: argparse.Namespace) -> int:
    from batchflow.loading import read_errors

    errors, ended = read_errors(arguments.output)
    lines: Iterable[str]
    if arguments.json:
        lines = _json_lines(errors.to_pylist())
    elif arguments.all:
        lines = map(_told, errors.to_pylist())
    else:
        lines = [_grouped(errors) if errors.num_rows else "nothing failed"]
    _show(lines, sys.stdout)
    if not ended:
        _show(["so far: the job has not come to its end"], sys.stderr)
    return FAILED if errors.num_rows else OK


def _grouped(errors: Any) -> str:
    """Return the commonest kinds of failure, with a count and an example each."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for row in errors.drop_columns(["payload", "traceback"]).to_pylist():
        groups.setdefault((row["phase"], row["error_type"]), []).append(row)
    lines = []
    for (phase, kind), rows in sorted(groups.items(), key=lambda item: -len(item[1])):
        first = rows[0]
        record = f", record {first['record']}" if first["record"] is not None else ""
        step = f"{printable(first['step'])}: " if first.get("step", first["source"]) != first["source"] else ""
        example = f"{step}{printable(first['source'])}{record}: {printable(first['message'])}"
        lines.append(f"{len(rows):>7,} x {printable(kind)} in {phase}: {example}")
    return "\n".join(lines)


def _told(row: dict[str, Any]) -> str:
    record = f", record {row['record']}" if row["record"] is not None else ""
    place = f"{printable(row['source'])}{record} [{row['start']}:{row['stop']}]"
    head = f"{place} {row['phase']}, {row['attempts']} attempts"
    payload = f"\n    {printable(row['payload'])}" if row["payload"] else ""
    trace = "".join(f"    {printable(line)}\n" for line in (row["traceback"] or "").splitlines())
    return f"{head}\n    {printable(row['error_type'])}: {printable(row['message'])}{payload}\n{trace}"


if __name__ == "__main__":
    sys.exit(main())
