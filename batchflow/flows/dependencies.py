"""Dependencies between the steps of a run, and the release of unused values."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from batchflow.flows.step_state import StepState
from batchflow.flows.steps import StepInput, unused

if TYPE_CHECKING:
    from batchflow.flows.flow import Flow

Needs = list[tuple[StepInput, list[StepState]]]
"""Inputs of a step, each with the steps that produce it."""


class DependencyTracker:
    """Steps of a run with their dependencies, in the order of their addition.

    Parameters
    ----------
    is_ready
        Told each step to which nothing is left to come.
    """

    def __init__(self, is_ready: Callable[[StepState], None]) -> None:
        self._is_ready = is_ready
        self._steps: list[StepState] = []
        self._names: set[str] = set()
        self._counted: dict[str, int] = {}
        self._flows: set[str] = set()
        """Tokens of known flows; a flow returned by a step is another one."""
        self._ending: deque[StepState] = deque()
        """Ended steps whose dependents are not yet updated."""

    def __iter__(self) -> Iterator[StepState]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    def has(self, flow: Flow) -> bool:
        """Whether the steps of a flow were added."""
        return flow.token in self._flows

    def add(
        self, flow: Flow, chosen: Iterable[int], kept: Collection[int] = (), prefix: str = ""
    ) -> dict[int, StepState]:
        """Add steps of a flow, by their numbers there; steps without dependencies are ready.

        Parameters
        ----------
        kept
            Those whose values stay when nobody is left to take them.
        prefix
            What stands before their names.
        """
        added: dict[int, StepState] = {}
        self._flows.add(flow.token)
        for at in sorted(chosen):
            spec = flow.steps[at]
            name = unused(f"{prefix}{spec.name}", self._names, self._counted)
            self._names.add(name)
            spec = spec if name == spec.name else replace(spec, name=name)
            added[at] = StepState(spec, len(self._steps), kept=at in kept)
            self._steps.append(added[at])
            needs = [(need, [added[number] for number in need.steps]) for need in spec.needs]
            self.expect(added[at], needs, [added[number] for number in spec.after])
        return added

    def expect(self, step: StepState, needs: Needs, after: Sequence[StepState] = ()) -> None:
        """Add dependencies to a step; it is ready if all of them have ended."""
        step.needs, step.after = needs, after
        givers = {giver.number: giver for _, steps in needs for giver in steps}
        for giver in givers.values():
            giver.takers += 1
            giver.digests |= step.spec.keep is not None or (step.spec.fn is None and len(needs) > 1)
        before = {**givers, **{one.number: one for one in after}}
        for other in before.values():
            if other.state is None:
                other.next.append(step)
                step.waits += 1
        if not step.waits:
            self._is_ready(step)

    def release(self, step: StepState) -> None:
        """Release the values that a step used, unless other steps need them."""
        for giver in {one.number: one for _, steps in step.needs for one in steps}.values():
            giver.takers -= 1
            if not giver.takers and not giver.kept:
                giver.given = None

    def ended(self, step: StepState) -> None:
        """Update the dependents of a step that ended."""
        self._ending.append(step)
        if len(self._ending) == 1:  # whoever is told from this loop only adds to it
            while self._ending:
                for other in self._ending[0].next:
                    other.waits -= 1
                    if not other.waits:
                        self._is_ready(other)
                self._ending.popleft()

    def part(self) -> None:
        """Break reference cycles, which would otherwise wait for Python's garbage collector."""
        del self._is_ready
        for step in self._steps:
            step.next.clear()
