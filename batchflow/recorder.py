"""All that is told of a run of a job, as plain values: what `papers` are made of."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from batchflow.environment import environment
from batchflow.grouping import ErrorGroups
from batchflow.plan import JobSpec, Plan
from batchflow.report import Report
from batchflow.resources import Resources
from batchflow.timeline import Timeline

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


def told_job(plan: Plan, report: Report, timeline: Timeline, errors: ErrorGroups) -> dict[str, Any]:
    """Return everything that is told of a run of a job."""
    return {
        **report.as_dict(),
        "plan": told_plan(plan),
        "environment": environment(),
        "timeline": timeline.told(),
        "errors": errors.told(),
    }


def told_plan(plan: Plan) -> dict[str, Any]:
    """Return what a job was to do, as plain values; no value of ``args=``, which may be a secret."""
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
    """Return those of some resources that were asked for."""
    amounts = resources._asdict().items()
    return {name: str(amount) for name, amount in amounts if amount}
