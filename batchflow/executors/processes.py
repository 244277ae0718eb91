"""Embedded worker processes of one machine, each with a socket of its own.

::

    driver ── tasks ──> worker 1   one socket each, so that a death is pinned on its task
       │  └── tasks ──> worker 2
       └── Spawn ─────> zygote     forks the workers, tells how they ended
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Any, ClassVar

from batchflow.errors import ExecutorError, WorkerDied
from batchflow.executors import wire
from batchflow.executors.base import Executor, pickled
from batchflow.executors.zygote import Ended, Load, Spawn, Unload
from batchflow.model import Failed, Outcome, Work
from batchflow.resources import Resources
from batchflow.worker import Program, failed

_THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS",
)  # fmt: skip
"""What numeric libraries take their number of threads from; one worker per core needs no more."""


@dataclass(eq=False)
class _Worker:
    """What the driver knows of one worker process."""

    number: int
    socket: socket.socket
    queue: deque[tuple[int, Work]] = field(default_factory=deque)
    """Work sent and not yet answered; the first one is running."""
    loaded: set[int] = field(default_factory=set)
    lost: bool = False
    """Its socket closed; how it ended is still to be told."""


class Processes(Executor):
    """Runs tasks in worker processes on this machine; needs no server and starts in a fraction of a second.

    Parameters
    ----------
    workers
        Number of worker processes; by default as many as the job's limits and the machine's cores allow.
    """

    name: ClassVar[str] = "processes"
    prefetch: ClassVar[int] = 1

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            message = f"Processes(workers={workers}): at least one worker is needed"
            raise ValueError(message)
        self._count = workers
        self._zygote: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._selector = selectors.DefaultSelector()
        self._workers: dict[int, _Worker] = {}
        self._made = 0
        self._programs: dict[int, wire.Parcel] = {}
        self._loaded = 0
        self._waiting: deque[tuple[int, Work]] = deque()
        self._ready: list[tuple[int, Outcome]] = []

    def slots(self, limits: Resources, per_task: Resources) -> int:
        """Return how many tasks of a job may run side by side: no more than there are workers."""
        fitting = super().slots(limits, per_task)
        if self._count is None:
            return fitting
        asked = self._count if limits.cpus is None else min(self._count, fitting)
        return asked if per_task.nbytes is None else min(asked, fitting)

    def start(self, slots: int, per_task: Resources) -> None:
        """Start the zygote, and workers up to this many."""
        if self._zygote is None:
            self._start_zygote(max(1, int(per_task.cpus or 1)))
        while len(self._workers) < slots:
            self._spawn()

    def _start_zygote(self, threads: int) -> None:
        ours, theirs = socket.socketpair()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from batchflow.executors.zygote import main; main({theirs.fileno()})"
        )
        environment = {**dict.fromkeys(_THREADS, str(threads)), **os.environ}
        self._zygote = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=environment,
        )
        theirs.close()
        self._control = ours
        self._selector.register(ours, selectors.EVENT_READ, None)

    def _spawn(self) -> None:
        """Ask the zygote for one more worker; tasks may be sent to it at once."""
        assert self._control is not None
        ours, theirs = socket.socketpair()
        self._made += 1
        worker = _Worker(self._made, ours)
        try:
            wire.send(self._control, Spawn(worker.number))
            socket.send_fds(self._control, [b"f"], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise ExecutorError(_zygote_gone(self._zygote)) from error
        finally:
            theirs.close()
        self._workers[worker.number] = worker
        self._selector.register(ours, selectors.EVENT_READ, worker)

    def load(self, program: Program) -> int:
        """Pickle a program once; all workers share its memory."""
        buffers: list[Any] = []
        data = pickled(program, buffers.append)
        self._loaded += 1
        self._programs[self._loaded] = wire.Parcel(data, buffers)
        return self._loaded

    def unload(self, job: int) -> None:
        """Forget a program here and on the workers."""
        parcel = self._programs.pop(job, None)
        if parcel is not None:
            parcel.close()
        self._waiting = deque(item for item in self._waiting if item[0] != job)
        for worker in list(self._workers.values()):
            if any(item[0] == job for item in worker.queue):
                self._replace(worker)
            elif job in worker.loaded:
                worker.loaded.discard(job)
                self._send(worker, Unload(job))

    def _replace(self, worker: _Worker) -> None:
        """Kill a worker whose work nobody wants any more; work of other jobs goes back to the queue."""
        self._waiting.extendleft(item for item in reversed(worker.queue) if item[0] in self._programs)
        worker.queue.clear()
        self._drop(worker)
        self._spawn()

    def submit(self, job: int, work: Work) -> None:
        """Send work to the worker with the shortest queue, or keep it until one has room."""
        self._waiting.append((job, work))
        self._dispatch()

    def _dispatch(self) -> None:
        while self._waiting:
            able = [worker for worker in self._workers.values() if not worker.lost]
            worker = min(able, key=lambda worker: len(worker.queue), default=None)
            if worker is None or len(worker.queue) > self.prefetch:
                return
            self._give(worker, *self._waiting.popleft())

    def _give(self, worker: _Worker, job: int, work: Work) -> None:
        worker.queue.append((job, work))
        if job not in worker.loaded:
            worker.loaded.add(job)
            if self._send(worker, Load(job)):
                self._try(worker, self._programs[job].send)
        self._send(worker, (job, work))

    def _send(self, worker: _Worker, message: Any) -> bool:
        return self._try(worker, lambda to: wire.send(to, message))

    def _try(self, worker: _Worker, send: Any) -> bool:
        """Send to a worker; one that is gone is found out when its socket is read."""
        try:
            send(worker.socket)
        except OSError:
            return False
        return True

    def wait(self, timeout: float | None = None) -> list[tuple[int, Outcome]]:
        """Return the outcomes there are; waits for the first one."""
        while not self._ready and self._busy():
            events = self._selector.select(timeout)
            if not events:
                break
            for key, _ in events:
                if key.data is None:
                    self._hear_zygote()
                else:
                    self._hear(key.data)
            self._dispatch()
        ready, self._ready = self._ready, []
        return ready

    def _busy(self) -> bool:
        return bool(self._waiting) or any(worker.queue for worker in self._workers.values())

    def _hear(self, worker: _Worker) -> None:
        """Take over one outcome from a worker, or note that it is gone."""
        try:
            job, outcome = wire.receive(worker.socket)
        except (EOFError, OSError):
            worker.lost = True  # the zygote tells how it ended
            self._selector.unregister(worker.socket)
            return
        if worker.queue:
            worker.queue.popleft()
        if job in self._programs:
            self._ready.append((job, outcome))

    def _hear_zygote(self) -> None:
        """Learn how a worker ended: its running task failed, what waited behind it is done by another."""
        assert self._control is not None
        try:
            message: Ended = wire.receive(self._control)
        except (EOFError, OSError) as error:
            raise ExecutorError(_zygote_gone(self._zygote)) from error
        worker = self._workers.get(message.number)
        if worker is None:
            return
        while not worker.lost:
            self._hear(worker)  # what it sent before it died counts
        self._drop(worker)
        if worker.queue:
            job, work = worker.queue.popleft()
            if job in self._programs:
                self._ready.append((job, _death(work, message.status)))
            self._waiting.extendleft(reversed(worker.queue))
        self._spawn()

    def _drop(self, worker: _Worker) -> None:
        del self._workers[worker.number]
        if not worker.lost:
            self._selector.unregister(worker.socket)
        worker.socket.close()

    def close(self) -> None:
        """Stop the workers and the zygote; work under way is given up."""
        for parcel in self._programs.values():
            parcel.close()
        self._programs.clear()
        for worker in list(self._workers.values()):
            self._drop(worker)
        if self._control is not None:
            self._selector.unregister(self._control)
            self._control.close()  # the zygote kills what is left and ends
            self._control = None
        if self._zygote is not None:
            self._zygote.wait()
            self._zygote = None
        self._waiting.clear()
        self._ready.clear()

    def __del__(self) -> None:
        if getattr(self, "_control", None) is not None:
            self.close()


def _zygote_gone(zygote: subprocess.Popen[bytes] | None) -> str:
    status = zygote.wait() if zygote else None
    return f"the process that workers are forked from ended with status {status}: its message stands above"


def _death(work: Work, status: int) -> Failed:
    """Return the outcome of work whose worker ended with a status of `os.waitpid`."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        cause = f"was killed by {signal.Signals(number).name}"
        if number == signal.SIGKILL:
            cause += " (out of memory, or by somebody)"
    else:
        cause = f"ended with exit status {os.WEXITSTATUS(status)}"
    return failed(work, "worker", WorkerDied(f"the worker process {cause}"))._replace(died=True)
