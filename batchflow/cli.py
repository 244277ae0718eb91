"""The command line: ``run``, ``plan``, ``scale``, ``flow``, what looks at their outputs, ``submit`` and its kin.

Exit status: 0 all ok; 1 done, some records failed, or the run itself failed, or the sample of ``plan`` shows a
problem; 2 wrong usage or plan, nothing has run; 3 stopped over ``--max-errors``; 130 interrupted. A reader of the
output that goes away, like ``| head``, changes nothing. Only `argparse` is loaded until a command is known to be
right.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from batchflow.arguments import (
    EXAMPLES,
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
    keyword,
    number,
    whole,
)
from batchflow.parser import Parser
from batchflow.printable import printable
from batchflow.telling import (
    EXIT_STATUS,
    FAILED,
    INTERRUPTED,
    OK,
    STOPPED,
    USAGE,
    fail,
    grouped,
    json_lines,
    kept_for_json,
    show,
    tell,
    told_row,
)

if TYPE_CHECKING:
    from batchflow.combining.result import Result
    from batchflow.events import Event
    from batchflow.flow import Flow
    from batchflow.flow_run import FlowRun
    from batchflow.job import Job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:
        from batchflow.completing import complete

        complete(parser)
    arguments = parser.parse_args(argv, argparse.Namespace(begun=False, into=None, json=False, told=None))
    _arrive()
    if not arguments.json:
        return _settled(arguments, argv)
    with kept_for_json():
        status = _settled(arguments, argv)
    show(json_lines([arguments.told]), sys.stdout)
    return status


def _settled(arguments: argparse.Namespace, argv: Sequence[str] | None) -> int:
    """Run a command, tell what it could not do, and return its exit status."""
    from batchflow.errors import BatchflowError, StoppedError, UsageError

    try:
        status: int = arguments.command(arguments)
    except UsageError as error:
        return _failed(arguments, error, str(error), USAGE)
    except StoppedError as error:
        _failed(arguments, error, str(error), STOPPED)
        if arguments.into:
            show([f"next: batchflow errors {arguments.into}; or go on with a larger --max-errors"], sys.stderr)
        return STOPPED
    except BatchflowError as error:
        return _failed(arguments, error, str(error) or type(error).__name__, FAILED)
    except (ValueError, OverflowError, OSError, RuntimeError) as error:
        if arguments.begun:
            raise
        # what Python says to impossible arguments
        return _failed(arguments, error, f"{type(error).__name__}: {error}", USAGE)
    except KeyboardInterrupt as error:
        again = shlex.join(["batchflow", *(sys.argv[1:] if argv is None else argv)])
        _failed(arguments, error, str(error) or "interrupted: run it again", INTERRUPTED)
        show([f"  {printable(again)}"], sys.stderr)
        return INTERRUPTED
    return status


def _failed(arguments: argparse.Namespace, error: BaseException, message: str, status: int) -> int:
    """Tell why nothing more comes, to a machine too if it is one that asked, and return the exit status."""
    if arguments.json:
        from batchflow.shapes import of_error

        tell(arguments, status, of_error(error))
    return fail(message, status)


def _arrive() -> None:
    """Prepare the folder of a submitted job."""
    if "BATCHFLOW_JOB" in os.environ:
        if sys.version_info < (3, 11):  # noqa: UP036 - sent along and not installed, we come to any Python
            version = ".".join(map(str, sys.version_info[:2]))
            sys.exit(fail(f"the cluster has Python {version}, and batchflow needs 3.11 or later there", USAGE))
        from batchflow.submit.parcel import arrived

        arrived()


def _parser() -> Parser:
    meanings = "".join(f"\n  {status:<4} {text}" for status, text in EXIT_STATUS.items())
    parser = Parser(
        prog="batchflow",
        description="Run a Python function over a very large set of files or records.",
        epilog=f"batchflow COMMAND --help tells the options of each, with examples.\n\nexit status:{meanings}",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="verb")

    def add(name: str, text: str, command: Callable[[argparse.Namespace], int]) -> Parser:
        made: Parser = commands.add_parser(name, help=text, **_told(name, text))
        made.set_defaults(command=command)
        return made

    for name, text, command, *adders in (
        ("run", "run a function over files", _run, add_job, add_json),
        ("plan", "show what run would do and what would go wrong", _plan, add_plan, add_json),
        ("scale", _SCALE, _scale, add_scale, add_json),
        ("flow", "run, explain or draw a flow", _flow, add_flow, add_json),
        ("errors", "show what failed in a run", _errors, add_errors),
        ("retry", "run again only what failed, and put it into its place", _retry, add_retry, add_json),
        ("report", "show where the report of a run is, or open it", _report, add_report),
        ("verify", "prove that output and errors cover the input exactly once", _verify, add_output, add_json),
    ):
        made = add(name, text, command)
        for add_arguments in adders:
            add_arguments(made)
    _add_cluster(commands, add)
    add_shell(add("completion", "print what your shell needs to complete commands on TAB", _completion))
    return parser


def _told(name: str, text: str) -> dict[str, Any]:
    """Return what the help of a command says before and behind its arguments."""
    return {"description": f"{text[0].upper()}{text[1:]}.", "epilog": f"examples:{EXAMPLES[name]}"}


_SCALE = "measure how much faster more workers are, and tell what more of them gain"


def _remote(name: str) -> Callable[[argparse.Namespace], int]:
    """Return a command of `submit`, which is loaded when it runs."""

    def command(arguments: argparse.Namespace) -> int:
        from batchflow.submit import commands

        status: int = getattr(commands, name)(arguments)
        return status

    return command


def _add_cluster(commands: Any, add: Callable[[str, str, Callable[[argparse.Namespace], int]], Parser]) -> None:
    """Add the commands that have to do with jobs of a Ray cluster."""
    text = "send a command to a Ray cluster, and follow it there"
    submit = commands.add_parser("submit", help=text, **_told("submit", text))
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
    return _told_result(_job(arguments).run(), arguments)


def _flow(arguments: argparse.Namespace) -> int:
    from batchflow.loading import load_flow

    flow = load_flow(arguments.flow, dict(map(keyword, arguments.arg)))
    if arguments.explain:
        return _explained(flow, arguments)
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


def _explained(flow: Flow, arguments: argparse.Namespace) -> int:
    """Tell what runs with what, and return the exit status."""
    if arguments.draw:
        flow.draw(arguments.draw)
    if arguments.json:
        from batchflow.shapes import of_graph

        return tell(arguments, OK, of_graph(flow))
    show([flow.explain()], sys.stdout)
    return OK


def _told_flow(run: FlowRun, arguments: argparse.Namespace) -> int:
    """Tell what a flow came to, and return its exit status: what steps gave that no other one took, in JSON."""
    status = OK if run.ok else FAILED
    if arguments.json:
        from batchflow.shapes import of_flow

        return tell(arguments, status, of_flow(run))
    values = [{"step": step.name, "value": step.value} for step in run.steps if step.opened is not None]
    show(json_lines(values), sys.stdout)
    if not arguments.quiet:
        show([run, *([grouped(run.errors)] if run.errors.num_rows else [])], sys.stderr)
    return status


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
    if failed and not arguments.quiet and not arguments.json:
        show([f"{failed:,} errors tried again: {failed - left:,} are gone, {left:,} stay"], sys.stderr)
    return _told_result(result, arguments)


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
    from batchflow.verifying import accounted, proof, verify

    counts = None
    try:
        destination, plan, history = find_output(arguments.output)
        problems = list(verify(destination, plan, history, source_of(plan)))
        counts = accounted(history)
    except LedgerError as error:
        problems = [str(error)]
    status = FAILED if problems else OK
    if arguments.json:
        from batchflow.shapes import of_proof

        return tell(arguments, status, of_proof(problems, counts))
    show(map(printable, problems if problems or counts is None else [proof(counts)]), sys.stdout)
    if problems:
        show(["what is missing is made by running the job again; what was changed, with --fresh"], sys.stderr)
    return status


def _completion(arguments: argparse.Namespace) -> int:
    from batchflow.completing import script

    show([script(arguments.shell)], sys.stdout)
    return OK


def _told_result(result: Result, arguments: argparse.Namespace) -> int:
    """Tell what a run came to, and return its exit status."""
    status = FAILED if result.errors.num_rows else OK
    if arguments.json:
        from batchflow.shapes import of_result

        return tell(arguments, status, of_result(result))
    if result.path is None:
        show(json_lines(result.values), sys.stdout)
    if not arguments.quiet:
        show([result.report], sys.stderr)
    return status


def _scale(arguments: argparse.Namespace) -> int:
    from batchflow.resources import available_cpus

    counts = tuple(map(whole, arguments.workers.split(","))) if arguments.workers else _doubled(available_cpus())
    arguments.workers = None

    def told(line: str) -> None:
        if not arguments.quiet:
            show([line], sys.stderr)

    scaling = _job(arguments).scale(counts, sample=arguments.sample, rounds=arguments.rounds, tell=told)
    if arguments.plot:
        scaling.draw(arguments.plot)
    if arguments.json:
        return tell(arguments, OK, scaling.as_dict())
    show([scaling], sys.stdout)
    return OK


def _doubled(most: int) -> Sequence[int]:
    """Return 1, 2, 4 and so on, and the last number itself."""
    return sorted({1 << power for power in range(most.bit_length())} | {most})


def _plan(arguments: argparse.Namespace) -> int:
    forecast = _job(arguments).forecast(**({} if arguments.sample is None else {"records": arguments.sample}))
    status = USAGE if forecast.refused else FAILED if forecast.problems else OK
    if arguments.json:
        return tell(arguments, status, forecast.as_dict())
    show([forecast], sys.stdout)
    return status


def _errors(arguments: argparse.Namespace) -> int:
    from batchflow.loading import read_errors

    errors, ended = read_errors(arguments.output)
    lines: Iterable[str]
    if arguments.lines:
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
