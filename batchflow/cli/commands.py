"""What each command does, once its arguments are read; returns the exit status."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchflow.cli.output import (
    FAILED,
    OK,
    USAGE,
    check_output,
    grouped,
    json_lines,
    print_lines,
    set_json_result,
    show_messages,
    show_values,
    told_row,
)
from batchflow.cli.parser import keyword, number, reader_options, whole
from batchflow.core.text import command, next_version, operand, printable, with_options

if TYPE_CHECKING:
    import pyarrow as pa

    from batchflow.combiner.result import Result
    from batchflow.events import Event
    from batchflow.flows.flow import Flow
    from batchflow.flows.result import FlowRun
    from batchflow.jobs.job import Job


def _job(arguments: argparse.Namespace) -> Job:
    """Return the job that the arguments describe."""
    from batchflow.checkpoint.destination_checks import canonical_place
    from batchflow.cli.targets import load_function
    from batchflow.io.readers import guess
    from batchflow.jobs.job import Job

    def optional(name: str | None) -> Callable[..., Any] | None:
        return None if name is None else load_function(name)

    output = None if arguments.into is None else canonical_place(arguments.into)
    return Job(
        fn=load_function(arguments.function),
        source=guess(arguments.inputs, arguments.read, reader_options(arguments), output),
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


def _limits(arguments: argparse.Namespace, recorded: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what the arguments of `add_limits` say, as fields of a job.

    Parameters
    ----------
    recorded
        Fields of an earlier job, which apply where the arguments say nothing.
    """
    from batchflow.core.resources import Resources
    from batchflow.core.retry import NEVER, Retry

    before: Mapping[str, Any] = recorded or {
        "limits": Resources(),
        "per_task": Resources(),
        "retry": NEVER,
        "timeout": None,
        "concurrency": None,
        "rate": None,
    }
    limits, task, retry = before["limits"], before["per_task"], before["retry"]
    limits = limits._replace(**_given(cpus=arguments.workers, memory=arguments.memory))
    task = task._replace(
        **_given(
            cpus=arguments.cpus_per_task, memory=arguments.memory_per_task, gpus=arguments.gpus_per_task or None
        )
    )
    if arguments.retry is not None:
        retry = Retry(attempts=arguments.retry) if retry == NEVER else retry._replace(attempts=arguments.retry)
    given = _given(timeout=arguments.timeout, concurrency=arguments.concurrency, rate=arguments.rate)
    return {
        **before,
        **given,
        "args": dict(map(keyword, arguments.arg)),
        "limits": limits,
        "per_task": task,
        "retry": retry,
        "executor": arguments.executor,
        "progress": False if arguments.quiet else None,
        "listeners": [_begins(arguments)],
    }


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _begins(arguments: argparse.Namespace) -> Callable[[Event], None]:
    """Return a listener that notes that something has run."""

    def begin(_: Event) -> None:
        arguments.begun = True

    return begin


def run(arguments: argparse.Namespace) -> int:
    """Run a job, and tell what it came to."""
    if arguments.into is None:
        check_output()
    return _told_result(_job(arguments).run(), arguments)


def flow(arguments: argparse.Namespace) -> int:
    """Run a flow, or explain it."""
    from batchflow.cli.targets import load_flow

    flow = load_flow(arguments.flow, dict(map(keyword, arguments.arg)))
    if arguments.explain:
        return _explained(flow, arguments)
    run = _run_flow(flow, arguments)
    if arguments.draw:
        run.draw(arguments.draw)
    return _told_flow(run, arguments)


def _run_flow(flow: Flow, arguments: argparse.Namespace) -> FlowRun:
    """Run a flow; its report is written also where it stops before its end."""
    from batchflow.errors import FlowError, InterruptedRun, StoppedError
    from batchflow.flows.result import FlowRun

    if arguments.report:
        from batchflow.reporting.export import report_renderer

        report_renderer(arguments.report)  # refuses the name before anything runs
    try:
        run = _flow_run(flow, arguments)
    except FlowError as error:
        run = error.run
    except (InterruptedRun, StoppedError) as error:
        ended = error.report if isinstance(error, StoppedError) else error.run
        if arguments.report and isinstance(ended, FlowRun):
            ended.save_report(arguments.report)
        raise
    if arguments.report:
        run.save_report(arguments.report)
    return run


