"""Plain remote tasks on a local Ray or a cluster."""

from __future__ import annotations

import os
import sys
from typing import Any, ClassVar

from batchflow.errors import ExecutorError, WorkerDied
from batchflow.executors.base import Executor, pickled
from batchflow.model import Failed, Merge, Outcome, Phase, Succeeded, Work
from batchflow.resources import Resources, count_slots
from batchflow.tables import Rows
from batchflow.worker import Program, Runner, failed

_QUIET = {
    "RAY_LOG_TO_DRIVER": "0",
    "RAY_LOG_TO_DRIVER_EVENT_LEVEL": "ERROR",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # the rows of a task that died, which nobody asks for
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_verbose_spill_logs": "0",
    "RAY_enable_output_error_log_if_still_retry": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning on machines without a GPU
    "RAY_worker_niceness": "0",  # by default workers run at nice 15, behind everything else on the machine
}
"""What is set before a Ray of our own starts, unless the user set it."""

_runners: dict[str, Runner] = {}
"""On a worker: the runners of the jobs it has seen last, by the reference to their program."""
_RUNNERS = 8


class Ray(Executor):
    """Runs tasks on Ray: a local one that is started and stopped, or one that runs already.

    Parameters
    ----------
    address
        ``None``: the Ray of this process or of ``RAY_ADDRESS`` if there is one, else a local Ray of
        our own. ``"auto"``, ``"host:6379"`` or ``"ray://host:10001"``: that cluster.
    """

    name: ClassVar[str] = "ray"
    prefetch: ClassVar[int] = 1

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._ours = False
        self._loaded = 0
        self._programs: dict[int, Any] = {}
        self._perform: Any = None
        self._running: dict[Any, tuple[int, Work, Any]] = {}

    def slots(self, limits: Resources, per_task: Resources) -> int:
        """Return how many tasks fit into the limits and the cluster side by side."""
        ray = self._connect()
        have = ray.cluster_resources()
        return count_slots(limits, per_task, have.get("CPU", 0), int(have.get("memory", 0)))

    def _connect(self) -> Any:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)  # some are read when ray is imported
        import ray

        if not ray.is_initialized():
            address = self._address or os.environ.get("RAY_ADDRESS")
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
            if address is None:
                options |= {"address": "local", "include_dashboard": False}
                self._ours = True
            else:
                options["address"] = address
            try:
                ray.init(**options)
            except (ConnectionError, RuntimeError, ValueError) as error:
                message = f"cannot start or reach Ray ({address or 'local'}): {error}"
                raise ExecutorError(message) from error
        return ray

    def start(self, slots: int, per_task: Resources) -> None:
        """Make the remote function with the request of one task."""
        ray = self._connect()
        options: dict[str, Any] = {"num_cpus": 1 if per_task.cpus is None else per_task.cpus}
        if per_task.gpus:
            options["num_gpus"] = per_task.gpus
        if per_task.nbytes:
            options["memory"] = per_task.nbytes
        if per_task.custom:
            options["resources"] = dict(per_task.custom)
        # The scheduler owns all retries; two returns, so that the driver need not fetch the rows.
        self._perform = ray.remote(_perform).options(
            max_retries=0, retry_exceptions=False, num_returns=2, enable_task_events=False, **options
        )

    def load(self, program: Program) -> int:
        """Put a program into the object store, once for all tasks."""
        import ray

        self._loaded += 1
        self._programs[self._loaded] = ray.put((list(sys.path), pickled(program)))
        return self._loaded

    def unload(self, job: int) -> None:
        """Forget a program and cancel its tasks."""
        import ray

        if self._programs.pop(job, None) is None:
            return
        for head, (owner, _, _) in list(self._running.items()):
            if owner == job:
                ray.cancel(head, force=True)
                del self._running[head]

    def submit(self, job: int, work: Work) -> None:
        """Submit one remote task."""
        parts: tuple[Any, ...] = ()
        sent = work
        if isinstance(work, Merge):  # references among the arguments are fetched where the task runs
            sent, parts = work._replace(parts=()), work.parts
        head, rows = self._perform.remote([self._programs[job]], sent, *parts)
        self._running[head] = (job, work, rows)

    def wait(self, timeout: float | None = None) -> list[tuple[int, Outcome]]:
        """Return the outcomes there are; waits for the first one."""
        if not self._running:
            return []
        import ray

        heads = list(self._running)
        ready, _ = ray.wait(heads, num_returns=1, timeout=timeout)
        if ready:  # and whatever else is done by now, without waiting for it
            ready, _ = ray.wait(heads, num_returns=len(heads), timeout=0)
        return [self._taken(head) for head in ready]

    def _taken(self, head: Any) -> tuple[int, Outcome]:
        import ray

        job, work, rows = self._running.pop(head)
        try:
            outcome, has_rows = ray.get(head)
        except ray.exceptions.RayError as error:
            return job, _lost(work, error)
        if has_rows and isinstance(outcome, Succeeded):
            outcome = outcome._replace(payload=rows)
        return job, outcome

    def fetch(self, payload: Any) -> Any:
        """Return the rows behind a reference."""
        import ray

        return payload if isinstance(payload, Rows) else ray.get(payload)

    def close(self) -> None:
        """Give up what is running; stop Ray if it is our own."""
        for job in list(self._programs):
            self.unload(job)
        self._running.clear()
        self._perform = None
        if self._ours:
            import ray

            ray.shutdown()
            self._ours = False


def _perform(program: list[Any], work: Work, *parts: Any) -> tuple[tuple[Outcome, bool], Any]:
    """Do one piece of work on a Ray worker; returns the outcome without its rows, and the rows."""
    if isinstance(work, Merge):
        work = work._replace(parts=parts)
    try:
        outcome = _runner(program[0]).perform(work)
    except Exception as error:  # noqa: BLE001 - a program that cannot be unpickled
        outcome = failed(work, "worker", error)
    if isinstance(outcome, Succeeded) and isinstance(outcome.payload, Rows):
        return (outcome._replace(payload=None), True), outcome.payload
    return (outcome, False), None


def _runner(reference: Any) -> Runner:
    """Return the runner of a job, made once in each worker process."""
    import pickle

    import ray

    key = reference.hex()
    if key not in _runners:
        path, program = ray.get(reference)
        sys.path.extend(entry for entry in path if entry not in sys.path)
        if len(_runners) >= _RUNNERS:
            _runners.pop(next(iter(_runners)))
        _runners[key] = Runner(pickle.loads(program))
    return _runners[key]


def _lost(work: Work, error: Exception) -> Failed:
    """Return the outcome of work that Ray lost, with what it tells of the cause."""
    import ray

    phase: Phase = "memory" if isinstance(error, ray.exceptions.OutOfMemoryError) else "worker"
    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    outcome = failed(work, phase, WorkerDied(f"the Ray worker died: {type(error).__name__}: {cause}"))
    return outcome._replace(died=True)
