"""Flow run as plain values."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from batchflow.reporting.environment import environment
from batchflow.reporting.failure_groups import FailureGroups
from batchflow.reporting.graph.analysis import GraphNode, critical_path
from batchflow.reporting.graph.explain import explain_run
from batchflow.reporting.graph.render import svg
from batchflow.reporting.report import Report

if TYPE_CHECKING:
    import pyarrow as pa


STEPS = 4000
"""Maximum number of steps listed individually: failed ones, and the longest."""


class EndedStep(Protocol):
    """Result of a step, in the shape of `StepRun`."""

    @property
    def name(self) -> str:
        """Name of the step."""

    @property
    def state(self) -> str:
        """Final state of the step."""

    @property
    def attempts(self) -> int:
        """Number of attempts."""

    @property
    def worker(self) -> str:
        """Worker that ran the step."""

    @property
    def report(self) -> Report | None:
        """Report of a job step."""


class RunContext(NamedTuple):
    """Context of a flow run."""

    name: str
    began: float
    """Start in seconds since the epoch."""
    seconds: float
    slots: int
    executor: str


def flow_record(
    where: RunContext, nodes: Sequence[GraphNode], steps: Sequence[EndedStep], errors: pa.Table
) -> dict[str, Any]:
    """Return what is told of a flow, as plain values for JSON; of the largest only the steps that matter."""
    path = critical_path(nodes)
    ended = {step.name: step for step in steps}
    failed = [at for at, node in enumerate(nodes) if node.outcome in ("failed", "cancelled")][: STEPS // 2]
    others = set(range(len(nodes))).difference(failed)
    longest = heapq.nlargest(STEPS - len(failed), others, key=lambda at: nodes[at].seconds)
    kept = sorted([*failed, *longest], key=lambda at: (nodes[at].start is None, nodes[at].start))
    tracks = _Tracks()
    return {
        "flow": where.name,
        "began": where.began,
        "seconds": where.seconds,
        "slots": where.slots,
        "executor": where.executor,
        "total": len(nodes),
        "counts": _counts(nodes),
        "work": sum(node.seconds if node.work is None else node.work for node in nodes),
        "critical": path[:STEPS],
        "critical_seconds": sum(nodes[at].seconds for at in path),
        "story": explain_run(nodes, where.slots),
        "steps": [_step(at, nodes[at], ended[nodes[at].name], tracks) for at in kept],
        "tracks": list(tracks.names),
        "graph": svg(nodes),
        "environment": environment(),
        "errors": FailureGroups.of(errors).told(),
    }


def _counts(nodes: Sequence[GraphNode]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for node in nodes:
        counts[node.outcome] = counts.get(node.outcome, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])


def _step(number: int, node: GraphNode, step: EndedStep, tracks: _Tracks) -> dict[str, Any]:
    report = step.report
    ran = node.start is not None and node.end is not None and step.attempts > 0
    return {
        "number": number,
        "name": node.name,
        "kind": node.kind,
        "state": node.outcome,
        "start": node.start if ran else None,
        "end": node.end if ran else None,
        "attempts": step.attempts,
        "worker": step.worker,
        "why": node.why,
        "track": tracks.of(node, step.worker) if ran else 0,
        "rows_in": None if report is None else report.rows_in,
        "failed": int(node.outcome == "failed") if report is None else report.failed,
    }


class _Tracks:
    """Rows of the timeline: one for each worker, and as few as possible for jobs."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self._ends: dict[str, float] = {}

    def of(self, node: GraphNode, worker: str) -> int:
        """Return the row of a step; steps come in the order of their starts."""
        assert node.start is not None
        assert node.end is not None
        name = worker if worker and node.kind == "step" else self._free(node.start)
        self._ends[name] = max(node.end, self._ends.get(name, 0.0))
        return self.names.setdefault(name, len(self.names))

    def _free(self, start: float) -> str:
        number = 1
        while self._ends.get(f"jobs {number}", 0.0) > start:
            number += 1
        return f"jobs {number}"
