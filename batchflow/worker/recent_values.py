"""What the last calls on a worker gave: calls that were sent ahead take it from here."""

from __future__ import annotations

from batchflow.core.chunks import Key
from batchflow.core.outcomes import Outcome, Stats, Succeeded
from batchflow.core.serialization import Pickled
from batchflow.core.work import Call, NotStarted, StepValue
from batchflow.worker.step_call import called

SMALL = 2 << 10
"""Bytes of a value that is kept, or of a call that is sent ahead, at most."""
_KEPT = 64
"""Values that are kept: more than calls are ever sent ahead."""

NOT_BEGUN = Succeeded((), Stats(), payload=NotStarted())
"""Outcome of a call that did not begin; the driver knows which one it sent."""


class RecentValues:
    """The small values of the last calls of a flow, on one worker."""

    def __init__(self) -> None:
        self._job = 0
        self._values: dict[Key, StepValue] = {}

    def called(self, job: int, call: Call) -> Outcome:
        """Do a call, with what calls before it gave; one that takes what is not here does not begin."""
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
