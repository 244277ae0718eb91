"""The steps of a run: which wait for which, and whose value nobody takes any more."""

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
"""What a step takes, each with the steps that give it."""


class DependencyTracker:
    """The steps of a run, in the order in which they came.

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
        """By tokens: a flow that a step returns is another one."""
        self._ending: deque[StepState] = deque()
        """Steps at their end, of which those that wait for them are still to be told."""

    def __iter__(self) -> Iterator[StepState]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    def has(self, flow: Flow) -> bool:
        """Whether the steps of a flow are among them."""
        return flow.token in self._flows

    def add(
        self, flow: Flow, chosen: Iterable[int], kept: Collection[int] = (), prefix: str = ""
    ) -> dict[int, StepState]:
        """Take over steps of a flow, by their numbers there; those that wait for nothing are ready.

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
        """Have a step wait for others; it is ready if they have all come to their end."""
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
        """Forget the values that a step took, if nobody else takes them."""
        for giver in {one.number: one for _, steps in step.needs for one in steps}.values():
            giver.takers -= 1
            if not giver.takers and not giver.kept:
                giver.given = None

    def ended(self, step: StepState) -> None:
        """Tell those that wait for a step that it came to its end."""
        self._ending.append(step)
        if len(self._ending) == 1:  # whoever is told from this loop only adds to it
            while self._ending:
                for other in self._ending[0].next:
                    other.waits -= 1
                    if not other.waits:
                        self._is_ready(other)
                self._ending.popleft()

    def part(self) -> None:
        """Part what refers to each other: else all of it would wait for Python to look for garbage."""
        del self._is_ready
        for step in self._steps:
            step.next.clear()
