"""What commands tell machines, with ``--json``: one shape for each command, whose keys stay.

A key may be added, and none goes or changes its meaning but with a new major version. All that is not
known is ``null``; sizes are bytes, times are seconds. docs/command-line.md describes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchflow.grouping import ErrorGroups

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow as pa

    from batchflow.combining.result import Result
    from batchflow.flow import Flow
    from batchflow.flow_run import FlowRun, StepRun
    from batchflow.submit.job_server import JobInfo

Shape = dict[str, Any]

_JOB = ("id", "status", "begun", "seconds", "what", "into", "exit_code")


def of_result(result: Result) -> Shape:
    """Return what ``run`` and ``retry`` tell; the rows too, where they stand nowhere else."""
    return {
        "output": result.report.output or None,
        "report": result.report.as_dict(),
        "errors": of_errors(result.errors),
        "values": result.values if result.path is None else None,
    }


def of_errors(errors: pa.Table) -> list[Shape]:
    """Return the kinds of failure, the commonest first, with an example each."""
    shown = ("step", "source", "record", "message")
    return [
        {
            "count": group.count,
            "phase": group.phase,
            "error_type": group.error_type,
            "where": group.where or None,
            "example": {name: group.examples[0].get(name) for name in shown},
        }
        for group in ErrorGroups.of(errors).commonest()
    ]


def of_flow(run: FlowRun) -> Shape:
    """Return what ``flow`` tells of a run."""
    return {
        "flow": run.name,
        "seconds": run.seconds,
        "counts": dict(run.counts),
        "steps": [_of_step(step) for step in run.steps],
        "errors": of_errors(run.errors) if run.errors.num_rows else [],
    }


def _of_step(step: StepRun) -> Shape:
    names = ("name", "state", "why", "attempts", "start", "end", "worker")
    return {name: getattr(step, name) for name in names} | {
        "report": None if step.report is None else step.report.as_dict(),
        "has_value": step.opened is not None,
        "value": None if step.opened is None else step.value,
    }


def of_graph(flow: Flow) -> Shape:
    """Return what ``flow --explain`` tells: which step takes what of which."""
    from batchflow.steps import nodes_of

    nodes = nodes_of(flow.steps)

    def named(numbers: Iterable[int]) -> list[str]:
        return [nodes[number].name for number in numbers]

    steps = [
        {"name": one.name, "kind": one.kind, "needs": named(one.needs), "after": named(one.after)} for one in nodes
    ]
    return {"flow": flow.name, "steps": steps}


def of_proof(problems: list[str], notes: list[str], counts: Mapping[str, int] | None) -> Shape:
    """Return what ``verify`` tells."""
    names = ("rows_in", "rows_out", "failed", "uncounted", "damaged")
    told = {"ok": not problems, "problems": problems, "notes": notes}
    return told | {name: counts and counts[name] for name in names}


def of_job(job: JobInfo) -> Shape:
    """Return what is told of a job of a cluster."""
    return {name: getattr(job, name) for name in _JOB}


def of_error(error: BaseException) -> Shape:
    """Return what is told of a command that was refused or broke off; of one that was stopped, what was done."""
    told: Shape = {"error": {"type": type(error).__name__, "message": str(error)}}
    report = getattr(error, "report", None)
    if report is None:
        return told
    if hasattr(report, "as_dict"):
        return told | {"report": report.as_dict(), "errors": of_errors(error.errors)}  # type: ignore[attr-defined]
    return told | of_flow(report)
