"""Whose fault it is that work was lost: the record's, another one's, the machine's, or the job's as a whole."""

from __future__ import annotations

from collections import Counter

from batchflow.errors import ExecutorError
from batchflow.model import Failed, Inspect, Key, Outcome, Succeeded, Task, Work
from batchflow.printable import printable

DEATHS = 3
"""Workers that may die of work which calls the function on no record, before it is given up."""
BARREN = 100
"""Tasks that may break off, or not even begin, before any has succeeded: then it is no record's fault."""
UNCOUNTED = 100
"""Cuts of a chunk whose records nobody can count, at most: three lines in a gigabyte are found with as many."""
RESPITE_SECONDS = 1.0
"""In which whatever else took the memory of the machine may have given it back."""
LOSSES = 3
"""Nodes that may go while they are at a chunk, before it may have to do with that."""


class Blame:
    """Counts what each chunk of a job was excused.

    Parameters
    ----------
    proven
        Tasks of the job have succeeded before.
    """

    def __init__(self, *, proven: bool) -> None:
        self._barren: int | None = None if proven else 0
        """Tasks that broke off, as long as none has succeeded."""
        self._deaths: dict[Key, int] = {}
        self._losses: Counter[Key] = Counter()
        """Nodes that went, by the chunk they were at."""
        self._pressed: set[Key] = set()
        """Records that memory ran out for while nothing else ran."""
        self._uncounted: Counter[Key] = Counter()
        """Cuts of each chunk whose records nobody could count."""

    def is_unlucky(self, work: Work, outcome: Outcome) -> bool:
        """Whether work that no record is at fault for lost its worker, most likely by somebody else."""
        deaths = self._deaths.pop(work.key, 0) + 1
        if isinstance(work, Task) or not isinstance(outcome, Failed) or not outcome.died or deaths == DEATHS:
            return False
        if isinstance(work, Inspect) and outcome.failure.phase != "worker":
            return False  # what takes too long, or too much memory, does so again
        self._deaths[work.key] = deaths
        return True

    def is_stranded(self, task: Task, outcome: Outcome) -> bool:
        """Whether a task is lost only because its node went, as far as anybody can tell."""
        if not isinstance(outcome, Failed) or not outcome.gone or self._losses[task.key] == LOSSES:
            return False
        self._losses[task.key] += 1
        return True

    def tries(self, task: Task) -> int:
        """Return how often a chunk was tried, but for those times when its node went."""
        return task.attempt - self._losses[task.key]

    def respite(self, task: Task, outcome: Failed) -> float | None:
        """Return after how many seconds a record is tried by itself, ``None`` if nobody else can be at fault.

        Where memory ran out it was that of the whole machine, on which other things than this job may run.
        """
        if not outcome.suspect:
            return None
        if not task.alone:
            return 0.0
        if outcome.failure.phase != "memory" or task.key in self._pressed:
            return None
        self._pressed.add(task.key)
        return RESPITE_SECONDS

    def is_uncountable(self, task: Task) -> bool:
        """Whether a chunk that ends whoever counts its records does so wherever it is cut."""
        return self._uncounted[task.key[:2]] > UNCOUNTED

    def cut(self, task: Task) -> None:
        """Note that a chunk is cut whose records nobody could count."""
        self._uncounted[task.key[:2]] += 1

    def hear(self, outcome: Outcome) -> None:
        """Take down what came of a task.

        Raises
        ------
        ExecutorError
            Where tasks break off and break off, whatever they are given to do.
        """
        if isinstance(outcome, Succeeded):
            self._barren = None
        elif self._barren is not None and (outcome.died or outcome.failure.phase == "worker"):
            self._barren += 1
            if self._barren == BARREN:
                failure = outcome.failure
                message = (
                    f"the first {BARREN} tasks all broke off, the last one so: "
                    f"{failure.error_type}: {printable(failure.message)}; it is no record's fault, but that of "
                    "the function, of its setup=, of what they import, or of limits that are too tight"
                )
                raise ExecutorError(message)
