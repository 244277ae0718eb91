"""The command line: ``run``, ``plan``, ``flow``, what looks at their outputs, ``submit`` and its kin.

Exit status: 0 all ok; 1 done, some records failed, or the run itself failed; 2 wrong usage or plan,
nothing has run; 3 stopped over ``--max-errors``; 130 interrupted. A reader of the output that goes away,
like ``| head``, changes nothing. Only `argparse` is loaded until a command is known to be right.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from batchflow.arguments import (
    add_address,
    add_flow,
    add_id,
    add_job,
    add_report,
    add_retry,
    add_submit,
    keyword,
    number,
    whole,
)
from batchflow.printable import printable
from batchflow.telling import FAILED, INTERRUPTED, OK, STOPPED, USAGE, fail, grouped, json_lines, show, told_row

if TYPE_CHECKING:
    from batchflow.combining.result import Result
    from batchflow.events import Event
    from batchflow.flow import Flow
    from batchflow.flow_run import FlowRun
    from batchflow.job import Job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    arguments = _parser().parse_args(argv, argparse.Namespace(begun=False, into=None))
    _arrive()
    from batchflow.errors import BatchflowError, StoppedError, UsageError

    try:
        status: int = arguments.command(arguments)
    except UsageError as error:
        return fail(str(error), USAGE)
    except StoppedError as error:
        fail(str(error), STOPPED)
        if arguments.into:
            show([f"next: batchflow errors {arguments.into}; or go on with a larger --max-errors"], sys.stderr)
        return STOPPED
    except BatchflowError as error:
        return fail(str(error) or type(error).__name__, FAILED)
    except (ValueError, OverflowError, OSError, RuntimeError) as error:
        if arguments.begun:
            raise
        return fail(f"{type(error).__name__}: {error}", USAGE)  # what Python says to impossible arguments
    except KeyboardInterrupt as error:
        again = shlex.join(["batchflow", *(sys.argv[1:] if argv is None else argv)])
        fail(str(error) or "interrupted: run it again", INTERRUPTED)
        show([f"  {printable(again)}"], sys.stderr)
        return INTERRUPTED
    return status


def _arrive() -> None:
    """Prepare the folder of a submitted job."""
    if "BATCHFLOW_JOB" in os.environ:
        if sys.version_info < (3, 11):  # noqa: UP036 - sent along and not installed, we come to any Python
            version = ".".join(map(str, sys.version_info[:2]))
            sys.exit(fail(f"the cluster has Python {version}, and batchflow needs 3.11 or later there", USAGE))
        from batchflow.submit.parcel import arrived

        arrived()


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
        add_job(sub)
        sub.set_defaults(command=command)
    flow = commands.add_parser("flow", help="run, explain or draw a flow", description="Run a flow.")
    add_flow(flow)
    flow.set_defaults(command=_flow)
    errors = commands.add_parser("errors", help="show what failed in a run")
    errors.add_argument("output", help="folder or file that a run wrote")
    errors.add_argument("--all", action="store_true", help="every row, with its traceback; otherwise grouped")
    errors.add_argument("--json", action="store_true", help="the rows as JSON Lines")
    errors.set_defaults(command=_errors)
    retry = commands.add_parser("retry", help="run again only what failed, and put it into its place")
    add_retry(retry)
    retry.set_defaults(command=_retry)
    report = commands.add_parser("report", help="show where the report of a run is, or open it")
    add_report(report)
    report.set_defaults(command=_report)
    verify = commands.add_parser("verify", help="prove that output and errors cover the input exactly once")
    verify.add_argument("output", help="folder or file that a run wrote")
    verify.set_defaults(command=_verify)
    _add_cluster(commands)
    return parser


def _remote(name: str) -> Callable[[argparse.Namespace], int]:
    """Return a command of `submit`, which is loaded when it runs."""

    def command(arguments: argparse.Namespace) -> int:
        from batchflow.submit import commands

        status: int = getattr(commands, name)(arguments)
        return status

    return command


def _add_cluster(commands: Any) -> None:
    """Add the commands that have to do with jobs of a Ray cluster."""
    text = "send a command to a Ray cluster, and follow it there"
    submit = commands.add_parser("submit", help=text, description=f"{text[0].upper()}{text[1:]}.")
    submitted = submit.add_subparsers(required=True, metavar="COMMAND")
    for name, add, text in (
        ("run", add_job, "run a function over files"),
        ("flow", add_flow, "run a flow"),
        ("retry", add_retry, "run again only what failed"),
    ):
        sub = submitted.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]} on a Ray cluster.")
        add(sub)
        add_submit(sub)
        sub.set_defaults(command=_remote("run_submit"), submitted=name, parser=sub)
    jobs = commands.add_parser("jobs", help="list the jobs of a cluster, the newest first")
    jobs.add_argument("--all", action="store_true", help="those that batchflow did not submit, too")
    jobs.add_argument("--json", action="store_true", help="as JSON Lines")
    add_address(jobs)
    jobs.set_defaults(command=_remote("run_jobs"))
    logs = commands.add_parser("logs", help="show what a job of a cluster has printed")
    logs.add_argument("--follow", action="store_true", help="until it ends; the exit status is that of the job")
    add_id(logs)
    logs.set_defaults(command=_remote("run_logs"))
    stop = commands.add_parser("stop", help="stop a job of a cluster; what is done is kept")
    add_id(stop)
    stop.set_defaults(command=_remote("run_stop"))


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
        max_errors=number(arguments.max_errors, "--max-errors"),
        chunk=whole(arguments.chunk),
        part_size=arguments.part_size,
        version=arguments.version,
        fresh=arguments.fresh,
        **_limits(arguments),
    )


def _limits(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the arguments of `add_limits` say, as fields of a job."""
    from batchflow.resources import Resources
    from batchflow.retry import NEVER, Retry

    return {
        "args": dict(map(keyword, arguments.arg)),
        "limits": Resources(cpus=arguments.workers, memory=arguments.memory),
        "per_task": Resources(arguments.cpus_per_task, arguments.memory_per_task, arguments.gpus_per_task),
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


def _run(arguments: argparse.Namespace) -> int:
    return _told_result(_job(arguments).run(), arguments, arguments.into)


def _flow(arguments: argparse.Namespace) -> int:
    from batchflow.loading import load_flow

    flow = load_flow(arguments.flow, dict(map(keyword, arguments.arg)))
    if arguments.explain:
        show([flow.explain()], sys.stdout)
        if arguments.draw:
            flow.draw(arguments.draw)
        return OK
    run = _run_flow(flow, arguments)
    if arguments.draw:
        run.draw(arguments.draw)
    return _told_flow(run, arguments)


def _run_flow(flow: Flow, arguments: argparse.Namespace) -> FlowRun:
    """Run a flow; its report is written also where it stops before its end."""
    from batchflow.errors import InterruptedRun, StoppedError
    from batchflow.flow_run import FlowRun

    if arguments.report:
        from batchflow.papers import maker

        maker(arguments.report)  # refuses the name before anything runs
    try:
        run = _flow_run(flow, arguments)
    except (InterruptedRun, StoppedError) as error:
        ended = error.report if isinstance(error, StoppedError) else error.run
        if arguments.report and isinstance(ended, FlowRun):
            ended.save_report(arguments.report)
        raise
    if arguments.report:
        run.save_report(arguments.report)
    return run


def _flow_run(flow: Flow, arguments: argparse.Namespace) -> FlowRun:
    from batchflow.resources import Resources

    return flow.run(
        on_error=arguments.on_error,
        max_errors=number(arguments.max_errors, "--max-errors"),
        only=arguments.only,
        limits=Resources(cpus=arguments.workers, memory=arguments.memory),
        executor=arguments.executor,
        progress=False if arguments.quiet else None,
        listeners=[_begins(arguments)],
    )


def _told_flow(run: FlowRun, arguments: argparse.Namespace) -> int:
    """Tell what a flow came to, and return its exit status: what steps gave that no other one took, in JSON."""
    values = [{"step": step.name, "value": step.value} for step in run.steps if step.opened is not None]
    show(json_lines(values), sys.stdout)
    if not arguments.quiet:
        show([run, *([grouped(run.errors)] if run.errors.num_rows else [])], sys.stderr)
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
        show([f"{failed:,} errors tried again: {failed - left:,} are gone, {left:,} stay"], sys.stderr)
    return _told_result(result, arguments, arguments.output)


def _report(arguments: argparse.Namespace) -> int:
    from batchflow.loading import find_report

    place = find_report(arguments.output, trace=arguments.trace)
    show([printable(str(place))], sys.stdout)
    if arguments.open:
        import webbrowser

        from batchflow.papers import local_copy

        address = local_copy(place).as_uri()
        if not webbrowser.open(address):
            show([f"no browser could be opened here: copy the file, or open {printable(address)}"], sys.stderr)
            return FAILED
    return OK


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
    show(map(printable, problems or [proof(history)]), sys.stdout)
    if problems:
        show(["what is missing is made by running the job again; what was changed, with --fresh"], sys.stderr)
    return FAILED if problems else OK


def _told_result(result: Result, arguments: argparse.Namespace, output: str | None) -> int:
    """Tell what a run came to, and return its exit status."""
    told: list[object] = [result.report]
    if result.errors.num_rows:
        told.append(grouped(result.errors))
    if result.path is None:
        show(json_lines(result.values), sys.stdout)
    else:
        told.append(f"output in {output}")
        if result.errors.num_rows:
            again = f"batchflow retry {output} --version 2"
            told.append(f"next: batchflow errors {output} --all; once mended, {again}")
    if not arguments.quiet:
        show(told, sys.stderr)
    return FAILED if result.errors.num_rows else OK


def _plan(arguments: argparse.Namespace) -> int:
    show([_job(arguments).plan().explain()], sys.stdout)
    return OK


def _errors(arguments: argparse.Namespace) -> int:
    from batchflow.loading import read_errors

    errors, ended = read_errors(arguments.output)
    lines: Iterable[str]
    if arguments.json:
        lines = json_lines(errors.to_pylist())
    elif arguments.all:
        lines = map(told_row, errors.to_pylist())
    else:
        lines = [grouped(errors) if errors.num_rows else "nothing failed"]
    show(lines, sys.stdout)
    if not ended:
        show(["so far: the job has not come to its end"], sys.stderr)
    return FAILED if errors.num_rows else OK




if __name__ == "__main__":
    sys.exit(main())
