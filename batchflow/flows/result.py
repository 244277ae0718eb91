"""Result of a flow: steps, values, and one error table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias

from batchflow.combiner.error_table import describe_errors, joined
from batchflow.combiner.failure_notice import FailureNotice
from batchflow.core.text import counted, did_you_mean, printable
from batchflow.errors import FailedRecordsError, StepError, UsageError
from batchflow.flows.steps import Step
from batchflow.reporting.failure_groups import FailureGroups
from batchflow.reporting.graph.analysis import GraphNode
from batchflow.reporting.report import Report
from batchflow.reporting.summary import shown

if TYPE_CHECKING:
    import os

    import pyarrow as pa

    from batchflow.flows.flow import Flow

State: TypeAlias = Literal["succeeded", "failed", "skipped", "cancelled", "cached"]

_SHOWN = 5
"""Maximum errors shown in a notebook."""
_KINDS = 3
"""Maximum kinds of errors in the summary."""


class StepRun(NamedTuple):
    """Result of one step."""

    name: str
    state: State
    why: str = ""
    """Reason that the step did not succeed."""
    attempts: int = 0
    start: float | None = None
    """Start in seconds since the flow began."""
    end: float | None = None
    worker: str = ""
    report: Report | None = None
    """Report of a job step."""
    opened: Callable[[], Any] | None = None
    """Loader of the value, if there is one."""
    used: Callable[[], None] | None = None
    """Callback for the use of the value."""

    @property
    def seconds(self) -> float:
        """Duration in seconds, including retries and the waits between them."""
        return 0.0 if self.start is None or self.end is None else self.end - self.start

    @property
    def value(self) -> Any:
        """Value of the step.

        Raises
        ------
        StepError
            If there is no such value, with the reason.
        """
        if self.opened is None:
            message = f"step {self.name!r} gave nothing: it {_told(self)}"
            raise StepError(message)
        if self.used is not None:
            self.used()
        return self.opened()


class FlowRun:
    """Result of a flow; ``run[step].value`` is the value of a step.

    Attributes
    ----------
    steps : list of StepRun
        In the order written.
    seconds : float
        From the start of the flow to its end.
    """

    def __init__(
        self,
        flow: Flow,
        steps: Sequence[StepRun],
        nodes: Callable[[], Iterable[GraphNode]],
        errors: Sequence[tuple[str, pa.Table]],
        seconds: float,
        slots: int,
        executor: str = "",
        began: float = 0.0,
        notice: FailureNotice | None = None,
    ) -> None:
        self.name: str = flow.name
        self._flow = flow
        self.steps: list[StepRun] = list(steps)
        self._errors = [(step, table) for step, table in errors if table.num_rows]
        self.seconds = seconds
        self._nodes_of_run = nodes
        self._slots = slots
        self._executor = executor
        self._epoch = began
        self._notice = notice or FailureNotice()
        self._names = {step.name: step for step in self.steps}

    def __getitem__(self, step: Step | str) -> StepRun:
        if isinstance(step, Step) and step.flow is not self._flow:
            message = f"{step!r} is a step of another flow than the one that ran"
            raise UsageError(message)
        name = step if isinstance(step, str) else step.name
        if name not in self._names:
            message = f"flow {self.name!r} ran no step {name!r}{did_you_mean(name, self._names)}"
            raise UsageError(message)
        return self._names[name]

    @cached_property
    def _nodes(self) -> list[GraphNode]:
        """Graph of the steps, built on first use."""
        return list(self._nodes_of_run())

    @property
    def errors(self) -> pa.Table:
        """Error table: a row for each failed step, and for each failed record or chunk of a job step.

        The first column is the name of the step, the others are those of a job's error table.
        """
        self._notice.dismiss()
        return self._error_table

    @cached_property
    def _error_table(self) -> pa.Table:
        return joined(self._errors)

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of steps in each state."""
        return Counter(step.state for step in self.steps)

    @property
    def ok(self) -> bool:
        """Whether no record failed, and every step succeeded or was skipped by its condition."""
        return not self._errors and not self.counts.get("cancelled")

    def raise_for_errors(self) -> Self:
        """Return the run itself if nothing failed.

        Raises
        ------
        FailedRecordsError
            If something failed; it carries the error table.
        """
        if self._errors:
            raise FailedRecordsError(describe_errors(self._error_table), self.errors)
        return self

    def explain(self) -> str:
        """Return critical path and time use in a few lines, with the step to speed up first."""
        from batchflow.reporting.graph.explain import explain_run  # only for those who ask

        return explain_run(self._nodes, self._slots)

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Draw the graph, coloured by the state of each step: ``.svg``, or Mermaid as ``.mmd``."""
        draw(self._nodes, self.name, path)

    def save_report(self, path: str | os.PathLike[str]) -> None:
        """Write the report: one page as ``.html``, values as ``.json``, a trace as ``.trace.json``.

        The trace is for ``chrome://tracing`` and Perfetto.

        Raises
        ------
        UsageError
            If the suffix is none of these.
        """
        from batchflow.reporting.export import save  # only for those who ask
        from batchflow.reporting.flow_record import RunContext, flow_record

        where = RunContext(self.name, self._epoch, self.seconds, self._slots, self._executor)
        save(flow_record(where, self._nodes, self.steps, self._error_table), path)

    def _repr_html_(self) -> str:
        """Return the notebook view: graph with states, first errors."""
        from batchflow.reporting.graph.render import svg
        from batchflow.reporting.notebook import line, page, table

        names = ["step", "source", "record", "phase", "error_type", "message"]
        errors = self._error_table.select(names).slice(0, _SHOWN).to_pylist() if self._errors else []
        shown = table("error", self._error_table.num_rows, errors)
        return page(line(self._headline()), svg(self._nodes, self.name), shown)

    def __str__(self) -> str:
        """Return a summary of under twelve lines."""
        return self.summary()

    def summary(self, following: str | None = None) -> str:
        """Return a summary of under twelve lines.

        Parameters
        ----------
        following
            What to do about failures; by default in the words of Python.
        """
        if self.ok:
            return self._headline()
        from batchflow.reporting.graph.explain import shortfall  # only where something failed

        kinds = [str(kind) for kind in FailureGroups.of(self._error_table).kinds()] if self._errors else []
        more = [f"and {len(kinds) - _KINDS:,} more kinds of errors"] if len(kinds) > _KINDS else []
        told = [self._headline(), *shortfall(self._nodes, failed=2, skipped=1), *kinds[:_KINDS], *more]
        return "\n".join([*told, f"next: {following or self._next()}"])

    def _next(self) -> str:
        """Return the Python code to run after a flow with failures."""
        lines = ["run.errors lists them; once fixed, run the flow again: steps with cache=True or into= are kept"]
        if self.counts.get("cancelled"):
            lines.append('flow.run(on_error="continue") runs what needs no failed step')
        return "; ".join(lines)

    @property
    def failed_output(self) -> str | None:
        """Output path of the first job with failures that has an output, relative if possible."""
        outputs = (step.report.output for step in self.steps if step.report and step.report.failed)
        return next((shown(output) for output in outputs if output), None)

    def _headline(self) -> str:
        counts = ", ".join(f"{count:,} {state}" for state, count in self.counts.items())
        return f"{printable(self.name)}: {counted(len(self.steps), 'step')} in {self.seconds:.2f} s: {counts}"

    def __repr__(self) -> str:
        return f"<FlowRun {self._headline()}>"


def draw(nodes: Sequence[GraphNode], title: str, path: str | os.PathLike[str]) -> None:
    """Write the drawing of a graph.

    Raises
    ------
    UsageError
        If the file is neither ``.svg`` nor ``.mmd``.
    """
    from batchflow.reporting.graph.render import mermaid, svg  # only for those who ask

    file = Path(path)
    makers = {".svg": svg, ".mmd": mermaid}
    if file.suffix not in makers:
        message = f"cannot draw {file}: name it .svg for a picture, or .mmd for Mermaid text"
        raise UsageError(message)
    file.write_text(makers[file.suffix](nodes, title), encoding="utf-8")


def _told(step: StepRun) -> str:
    if step.state in ("succeeded", "cached"):
        return "succeeded, but another step took its value: ask for it with flow.run(keep=[step])"
    return f"was {step.state}: {step.why}" if step.state != "failed" else f"failed: {step.why}"
