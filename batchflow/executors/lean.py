"""Calls of flows and their outcomes as plain tuples: so they cross in a third of the time.

A named tuple tells its class each time it is pickled, and a call is made of seven of them.
"""

from __future__ import annotations

from itertools import starmap
from typing import Any

from batchflow.model import Call, Given, Key, Outcome, Slot, Stats, Succeeded
from batchflow.packing import Arrived, Packed
from batchflow.retry import NEVER

Lean = tuple[Any, ...]


def lean_call(call: Call) -> Lean:
    """Return a call as it travels; `full_call` makes it again."""
    return (
        call.key,
        call.fn.pickled,
        _lean(call.arguments),
        [_lean_value(value) for value in call.values],
        [tuple(place) for place in call.places],
        call.when,
        call.seconds,
        call.memory,
        None if call.retry is NEVER else call.retry,
        call.keep,
        call.digests,
    )


def full_call(lean: Lean) -> Call:
    """Return the call."""
    key, fn, arguments, values, places, when, seconds, memory, retry, keep, digests = lean
    return Call(
        key,
        Arrived(fn),
        _full(arguments),
        tuple(map(_full_value, values)),
        tuple(starmap(Slot, places)),
        when,
        seconds,
        memory,
        NEVER if retry is None else retry,
        keep,
        digests,
    )


def lean_outcome(outcome: Outcome) -> Outcome | Lean:
    """Return an outcome as it travels: one of a call that gave a value as a plain tuple, others as they are."""
    if not isinstance(outcome, Succeeded) or outcome.printed or not isinstance(outcome.payload, Packed):
        return outcome
    stats = outcome.stats
    return stats.worker, stats.started, stats.seconds, _lean(outcome.payload), outcome.digest


def full_outcome(lean: Any, key: Key) -> Outcome:
    """Return the outcome of the work with this key."""
    if type(lean) is tuple:
        worker, started, seconds, payload, digest = lean
        return Succeeded(key, Stats(worker, started, seconds), (), _full(payload), (), digest)
    outcome: Outcome = lean._replace(key=key)
    return outcome


def _lean(payload: Any) -> Any:
    """Return bytes in the place of a packed value, where it has no buffers."""
    return payload.pickled if isinstance(payload, Packed) and not payload.buffers else payload


def _full(payload: Any) -> Any:
    return Packed(payload) if isinstance(payload, bytes) else payload


def _lean_value(value: Given) -> Lean:
    return [_lean(payload) for payload in value.payloads], value.rows, value.earlier


def _full_value(lean: Lean) -> Given:
    payloads, rows, earlier = lean
    return Given(tuple(map(_full, payloads)), rows, earlier)
