"""Plain remote tasks on a local Ray or a cluster."""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections import Counter, deque
from collections.abc import Collection, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from batchflow.errors import ExecutorError, ResourceError
from batchflow.executors.base import UNKNOWN, Executor, Loaded, add_path, opened, pickled, rules_of, take
from batchflow.keeping import Kept
from batchflow.model import Call, Failed, Merge, Outcome, Succeeded, Work
from batchflow.packing import Buffers, Packed, dumps
from batchflow.resources import Budget, Resources, available_cpus, capped, count_slots, total_memory
from batchflow.retry import Retry
from batchflow.rows import Rows
from batchflow.worker import (
    BARE,
    Limits,
    Overtime,
    Program,
    bare,
    died,
    end_with_parent,
    failed,
    lost,
    over,
    too_slow,
    was_overtime,
)

if TYPE_CHECKING:
    from batchflow.rate import Bucket, Rate

_QUIET = {
    "RAY_LOG_TO_DRIVER": "0",
    "RAY_LOG_TO_DRIVER_EVENT_LEVEL": "ERROR",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # the rows of a task that died, which nobody asks for
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",  # it is told in the error table
    "RAY_verbose_spill_logs": "0",
    "RAY_enable_output_error_log_if_still_retry": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning on machines without a GPU
    "RAY_worker_niceness": "0",  # by default workers run at nice 15, behind everything else on the machine
}
"""What is set before a Ray of our own starts, unless the user set it."""

_LONGEST = 40
"""Characters of the folder at most: the sockets in it have names of 65 more, and the kernel allows 107."""

_NAMESPACE = "batchflow"
"""Of the actors that keep the rates of jobs."""

