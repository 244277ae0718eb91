"""A plan that goes on with what is there of its output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from batchflow.errors import LedgerError
from batchflow.ledger import History, is_begun, read_ledger
from batchflow.manifest import (
    PLAN,
    check_same,
    digest_of,
    encoded,
    inputs_of,
    manifest,
    merged_inputs,
    read_plan,
    respelled,
)
from batchflow.model import Input
from batchflow.plan import Destination, JobSpec, Plan
from batchflow.sources import Source
from batchflow.stores import is_uri


def with_history(
    spec: JobSpec, source: Source, inputs: tuple[Input, ...], destination: Destination, *, known_only: bool
) -> Plan:
    """Return a plan that goes on with what is there of its output; how its chunks are sized is still to be said.

    Parameters
    ----------
    known_only
        Leave out inputs that no earlier run knew.
    """
    known: list[Input] = []
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


def _replaced(source: Source, known: list[Input], listed: tuple[Input, ...], count: int) -> tuple[int, int]:
    """Return how many known inputs are gone and how many are new; none of a store, which does not move."""
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
    """Whether nothing was done."""
    return not history.chunks and not history.parts and not history.ended


def _was_removed(destination: Destination, history: History) -> bool:
    """Whether somebody removed an output without its metadata, so that it is made again."""
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