def _flow_run(flow: Flow, arguments: argparse.Namespace) -> FlowRun:
    from batchflow.core.resources import Resources

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
        from batchflow.cli.output import of_graph

        return set_json_result(arguments, OK, of_graph(flow))
    print_lines([flow.explain()])
    return OK


def _told_flow(run: FlowRun, arguments: argparse.Namespace) -> int:
    """Tell what a flow came to, and return its exit status: what steps gave that no other one took, in JSON."""
    status = FAILED if run.errors.num_rows or not run.ok else OK
    if arguments.json:
        from batchflow.cli.output import of_flow

        return set_json_result(arguments, status, of_flow(run))
    values = [{"step": step.name, "value": step.value} for step in run.steps if step.opened is not None]
    show_values(values)
    if not arguments.quiet:
        show_messages([run.summary(_after_flow(run, arguments))])
    return status


def retry(arguments: argparse.Namespace) -> int:
    """Run again what failed in an output."""
    from batchflow.checkpoint.manifest import job_options
    from batchflow.cli.targets import find_output, load_again, load_function, source_of
    from batchflow.errors import InputError
    from batchflow.io.sources.paths import present
    from batchflow.jobs.job import Job

    destination, plan, history = find_output(arguments.output)
    failed = sum(len(done.failures) for done in history.chunks.values())
    forgotten = plan["args"].keys() - {text.partition("=")[0] for text in arguments.arg}
    if forgotten:
        option = f"--arg {min(forgotten)}=VALUE"
        message = f"the function takes arguments, whose values are written down nowhere: {option}"
        raise InputError(message)
    function = load_function(arguments.function) if arguments.function else None
    setup = load_function(arguments.setup) if arguments.setup else None
    source = source_of(plan, of=present)
    if source is None:
        where = f"the records of {arguments.output!r} were in the memory of a program"
        message = f"{where}: call Job(...).retry_failed() in it"
        raise InputError(message)
    fn = function or load_again(plan["function"], arguments.output)
    max_errors = number(arguments.max_errors, "--max-errors")
    job = Job(
        fn=fn,
        source=source,
        per=plan["per"],
        into=str(destination.path) + ("" if destination.one_file else "/"),
        format=plan["format"],
        setup=setup or (load_again(plan["setup"], arguments.output) if plan["setup"] else None),
        version=arguments.version,
        **_limits(arguments, job_options(plan["options"])) | _given(max_errors=max_errors),
    )
    result = job.retry_failed()
    left = result.errors.num_rows
    if failed and not arguments.quiet and not arguments.json:
        errors = f"{failed:,} error{'s' if failed > 1 else ''}"
        show_messages([f"{errors} tried again: {max(0, failed - left):,} gone, {left:,} left"])
    return _told_result(result, arguments)


def report(arguments: argparse.Namespace) -> int:
    """Tell where the report of a run is, or open it."""
    from batchflow.cli.targets import find_report

    place = find_report(arguments.output, trace=arguments.trace)
    status = OK
    if not arguments.json:
        print_lines([printable(str(place))])
    if arguments.open:
        import webbrowser

        from batchflow.reporting.export import local_copy

        address = local_copy(place).as_uri()
        if not webbrowser.open(address):
            show_messages([f"no browser could be opened here: copy the file, or open {printable(address)}"])
            status = FAILED
    return set_json_result(arguments, status, {"path": str(place)}) if arguments.json else status


def verify(arguments: argparse.Namespace) -> int:
    """Tell whether an output is proved whole."""
    from batchflow.checkpoint.verify import accounted, gone_inputs, proof, verify
    from batchflow.cli.targets import find_output, source_of
    from batchflow.core.text import printable
    from batchflow.errors import LedgerError

    counts, notes = None, list[str]()
    try:
        destination, plan, history = find_output(arguments.output)
        notes = list(gone_inputs(plan, source_of(plan)))
        problems = list(verify(destination, plan, history, source_of(plan)))
        counts = accounted(history)
    except LedgerError as error:
        problems = [str(error)]
    status = FAILED if problems else OK
    if arguments.json:
        from batchflow.cli.output import of_proof

        return set_json_result(arguments, status, of_proof(problems, notes, counts))
    print_lines(map(printable, problems if problems or counts is None else [proof(counts)]))
    show_messages(map(printable, notes))
    if problems:
        cure = (
            "what is missing is made by running the job again; what was changed or is gone, with --fresh; "
            "what does not belong there is moved away by hand"
        )
        show_messages([cure])
    return status


