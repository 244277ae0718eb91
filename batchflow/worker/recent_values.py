"""Cache of recent call results on a worker, for pipelined calls that use them."""

from __future__ import annotations

from batchflow.core.chunks import Key
from batchflow.core.outcomes import Outcome, Stats, Succeeded
from batchflow.core.serialization import Pickled
from batchflow.core.work import Call, NotStarted, StepValue
from batchflow.worker.step_call import called

SMALL = 2 << 10
"""Maximum size of a cached value or a pipelined call, in bytes."""
_KEPT = 64
"""Maximum number of cached values: more than calls are ever pipelined."""

NOT_BEGUN = Succeeded((), Stats(), payload=NotStarted())
"""Outcome of a call that did not start; the driver knows which call it sent."""


class RecentValues:
    """Cache of the small values of a flow's recent calls on one worker."""

    def __init__(self) -> None:
        self._job = 0
        self._values: dict[Key, StepValue] = {}

    def called(self, job: int, call: Call) -> Outcome:
        """Perform a call with cached values; it does not start if one of them is missing."""
        if job != self._job:
            self._job = job
            self._values.clear()
        if call.values:
            values = [self._values.get(one.earlier) if one.earlier else one for one in call.values]
            if None in values:
                return NOT_BEGUN
            call = call._replace(values=tuple(filter(None, values)))
        outcome = called(call)
        if isinstance(outcome, Succeeded):
            self._keep(call.key, outcome.payload)
        return outcome

    def _keep(self, key: Key, payload: object) -> None:
        if not isinstance(payload, Pickled) or payload.buffers or len(payload.pickled) > SMALL:
            return
        self._values[key] = StepValue((payload,))
        if len(self._values) > _KEPT:
            del self._values[next(iter(self._values))]