_programs: dict[str, Loaded] = {}
"""On a worker: the programs of jobs under way, by the reference to them."""


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
        self._temporary: str | None = None
        self._perform: Any = None
        self._room = sys.maxsize
        self._slots = 1
        self._loaded = 0
        self._jobs: dict[int, _Job] = {}
        self._waiting: deque[tuple[int, Work]] = deque()
        self._running: dict[Any, _Sent] = {}
        self._ready: list[tuple[int, Outcome]] = []

    def slots(self, limits: Resources, per_task: Resources) -> int:
        """Return how many tasks fit into the limits and the cluster side by side."""
        if self._starts_its_own() and not per_task.needs_ray:
            return count_slots(limits, per_task, available_cpus(), total_memory())  # a plan starts nothing
        have = self._connect().cluster_resources()
        for name, amount in {"GPU": per_task.gpus, **per_task.custom}.items():
            if amount > have.get(name, 0):
                message = f"one task asks for {amount:g} {name}, but Ray has {have.get(name, 0):g} of it"
                raise ResourceError(message)
        return count_slots(limits, per_task, have.get("CPU", 0), int(have.get("memory", 0)))

    def budget(self, limits: Resources) -> Budget:
        """Return what may be in use at the same time: what the cluster has."""
        have = dict(self._connect().cluster_resources())
        cpus, memory = have.pop("CPU", 0.0), int(have.pop("memory", 0))
        return Budget(capped(limits, cpus, memory, **have))

    def _starts_its_own(self) -> bool:
        """Whether there is no Ray yet, and none was named."""
        ray = sys.modules.get("ray")
        running = ray is not None and ray.is_initialized()
        return not (running or self._address or os.environ.get("RAY_ADDRESS"))

    def _connect(self) -> Any:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)  # some are read when ray is imported
        import ray

        if not ray.is_initialized():
            address = self._address or os.environ.get("RAY_ADDRESS")
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
            if address is None:
                options |= {"address": "local", "include_dashboard": False, "_temp_dir": self._folder()}
                self._ours = True
            else:
                options["address"] = address
            try:
                ray.init(**options)
            except (ConnectionError, RuntimeError, ValueError) as error:
                message = f"cannot start or reach Ray ({address or 'local'}): {error}"
                raise ExecutorError(message) from error
        return ray

    def _folder(self) -> str | None:
        """Return a folder for what our own Ray writes and never removes; ``None``: its usual one."""
        import tempfile

        self._temporary = tempfile.mkdtemp(prefix="bf-ray-")
        return self._temporary if len(self._temporary) <= _LONGEST else None

    def start(self, slots: int, per_task: Resources, workers: int | None = None) -> None:
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
        # Tasks wait at Ray, where the next one is at hand, unless the job has a cap that Ray knows nothing of.
        self._slots = slots
        # A task that holds no core would not wait there at all.
        free = slots == self.slots(Resources(), per_task) and per_task.cpus != 0
        self._room = sys.maxsize if free else slots

    def load(self, program: Program) -> int:
        """Put a program into the object store, once for all tasks; large arrays of it are not copied again."""
        import ray

        buffers = Buffers()
        program = self.limited(program)
        data = pickled(program, buffers.take)
        self._loaded += 1
        reference = ray.put((list(sys.path), (data, list(buffers)), program.waits))
        # With a time limit no task waits at Ray, so that when it was sent is when it began.
        room = min(self._room, self._slots) if program.timeout else self._room
        self._jobs[self._loaded] = _Job(
            reference, self._perform, room, program.limits, program.retry, program.bucket
        )
        return self._loaded

    def bucket(self, rate: Rate) -> Bucket:
        """Return what keeps all workers of a job to a rate together: a tiny actor, wherever Ray puts it."""
        import ray

        name = f"bucket-{os.urandom(16).hex()}"
        options = {"name": name, "namespace": _NAMESPACE, "max_restarts": -1, "max_task_retries": -1}
        return _RayBucket(name, ray.remote(_Keeper).options(num_cpus=0, **options).remote(rate))

    def unload(self, job: int) -> None:
        """Forget a program and cancel its tasks."""
        import ray

        program = self._jobs.pop(job, None)
        if program is None:
            return
        if program.bucket is not None:
            program.bucket.close()
        self._waiting = deque(item for item in self._waiting if item[0] != job)
        take(self._ready, (job,))
        for head, sent in list(self._running.items()):
            if sent.job == job:
                ray.cancel(head, force=True)
                del self._running[head]

    def submit(self, job: int, work: Work) -> None:
        """Submit one remote task, or keep it until there is room for it."""
        self._waiting.append((job, work))
        self._dispatch()

    def _dispatch(self) -> None:
        running = Counter(sent.job for sent in self._running.values())
        kept: deque[tuple[int, Work]] = deque()
        for job, work in self._waiting:
            if running[job] < self._jobs[job].room:
                running[job] += 1
                self._send(job, work)
            else:
                kept.append((job, work))
        self._waiting = kept

    def _send(self, job: int, work: Work) -> None:
        program, perform, *_ = self._jobs[job]
        alive = [other.program.hex() for other in self._jobs.values()]
        sent, parts = _without_values(work)  # references among the arguments are fetched where the task runs
        try:
            packed = _packed(sent)
        except Exception as error:  # noqa: BLE001 - records that cannot be pickled
            self._ready.append((job, failed(work, "read", error)))
            return
        limits = tuple(self._jobs[job].limits)
        head, rows = perform.remote([program], alive, limits, packed, *parts)
        self._running[head] = _Sent(job, work, rows, time.monotonic())

    def wait(
        self, jobs: Collection[int] | None = None, timeout: float | None = None
    ) -> list[tuple[int, Outcome]]:
        """Return the outcomes there are; waits for the first one."""
        import ray

        while not (taken := take(self._ready, jobs)) and self._busy(jobs):
            heads = list(self._running)
            done, _ = ray.wait(heads, num_returns=1, timeout=timeout)
            if not done:
                break
            done, _ = ray.wait(heads, num_returns=len(heads), timeout=0)  # whatever else is done by now
            self._ready += [self._taken(head) for head in done]
            self._dispatch()
        return taken

    def _busy(self, jobs: Collection[int] | None) -> bool:
        """Whether an outcome is still to come."""
        return any(jobs is None or sent.job in jobs for sent in self._running.values())

    def _taken(self, head: Any) -> tuple[int, Outcome]:
        import ray

        sent = self._running.pop(head)
        try:
            outcome, has_rows = ray.get(head)
        except ray.exceptions.RayError as error:
            return sent.job, _death(self._jobs[sent.job], sent, error)
        outcome = outcome._replace(key=sent.work.key)
        return sent.job, outcome._replace(payload=sent.rows) if has_rows else outcome

    def fetch(self, payload: Any) -> Any:
        """Return the rows behind a reference."""
        import ray

        if not isinstance(payload, ray.ObjectRef):
            return payload
        if not ray.is_initialized():
            message = "the Ray that held this value was closed meanwhile: ask for the value before"
            raise ExecutorError(message)
        return _unpacked(ray.get(payload))

    def close(self) -> None:
        """Give up what is running; stop Ray if it is our own."""
        for job in list(self._jobs):
            self.unload(job)
        self._perform = None
        if self._ours:
            import ray

            ray.shutdown()
            self._ours = False
        if self._temporary is not None:
            import shutil

            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None


class _Job(NamedTuple):
    """What the tasks of a job need."""

    program: Any
    """Reference to the program."""
    perform: Any
    """The remote function, with the request of one task."""
    room: int
    """Tasks that may be at Ray."""
    limits: Limits
    retry: Retry
    bucket: Bucket | None


class _Keeper:
    """Keeps when the next call of a job is due, by the clock of its node."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._due = 0.0

    def reserve(self) -> float:
        """Return 0 or the seconds after which to ask again."""
        seconds, self._due = self._rate.take(self._due, time.monotonic())
        return seconds

    def pause(self, seconds: float) -> None:
        """Let no call start for a while."""
        self._due = self._rate.paused(self._due, time.monotonic() + seconds)


class _RayBucket:
    """The bucket of a job, as a process of Ray's uses it; found by name, since handles travel with tasks only."""

    def __init__(self, name: str, keeper: Any = None) -> None:
        self._name = name
        self._known = keeper

    def __reduce__(self) -> tuple[Any, ...]:
        return _RayBucket, (self._name,)

    @property
    def _keeper(self) -> Any:
        if self._known is None:
            import ray

            self._known = ray.get_actor(self._name, _NAMESPACE)
        return self._known

    def reserve(self) -> float:
        """Return 0 where a call may start now, which is counted; else the seconds after which to ask again."""
        import ray

        seconds: float = ray.get(self._keeper.reserve.remote())
        return seconds

    def pause(self, seconds: float) -> None:
        """Let no call start for a while."""
        import ray

        ray.get(self._keeper.pause.remote(seconds))

    def close(self) -> None:
        """End the actor."""
        import ray

        ray.kill(self._keeper)