def completion(arguments: argparse.Namespace) -> int:
    """Print what a shell needs to complete commands."""
    from batchflow.cli.completion import script

    print_lines([script(arguments.shell)])
    return OK


def _told_result(result: Result, arguments: argparse.Namespace) -> int:
    """Tell what a run came to, and return its exit status."""
    status = FAILED if result.errors.num_rows else OK
    if arguments.json:
        from batchflow.cli.output import result_to_json

        return set_json_result(arguments, status, result_to_json(result))
    if result.path is None:
        show_values(result.values)
    if not arguments.quiet:
        from batchflow.reporting.summary import summary

        show_messages([summary(result.report, _after_failures(result, arguments))])
    return status


def _after_failures(result: Result, arguments: argparse.Namespace) -> str | None:
    """Return the commands that follow a job of which records failed."""
    report, output = result.report, arguments.into or getattr(arguments, "output", None)
    if not report.failed:
        return None
    look = command("errors", operand(output), "--all") if output else None
    if output is None:
        output = "out/"
        look = command(*with_options(arguments.argv, "--into", output))
    options = ["--version", next_version(report.version)]
    for text in arguments.arg:
        options += ["--arg", text]
    if arguments.executor is not None:
        options += ["--executor", arguments.executor]
    # A job of a cluster: the function is sent along.
    function = [arguments.function] if "BATCHFLOW_JOB" in os.environ else []
    return f"{look}; once fixed, {command('retry', operand(output), *function, *options)}"


def _after_flow(run: FlowRun, arguments: argparse.Namespace) -> str:
    """Return the commands that follow a flow of which something failed."""
    output = run.failed_output
    look = [] if output is None else [command("errors", operand(output), "--all")]
    lines = [*look, f"once fixed, {command(*arguments.argv)}"]
    if run.counts.get("cancelled"):
        on = command(*with_options(arguments.argv, "--on-error", "continue"))
        lines.append(f"to run what needs no failed step, {on}")
    return "; ".join(lines)


def scale(arguments: argparse.Namespace) -> int:
    """Measure a job with several numbers of workers."""
    from batchflow.core.resources import available_cpus

    counts = tuple(map(whole, arguments.workers.split(","))) if arguments.workers else _doubled(available_cpus())
    arguments.workers = None

    def told(line: str) -> None:
        if not arguments.quiet:
            show_messages([line])

    scaling = _job(arguments).scale(counts, sample=arguments.sample, rounds=arguments.rounds, tell=told)
    if arguments.plot:
        scaling.draw(arguments.plot)
    if arguments.json:
        return set_json_result(arguments, OK, scaling.as_dict())
    print_lines([scaling])
    return OK


def _doubled(most: int) -> Sequence[int]:
    """Return 1, 2, 4 and so on, and the last number itself."""
    return sorted({1 << power for power in range(most.bit_length())} | {most})


def plan(arguments: argparse.Namespace) -> int:
    """Tell what a job would do, and what would go wrong."""
    forecast = _job(arguments).forecast(**({} if arguments.sample is None else {"records": arguments.sample}))
    failed = forecast.trial is not None and forecast.trial.report.failed
    status = USAGE if forecast.refused else FAILED if forecast.problems or failed else OK
    if arguments.json:
        return set_json_result(arguments, status, forecast.as_dict())
    print_lines([forecast])
    return status


def _rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, of which some thousands are Python objects at once."""
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def errors(arguments: argparse.Namespace) -> int:
    """Show what failed in a run."""
    from batchflow.cli.targets import read_errors

    errors, ended = read_errors(arguments.output)
    lines: Iterable[str]
    if arguments.lines:
        lines = json_lines(_rows_of(errors))
    elif arguments.all:
        lines = map(told_row, _rows_of(errors))
    else:
        lines = [grouped(errors) if errors.num_rows else "nothing failed"]
    print_lines(lines)
    if not ended:
        show_messages(["so far: the job has not come to its end"])
    return FAILED if errors.num_rows else OK
