"""Views of a plan: as a program, the context of a report, the record of a job."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from batchflow.core.functions import side_by_side
from batchflow.core.process_state import working_directory
from batchflow.core.rate import parse_rate
from batchflow.core.resources import Resources
from batchflow.plan import JobSpec, Plan
from batchflow.reporting.environment import environment
from batchflow.reporting.failure_groups import FailureGroups
from batchflow.reporting.report import Report, ReportContext
from batchflow.reporting.timeline import Timeline
from batchflow.worker import Program

_INPUTS = 5
_DEFAULTS = {field.name: field.default for field in fields(JobSpec)}
_LIMITS = (
    "retry",
    "timeout",
    "concurrency",
    "rate",
    "max_errors",
    "isolate",
    "chunk",
    "part_size",
    "version",
    "fresh",
)


def job_record(plan: Plan, report: Report, timeline: Timeline, errors: FailureGroups) -> dict[str, Any]:
    """Return the complete record of a run of a job."""
    return {
        **report.as_dict(),
        "plan": told_plan(plan),
        "environment": environment(),
        "timeline": timeline.told(),
        "errors": errors.told(),
    }


def told_plan(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values; no value of ``args=``, which may be a secret."""
    spec = plan.spec
    fn = spec.fn
    return {
        "function": f"{getattr(fn, '__module__', '?')}.{getattr(fn, '__qualname__', type(fn).__qualname__)}",
        "per": spec.per,
        "source": plan.source.kind,
        "inputs": len(plan.inputs),
        "size": plan.size,
        "in_memory": plan.source.in_memory,
        "first": [item.uri for item in plan.inputs[:_INPUTS]],
        "output": None if plan.destination is None else str(plan.destination.path),
        "format": None if plan.destination is None else plan.destination.format,
        "limits": _amounts(spec.limits),
        "per_task": _amounts(spec.per_task),
        "options": {name: str(getattr(spec, name)) for name in _LIMITS if getattr(spec, name) != _DEFAULTS[name]},
    }


def _amounts(resources: Resources) -> dict[str, Any]:
    """Return the resources that were requested explicitly."""
    amounts = resources._asdict().items()
    return {name: str(amount) for name, amount in amounts if amount}


def terms_of(plan: Plan) -> ReportContext:
    """Return the options of a job that its report mentions."""
    spec, destination = plan.spec, plan.destination
    return ReportContext(
        plan.source.kind,
        spec.per,
        spec.chunk,
        side_by_side(spec.fn, spec.concurrency),
        spec.rate is not None,
        1 if spec.per_task.cpus is None else spec.per_task.cpus,
        spec.per_task.nbytes,
        "" if destination is None else f"{destination.path}{'' if destination.one_file else '/'}",
        "" if destination is None else f"{destination.meta}/",
        spec.version or "",
        getattr(spec.fn, "__name__", ""),
        plan.doubts,
        dict(plan.source.summary()),
    )


def program_of(plan: Plan, *, tables: bool = False) -> Program:
    """Return the program that the workers need for a plan.

    Parameters
    ----------
    tables
        The rows of each chunk are one table, which must go with those of other chunks.
    """
    spec, destination = plan.spec, plan.destination
    return Program(
        spec.fn,
        plan.source.shipped(),
        spec.per,
        spec.setup,
        spec.args,
        spec.combine,
        destination.format if destination else None,
        str(destination.pieces) if destination else "",
        tables,
        spec.retry,
        spec.timeout,
        spec.per_task.nbytes,
        working_directory(),
        side_by_side(spec.fn, spec.concurrency),
        None if spec.rate is None else parse_rate(spec.rate),
        isolates=spec.isolates,
    )
