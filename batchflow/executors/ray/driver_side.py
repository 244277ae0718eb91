"""Parts of an output that only the driver sees, put together by a worker process on its machine."""

from __future__ import annotations

from collections import Counter

from batchflow.executors.processes import Processes
from batchflow.model import Assemble, Outcome
from batchflow.resources import Resources
from batchflow.worker import CALLS


class DriverSide:
    """A worker process beside the driver, started when it is first needed."""

    def __init__(self) -> None:
        self._processes = Processes(workers=1)
        self._programs: dict[int, int] = {}
        """Numbers there, by those of the jobs; parts are put together without anything of the job."""
        self._under_way: Counter[int] = Counter()

    @property
    def busy(self) -> bool:
        """Whether any work is under way."""
        return any(self._under_way.values())

    @property
    def jobs(self) -> list[int]:
        """Those that wait for work."""
        return [job for job, count in self._under_way.items() if count]

    def submit(self, job: int, work: Assemble) -> None:
        """Take over work of a job."""
        if job not in self._programs:
            self._processes.start(1, Resources())
            self._programs[job] = self._processes.load(CALLS)
        self._under_way[job] += 1
        self._processes.submit(self._programs[job], work)

    def wait(self, timeout: float | None) -> list[tuple[int, Outcome]]:
        """Return the outcomes there are, each with its job; waits for the first one."""
        jobs = {program: job for job, program in self._programs.items()}
        found = [(jobs[program], outcome) for program, outcome in self._processes.wait(timeout=timeout)]
        self._under_way.subtract(job for job, _ in found)
        return found

    def forget(self, job: int) -> None:
        """Give up the work of a job."""
        program = self._programs.pop(job, None)
        if program is not None:
            self._processes.unload(program)
            del self._under_way[job]

    def close(self) -> None:
        """End the worker process."""
        self._processes.close()
        self._programs.clear()
        self._under_way.clear()
