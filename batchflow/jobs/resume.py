"""Plan of a run that resumes an earlier one, and the replay of its events in input order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from batchflow.checkpoint.destination import Destination
from batchflow.checkpoint.history import History
from batchflow.checkpoint.ledger_reader import is_begun, read_ledger
from batchflow.checkpoint.manifest import (
    PLAN,
    check_same,
    digest_of,
    encoded,
    inputs_of,
    merged_inputs,
    read_plan,
    respelled,
)
from batchflow.checkpoint.recovery import in_order
from batchflow.combiner.error_table import ErrorTable
from batchflow.combiner.ordering import RecordNumbering
from batchflow.combiner.result import Result
from batchflow.core.chunks import InputFile
from batchflow.core.outcomes import SettledChunk
from batchflow.core.work import Task
from batchflow.errors import LedgerError
from batchflow.events import ChunkSettled, JobEnded, Listener
from batchflow.io.sources import Source
from batchflow.io.stores import is_uri
from batchflow.jobs.manifest import manifest
from batchflow.jobs.plan_views import terms_of
from batchflow.plan import JobSpec, Plan
from batchflow.reporting.report import ReportBuilder


def replay(history: History, inputs: tuple[InputFile, ...], listeners: Iterable[Listener] = ()) -> ErrorTable:
    """Send all chunks of a ledger to listeners, and return the error table."""
    errors = ErrorTable()
    numbering = RecordNumbering()
    told = list(listeners)
    for key, _, done in in_order(history.chunks, inputs):
        settled = numbering.number(
            SettledChunk(Task(key, done.chunk), done.stats, done.failures, None, done.counted)
        )
        errors.add(settled.failures)
        for listener in told:
            listener(ChunkSettled(key, settled.chunk, settled.stats, settled.failures, before=True))
    for listener in told:
        listener(JobEnded(history.ended))
    return errors


def resume_plan(
    spec: JobSpec, source: Source, inputs: tuple[InputFile, ...], destination: Destination, *, known_only: bool
) -> Plan:
    """Return a plan that resumes an existing output; its chunk sizes are not yet chosen.

    Parameters
    ----------
    known_only
        Leave out inputs that no earlier run knew.
    """
    known: list[InputFile] = []
    before, history = (None, None) if spec.fresh else read_history(destination)
    if history is not None and _was_removed(destination, history):
        before = history = None
    if history is not None and _is_empty(history):
        before = None  # nothing was done, because setup= failed, say: then no change matters
    where = str(destination.path)
    listed = inputs
    if before is None:
        prepared = source.prepared(inputs)
    else:
        check_same(before, manifest(spec, source.options(), (), destination.format), where)
        known = inputs_of(before)
        merged = merged_inputs(known, inputs, where, before["folder"])
        inputs = merged[: len(known)] if known_only else merged
        prepared = source.relearned(before["learned"])
        if spec.version is None:  # it is the same function, under the name that it has
            spec = replace(spec, version=before["version"])
    plan = manifest(spec, source.options(), inputs, destination.format) | {"learned": prepared.learned()}
    if before is not None and history is not None:
        plan["inputs"] = respelled(plan["inputs"], before)
        if [item.uri for item in inputs[: len(known)]] != [item.uri for item in known]:
            history = read_ledger(destination.meta, {item.identity: item for item in inputs})
    if before is not None and history is not None and _is_same(before, plan, spec.version, ended=history.ended):
        plan = before
    written = encoded(plan)
    finished = history is not None and history.ended and digest_of(written) == history.plans[-1]
    return Plan(
        spec,
        prepared,
        inputs,
        destination,
        None,
        history=history,
        manifest=written,
        finished=finished,
        replaced=_replaced(source, known, listed, len(inputs)),
    )


def _replaced(
    source: Source, known: list[InputFile], listed: tuple[InputFile, ...], count: int
) -> tuple[int, int]:
    """Return the numbers of missing and of new inputs; none for a store, whose paths do not move."""
    if count <= len(known) or source.in_memory:
        return 0, 0
    here = {item.identity for item in listed}
    missing = (item.uri for item in known if item.identity not in here and not is_uri(item.uri))
    gone = sum(source.described(uri) is None for uri in missing)
    return (gone, count - len(known)) if gone else (0, 0)


def _is_same(before: dict[str, Any], plan: dict[str, Any], version: str | None, *, ended: bool) -> bool:
    """Whether a plan adds nothing to the recorded one: options matter only while work remains."""
    if before["inputs"] != plan["inputs"] or version not in (None, before["version"]):
        return False
    return ended or before["options"] == plan["options"]


def _is_empty(history: History) -> bool:
    """Whether an output has no finished work."""
    return not history.chunks and not history.parts and not history.ended


def _was_removed(destination: Destination, history: History) -> bool:
    """Whether an output was deleted without its metadata, so that it is written again."""
    store = destination.store
    kept = store.sizes(destination.pieces).keys() & {part.temporary for part in history.parts.values()}
    if not history.parts or kept:
        return False
    return not (store.kind(destination.path) if destination.one_file else store.sizes(destination.path))


def read_history(destination: Destination) -> tuple[dict[str, Any], History] | tuple[None, None]:
    """Return the plan and the history of an output, if there is one.

    Raises
    ------
    LedgerError
        If they are damaged.
    """
    meta = destination.meta
    if not is_begun(meta) and destination.store.size(meta / PLAN) is None:
        return None, None  # a run begins before its plan is published
    plan, digest = read_plan(meta)
    history = read_ledger(meta, {item.identity: item for item in inputs_of(plan)})
    if digest not in history.plans:
        message = f"{meta / PLAN} was changed after it was written"
        raise LedgerError(message)
    return plan, history


def finished(plan: Plan, listeners: Sequence[Listener] = ()) -> Result:
    """Return the result of a job that earlier runs finished."""
    from batchflow.checkpoint.recovery import check_parts  # only where there is an output

    assert plan.history is not None
    assert plan.destination is not None
    check_parts(plan.destination, plan.history)
    report = ReportBuilder(terms_of(plan))
    errors = replay(plan.history, plan.inputs, [report, *listeners])
    schema = next((part.schema for part in reversed(plan.history.parts.values())), None)
    warns = plan.spec.max_errors is None
    return Result(errors, report.report(), (), plan.destination, schema, warns=warns)
