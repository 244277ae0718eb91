"""Parts of an output that only the driver sees, put together by a worker process on its machine."""

from __future__ import annotations

from batchflow.executors.processes import Processes
from batchflow.model import Assemble, Outcome
from batchflow.resources import Resources
from batchflow.sources.records import RecordsSource
from batchflow.worker import Program


class DriverSide:
    """A worker process beside the driver, started when it is first needed."""

    def __init__(self) -> None:
        self._processes = Processes(workers=1)
        self._program: int | None = None
        self._owners: dict[tuple[int, ...], int] = {}
        """Jobs that wait for work, by its key, which no other work of theirs has."""

    @property
    def busy(self) -> bool:
        """Whether any work is under way."""
        return bool(self._owners)

    @property
    def jobs(self) -> list[int]:
        """Those that wait for work."""
        return list(self._owners.values())

    def submit(self, job: int, work: Assemble) -> None:
        """Take over work of a job."""
        if self._program is None:
            self._processes.start(1, Resources())
            self._program = self._processes.load(Program(_nothing, RecordsSource(data=None)))
        key = (job, *work.key)
        self._owners[key] = job
        self._processes.submit(self._program, work._replace(key=key))

    def wait(self, timeout: float | None) -> list[tuple[int, Outcome]]:
        """Return the outcomes there are, each with its job; waits for the first one."""
        found = []
        for _, outcome in self._processes.wait(timeout=timeout):
            job = self._owners.pop(outcome.key, None)
            if job is not None:
                found.append((job, outcome._replace(key=outcome.key[1:])))
        return found

    def forget(self, job: int) -> None:
        """Take no outcome of a job any more."""
        self._owners = {key: owner for key, owner in self._owners.items() if owner != job}

    def close(self) -> None:
        """End the worker process."""
        self._processes.close()
        self._program = None
        self._owners.clear()


def _nothing() -> None:
    """Stand for a function: parts are put together without one."""
