"""Work as plain remote tasks of Ray, each with one outcome.

::

    driver ── work, reference to its program ──> any node ── outcome ──> driver
       │   <── "I do not see this file of yours" ──┘   └── rows ──> object store, by reference
       ├── the same work, with the bytes of the file ──> it
       └── parts of an output that only the driver sees ──> a worker process beside it
"""

from __future__ import annotations

import math
import os
import pickle
import sys
import time
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from batchflow.core.outcomes import Failed, Outcome, Position, Succeeded
from batchflow.core.process_state import ProcessState
from batchflow.core.resources import Budget, Resources, capped
from batchflow.core.work import AssemblePart, Call, CountRecords, Task, WorkItem
from batchflow.errors import ExecutorError, UsageError
from batchflow.executors.base import Executor, take
from batchflow.executors.imported_modules import ImportedModules
from batchflow.executors.processes.launcher import has_rays_parent
from batchflow.executors.program_loading import pickled
from batchflow.executors.ray.cluster import Cluster, is_client, request_of
from batchflow.executors.ray.file_shipping import Shipment, shipped, write_pieces
from batchflow.executors.ray.inflight import LocalAssembler, RayJob, SentTask, death_outcome, read_replies
from batchflow.executors.ray.positions import take_position, task_name
from batchflow.executors.ray.remote import (
    ProgramNotice,
    Reply,
    TaskExtras,
    TaskHeader,
    pack,
    perform,
    repack,
    setup_key,
    unpack,
    without_values,
)
from batchflow.worker import Limits, Program, failed
from batchflow.worker.log_records import log_settings

if TYPE_CHECKING:
    from batchflow.core.rate import Rate, RateLimiter


_OWN = frozenset(
    {
        "num_cpus",
        "num_gpus",
        "memory",
        "resources",
        "accelerator_type",
        "max_retries",
        "retry_exceptions",
        "num_returns",
        "max_calls",
        "enable_task_events",
    }
)
"""Task options that batchflow sets."""