class _Sent(NamedTuple):
    """A task that is at Ray."""

    job: int
    work: Work
    rows: Any
    """Reference to what it gives back."""
    since: float
    """`time.monotonic` when it was sent."""


def _perform(
    program: list[Any], alive: list[str], limits: tuple[Any, ...], packed: Any, *parts: Any
) -> tuple[tuple[Outcome, bool], Any]:
    """Do one piece of work on a Ray worker; returns the outcome without its rows, and the rows, packed."""
    work: Work = UNKNOWN
    kept = Limits(*limits)
    loaded = _loaded(program[0], alive, kept)
    try:
        work = opened(partial(_unpacked, packed), kept)
    except (Overtime, MemoryError) as error:
        return (over(work, error, kept), False), None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - records that cannot be made again here
        return (failed(work, "read", error), False), None
    work = _with_values(work, parts)
    try:
        outcome = bare(work) if isinstance(work, BARE) else loaded.runner().perform(work)
    except (Overtime, MemoryError) as error:
        outcome = over(work, error, kept)
    except BaseException as error:  # noqa: BLE001 - what is no Exception is a failure all the same
        outcome = lost(work, "call", error)
    if not isinstance(outcome, Succeeded) or not isinstance(outcome.payload, Rows | Packed):
        return (outcome, False), None
    try:
        rows = _packed(outcome.payload)
        _unpacked(rows)  # the driver could not tell any more whose fault it is
    except Exception as error:  # noqa: BLE001 - a value that cannot travel
        return (lost(work, "convert", error), False), None
    return (outcome._replace(payload=None), True), rows


def _without_values(work: Work) -> tuple[Work, tuple[Any, ...]]:
    """Return work without what other tasks gave, and that apart."""
    if isinstance(work, Merge):
        return work._replace(parts=()), work.parts
    if isinstance(work, Call) and work.values:
        bare = [given._replace(payloads=(None,) * len(given.payloads)) for given in work.values]
        return work._replace(values=tuple(bare)), tuple(one for given in work.values for one in given.payloads)
    return work, ()


def _with_values(work: Work, parts: Sequence[Any]) -> Work:
    """Return work with what other tasks gave."""
    if isinstance(work, Merge):
        return work._replace(parts=tuple(map(_unpacked, parts)))
    if not isinstance(work, Call):
        return work
    left = (part if isinstance(part, Packed | Kept) else _unpacked(part) for part in parts)  # of the driver's own
    values = [given._replace(payloads=tuple(islice(left, len(given.payloads)))) for given in work.values]
    return work._replace(values=tuple(values))


def _packed(value: Any) -> tuple[bytes, list[Any]]:
    pickled, buffers = dumps(value)
    return pickled, list(buffers)


def _unpacked(packed: tuple[bytes, list[Any]]) -> Any:
    pickled, buffers = packed
    return pickle.loads(pickled, buffers=buffers)


def _loaded(reference: Any, alive: list[str], limits: Limits) -> Loaded:
    """Return the program of a job, fetched once by each worker process; those of jobs that ended are dropped."""
    import ray

    for key in _programs.keys() - alive:
        _programs.pop(key).close()
    key = reference.hex()
    if not _programs:
        end_with_parent()  # a Ray of our own ends with its driver, and its workers at once with it
    if key not in _programs:
        path, packed, waits = ray.get(reference)
        add_path(path)
        if any(limits):
            import pyarrow.parquet  # noqa: F401 - what most tasks need is loaded at the expense of none
        _programs[key] = Loaded(partial(_unpacked, packed), limits, waits=waits)
    return _programs[key]


def _death(job: _Job, sent: _Sent, error: Exception) -> Failed:
    """Return the outcome of work that Ray lost, with what it tells of the cause.

    Ray does not hand over how a worker ended. It is innocent until tried alone: the node may have died,
    or Ray's own memory watch may have picked it.
    """
    import ray

    limits, retry = rules_of(sent.work, job.limits, job.retry)
    seconds = limits.seconds
    if seconds and was_overtime(sent.since, seconds):
        return lost(sent.work, "timeout", too_slow(sent.work, seconds), "", retry=retry)
    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    message = f"the Ray worker died: {type(error).__name__}: {cause}"
    suspect = not isinstance(error, ray.exceptions.WorkerCrashedError)
    outcome = died(sent.work, message, "", retry, suspect=suspect)
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return outcome._replace(failure=outcome.failure._replace(phase="memory"), helped=False)
    return outcome