class Ray(Executor):
    """Runs tasks on Ray: a local one that is started and stopped, or one that is already running.

    Parameters
    ----------
    address
        ``None``: the Ray of this process or of ``RAY_ADDRESS`` if there is one, else a local Ray of
        our own. ``"auto"``, ``"host:6379"`` or ``"ray://host:10001"``: that cluster.
    options
        Of each task, passed to Ray as they are: ``label_selector``, ``scheduling_strategy``, ``runtime_env``...
        Amounts are given as ``per_task=`` of a job.
    wait_for_nodes
        Seconds to wait for a node that can run a task, where none can but an autoscaler may bring one;
        ``None``: that is refused at once.

    Raises
    ------
    UsageError
        If an option is one that batchflow sets.
    """

    name: ClassVar[str] = "ray"
    prefetch: ClassVar[int] = 1
    elastic: ClassVar[bool] = True
    bundle: ClassVar[int] = 32

    def __init__(
        self,
        address: str | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        wait_for_nodes: float | None = None,
    ) -> None:
        self._options = dict(options or {})
        owned = sorted(self._options.keys() & _OWN)
        if owned:
            message = (
                f"Ray(options={{{owned[0]!r}: ...}}) is set by batchflow: give amounts as "
                "per_task=Resources(...), and tries as retry="
            )
            raise UsageError(message)
        labels = self._options.get("label_selector") or {}
        plain = {name: value for name, value in labels.items() if value.replace("-", "_").isidentifier()}
        self._cluster = Cluster(address, wait_for_nodes, plain)
        self._perform: Any = None
        self._per_task = Resources()
        self._slots = 1
        self._loaded = 0
        self._jobs: dict[int, RayJob] = {}
        self._told: dict[int, bytes] = {}
        self._tellings = time.monotonic_ns()
        self._waiting: deque[tuple[int, WorkItem]] = deque()
        self._running: dict[Any, SentTask] = {}
        self._searches: dict[Any, _Search] = {}
        """Tasks whose worker ended, while their position is searched on each node."""
        self._count: Counter[int] = Counter()
        """Tasks of each job that are running or searched."""
        self._ready: list[tuple[int, Outcome]] = []
        self._side = LocalAssembler()

    # --- what there is -------------------------------------------------------------------------------

    def slots(self, limits: Resources, per_task: Resources) -> int:
        """Return how many tasks fit into the limits and the cluster concurrently, at present."""
        return self._cluster.slots(limits, per_task)

    def budget(self, limits: Resources) -> Budget:
        """Return the budget of a flow: the resources of the cluster."""
        self._cluster.connect()
        have = self._cluster.resources()
        cpus, memory = have.pop("CPU", 0.0), int(have.pop("memory", 0))
        return Budget(capped(limits, cpus, memory, **have))

    @property
    def logs(self) -> str:
        """Log file or folder of Ray."""
        return self._cluster.logs

    def start(self, slots: int, per_task: Resources, workers: int | None = None) -> None:
        """Create the remote function with the resource request of one task."""
        ray = self._cluster.connect()
        need = request_of(per_task)
        options: dict[str, Any] = {"num_cpus": need.pop("CPU", 0)}
        for name, option in (("GPU", "num_gpus"), ("memory", "memory")):
            if name in need:
                options[option] = need.pop(name)
        if need:
            options["resources"] = need
        # The scheduler owns all retries; two returns, so that the driver need not fetch the rows. A worker
        # with a GPU serves many tasks too, else setup= would run for each.
        self._perform = ray.remote(
            max_calls=0,
            max_retries=0,
            retry_exceptions=False,
            num_returns=2,
            enable_task_events=False,
            **options,
        )(perform).options(**self._options)
        self._per_task = per_task
        self._slots = slots

    def resize(self, job: int, slots: int) -> None:
        """Set the number of tasks that a job may have at Ray."""
        known = self._jobs.get(job)
        if known is not None:
            self._jobs[job] = known._replace(room=self._room(slots, known.per_task, known.limits))
            self._dispatch()

    def _room(self, slots: int, per_task: Resources, limits: Limits) -> int:
        """Return the maximum number of tasks of a job at Ray.

        They wait there, where the next one is at hand, unless the job has a cap that Ray knows nothing of, or
        tasks that hold no core and so would not wait, or a time limit: then when one was sent is when it began.
        """
        free = slots == self.slots(Resources(), per_task) and per_task.cpus != 0
        return sys.maxsize if free and not limits.seconds else slots

    # --- jobs ----------------------------------------------------------------------------------------

    def load(self, program: Program) -> int:
        """Prepare a program for sending: with each task, or through the object store if it is large."""
        import ray

        program = self.limited(program)
        data, buffers = pickled(program)
        self._loaded += 1
        source = None if program.source.in_memory else program.source
        local = bool(program.pieces) and "://" not in program.pieces
        mark = f"{program.pieces}/{os.urandom(8).hex()}.here" if local else ""
        folder = None if source is None else program.folder
        packed = data, list(buffers), buffers.writable
        notice = ProgramNotice(
            self._state(), _count_reloads(), packed, program.waits, folder, program.pieces, mark, log_settings()
        )
        told = None if buffers or len(data) > _SMALL else pickle.dumps(notice)
        room = self._room(self._slots, self._per_task, program.limits)
        self._jobs[self._loaded] = RayJob(
            os.urandom(8).hex(),
            told,
            None if told else ray.put(notice),
            self._perform,
            self._per_task,
            room,
            program.limits,
            program.retry,
            program.bucket,
            source,
            program.pieces,
            mark,
            program.setup is not None,
        )
        self._tell_anew()
        return self._loaded

    def _state(self) -> ProcessState:
        return ProcessState.capture(self._cluster.environment, nested=True)

    def bucket(self, rate: Rate) -> RateLimiter:
        """Return the limiter that holds all workers of a job to one rate."""
        from batchflow.executors.ray.rate_limiter import RayRateLimiter

        return RayRateLimiter.make(rate)

    def unload(self, job: int) -> None:
        """Unload a program and cancel its tasks."""
        program = self._jobs.pop(job, None)
        if program is None:
            return
        self._tell_anew()
        if program.bucket is not None:
            program.bucket.close()
        if program.mark:
            with suppress(OSError):
                os.unlink(program.mark)
        self._side.forget(job)
        self._waiting = deque(item for item in self._waiting if item[0] != job)
        take(self._ready, (job,))
        self._cancel(job)
        if program.has_setup:
            from ray.experimental import internal_kv

            internal_kv._internal_kv_del(setup_key(program.key), del_by_prefix=True)

    def _cancel(self, job: int) -> None:
        import ray

        of_ray: tuple[dict[Any, Any], ...] = self._running, self._searches
        for heads in of_ray:
            for head in [head for head, at_ray in heads.items() if at_ray.job == job]:
                ray.cancel(head, force=True)
                del heads[head]
        del self._count[job]

    # --- work on its way -----------------------------------------------------------------------------

    def submit(self, job: int, work: WorkItem) -> None:
        """Submit one remote task, or queue it until there is room."""
        self._waiting.append((job, work))
        self._dispatch()

    def submit_all(self, job: int, works: Sequence[WorkItem]) -> None:
        """Submit short work as one remote task, unless a piece needs to be sent alone."""
        known = self._jobs[job]
        apart = known.ships or known.writes or any(known.limits) or self._count[job] + len(works) > known.room
        if apart or not self._send(job, works, None):
            super().submit_all(job, works)

    def _dispatch(self) -> None:
        kept: deque[tuple[int, WorkItem]] = deque()
        for job, work in self._waiting:
            if self._count[job] < self._jobs[job].room:
                self._begin(job, work)
            else:
                kept.append((job, work))
        self._waiting = kept

    def _begin(self, job: int, work: WorkItem) -> None:
        """Send work with the files known to be needed by its worker."""
        known = self._jobs[job]
        if isinstance(work, AssemblePart) and known.writes:
            self._side.submit(job, work)
        else:
            self._send(job, [work], self._shipment(known, work) if known.ships else None)

    def _shipment(self, job: RayJob, work: WorkItem, *, whole: bool = False) -> Shipment | None:
        """Return the files of a chunk for a worker that does not see them."""
        import ray

        task = work.task if isinstance(work, CountRecords) else work
        if not isinstance(task, Task) or job.source is None:
            return None
        shipment = shipped(job.source, task.chunk, ray.put, whole=whole)
        return shipment if shipment.files else None

    def _send(self, job: int, works: Sequence[WorkItem], shipment: Shipment | None) -> bool:
        """Send work as one Ray task; returns false if several pieces cannot share one."""
        known = self._jobs[job]
        pickles = [self._terms(job)]
        buffers: list[Any] = []
        writable = b""
        parts: tuple[Any, ...] = ()
        for work in works:
            sent, parts = without_values(work)  # references among the arguments are fetched where the task runs
            try:
                pickled, buffers, writable = pack(sent)
            except Exception as error:
                if len(works) == 1:
                    self._ready.append((job, failed(work, "read", error)))
                return False
            if len(works) > 1 and (buffers or parts):
                return False
            pickles.append(pickled)
        self._mark(known)
        rest: tuple[Any, ...] = ()
        if parts or known.notice is not None or buffers or shipment is not None:
            rest = tuple(TaskExtras(known.notice, buffers, writable, shipment)), *parts
        head, rows = known.perform.remote(b"".join(pickles), *rest)
        self._running[head] = SentTask(job, works, rows, time.monotonic())
        self._count[job] += len(works)
        return True

    def _tell_anew(self) -> None:
        """Discard the cached task headers, since a job came or went."""
        self._told.clear()
        self._tellings += 1

    def _terms(self, job: int) -> bytes:
        """Return the task header of a job, cached until a job comes or goes."""
        if job not in self._told:
            known = self._jobs[job]
            alive = tuple(other.key for other in self._jobs.values())
            terms = TaskHeader(known.key, known.told, self._tellings, alive, known.limits, self._cluster.here)
            self._told[job] = pickle.dumps(terms)
        return self._told[job]

    def _mark(self, job: RayJob) -> None:
        """Write the marker file by which workers recognize the folder for pieces."""
        if job.mark and not os.path.exists(job.mark):
            with suppress(OSError), open(job.mark, "wb"):
                pass

    def wait(self, jobs: Collection[int] | None = None, timeout: float | None = None) -> list[tuple[int, Outcome]]:
        """Wait for outcomes and return them."""
        while not (taken := take(self._ready, jobs)) and self._busy(jobs):
            if not self._hear(timeout):
                break
            self._dispatch()
        return taken

    def _hear(self, timeout: float | None) -> bool:
        """Receive outcomes that arrive within the timeout."""
        import ray

        if self._side.busy:  # two that cannot be waited for at once
            self._ready += self._side.wait(0 if self._running else timeout)
            timeout = min(_TURN_SECONDS, _TURN_SECONDS if timeout is None else timeout)
        heads = [*self._running, *self._searches]
        if self._searches:
            timeout = min(self._give_up_searches(), math.inf if timeout is None else timeout)
        done, _ = ray.wait(heads, num_returns=1, timeout=0 if self._ready else timeout) if heads else ([], [])
        if done:
            done, _ = ray.wait(heads, num_returns=len(heads), timeout=0)  # whatever else is done by now
        for head, answer in zip(done, read_replies(done), strict=True):
            if head in self._searches:
                self._searched(head, answer)
            elif head in self._running:
                self._taken(head, answer)
        return bool(done or self._ready)

    def _busy(self, jobs: Collection[int] | None) -> bool:
        """Whether an outcome is pending."""
        at_ray = self._running or self._searches if jobs is None else any(self._count[job] for job in jobs)
        return bool(at_ray) or any(jobs is None or job in jobs for job in self._side.jobs)

    def _taken(self, head: Any, answer: bytes | Exception) -> None:
        """Process a worker's replies; unfinished work, and work with unseen files, is sent again."""
        sent = self._running.pop(head)
        self._count[sent.job] -= len(sent.works)
        replies: list[Reply] = []
        if not isinstance(answer, Exception):
            replies = pickle.loads(answer)
        elif len(sent.works) == 1:
            self._find_position(sent, _lost(self._jobs[sent.job], sent, answer))
            return
        for work, reply in zip(sent.works, replies, strict=False):
            self._take_reply(sent._replace(works=[work]), reply)
        # One by one, since any of them may have to do with the end of the worker.
        self._waiting += [(sent.job, work) for work in sent.works[len(replies) :]]

    def _find_position(self, sent: SentTask, outcome: Failed) -> None:
        """Search the node of a lost worker for the position of its task."""
        work = sent.work
        nodes = [] if outcome.gone or outcome.setup else self._cluster.node_ids()
        if not isinstance(work, Task) or not 0 < len(nodes) <= _SEARCHED:
            self._ready.append((sent.job, outcome))
            return
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options: Any = {name: self._options[name] for name in ("runtime_env",) if name in self._options}
        look: Any = ray.remote(num_cpus=0, max_retries=0, **options)(take_position)
        search = _Search(sent.job, outcome, len(nodes), time.monotonic())
        self._count[sent.job] += 1
        for node in nodes:
            here = look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
            self._searches[here.remote(self._jobs[sent.job].key, task_name(work))] = search

    def _searched(self, head: Any, answer: Any) -> None:
        """Process the answer of a node to a position search."""
        search = self._searches.pop(head)
        search.left -= 1
        if isinstance(answer, Position):
            since = max(0.0, answer.seconds - (time.monotonic() - search.since))
            search.outcome = search.outcome._replace(position=answer._replace(seconds=since))
            search.left = 0
        if search.left == 0:
            self._end_search(search)

    def _end_search(self, search: _Search) -> None:
        self._searches = {head: other for head, other in self._searches.items() if other is not search}
        self._count[search.job] -= 1
        self._ready.append((search.job, search.outcome))

    def _give_up_searches(self) -> float:
        """End position searches that time out, and return the seconds until the next timeout."""
        now = time.monotonic()
        for search in dict.fromkeys(self._searches.values()):
            if now - search.since >= _SEARCH_SECONDS:
                self._end_search(search)
        return max(0.0, min((s.since + _SEARCH_SECONDS - now for s in self._searches.values()), default=0.0))

    def _take_reply(self, sent: SentTask, reply: Reply) -> None:
        import ray

        job = self._jobs[sent.job]
        try:
            outcome = self._outcome(job, sent, reply)
        except ray.exceptions.RayError as error:
            outcome = _lost(job, sent, error)
        if outcome is not None:
            self._ready.append((sent.job, outcome))

    def _outcome(self, job: RayJob, sent: SentTask, reply: Reply) -> Outcome | None:
        """Return the outcome of work, or ``None`` if it is resubmitted in another way."""
        if reply.outcome is None:
            self._do_otherwise(job, sent, reply)
            return None
        outcome = reply.outcome._replace(key=sent.work.key)
        if not isinstance(outcome, Succeeded) or not reply.has:
            return outcome
        if reply.has == "pieces":
            return self._with_pieces(job, sent, outcome)
        rows = sent.rows
        if reply.node != self._cluster.here and not isinstance(sent.work, Call):
            rows = self._kept(rows)
        return outcome._replace(payload=rows)

    def _do_otherwise(self, job: RayJob, sent: SentTask, reply: Reply) -> None:
        """Resubmit work whose worker does not see all files of the driver."""
        if isinstance(sent.work, AssemblePart):
            self._jobs[sent.job] = job._replace(writes=True)
            self._side.submit(sent.job, sent.work)
            return
        self._jobs[sent.job] = job._replace(ships=True)
        whole = reply.unseen == "more input"
        self._send(sent.job, [sent.work], self._shipment(job, sent.work, whole=whole))

    def _with_pieces(self, job: RayJob, sent: SentTask, outcome: Succeeded) -> Outcome:
        """Write the pieces of a worker that does not see the output."""
        import ray

        contents = ray.get(sent.rows)
        try:
            return outcome._replace(payload=write_pieces(outcome.payload, contents, job.pieces))
        except OSError as error:
            return failed(sent.work, "write", error, retry=job.retry)._replace(unwritten=True)

    def _kept(self, rows: Any) -> Any:
        """Return a reference to rows that survives the node which made them."""
        import ray

        value = ray.get(rows)
        return value if is_client(ray) else ray.put(repack(value))

    def fetch(self, payload: Any) -> Any:
        """Return the rows of a reference."""
        import ray

        if isinstance(payload, tuple) and not hasattr(payload, "_fields"):
            return unpack(payload)
        if not hasattr(payload, "task_id"):  # of Ray itself, or of its client
            return payload
        if not ray.is_initialized():
            message = "the Ray that held this value was closed meanwhile: ask for the value before"
            raise ExecutorError(message)
        try:
            return unpack(ray.get(payload))
        except ray.exceptions.ObjectLostError as error:
            message = "the node that held this value is gone: run the flow again; cache=True keeps values"
            raise ExecutorError(message) from error

    def close(self) -> None:
        """Cancel running tasks; leave Ray, or stop it if batchflow started it."""
        if has_rays_parent():
            return
        for job in list(self._jobs):
            self.unload(job)
        self._perform = None
        self._side.close()
        self._cluster.close()


_modules = ImportedModules()
_reloads: Counter[str] = Counter()
"""Reloads and edits of each module, per process since Ray workers outlive an executor."""


def _count_reloads() -> dict[str, int]:
    _reloads.update(_modules.update())
    return dict(_reloads)


_SMALL = 32 << 10
"""Maximum bytes of a program sent with each task; a reference takes Ray longer."""
_SEARCHED = 64
"""Maximum nodes searched for a position; on more nodes the chunk is halved."""
_SEARCH_SECONDS = 15.0
"""Timeout of a position search in seconds; a node may have to start a worker."""
_TURN_SECONDS = 0.05
"""Seconds per wait for Ray while local work is running too."""


@dataclass(eq=False)
class _Search:
    """Search for the position of a task whose worker ended."""

    job: int
    outcome: Failed
    left: int
    """Number of nodes that have not answered."""
    since: float
    """`time.monotonic` of the detection of the loss."""


def _lost(job: RayJob, sent: SentTask, error: Exception) -> Failed:
    """Return the outcome of work that Ray lost, noting if its worker died in ``setup=``."""
    outcome = death_outcome(job, sent, error)
    if not job.has_setup or not isinstance(sent.work, Task):
        return outcome
    from ray.experimental import internal_kv

    key = setup_key(job.key, sent.work)
    in_setup = bool(internal_kv._internal_kv_exists(key))
    if in_setup:
        internal_kv._internal_kv_del(key)
    return outcome._replace(setup=in_setup)
