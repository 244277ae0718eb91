"""Driver's handle of one worker process."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pickle import dumps
from typing import Any, NamedTuple

from batchflow.core.chunks import Key
from batchflow.core.work import Call, WorkItem
from batchflow.executors.processes import wire
from batchflow.executors.processes.shared_state import StartTokens, WorkerCounters
from batchflow.executors.processes.wire import lean_call
from batchflow.worker.recent_values import SMALL

_HOST = socket.gethostname()


class WorkBatch(NamedTuple):
    """One or more short pieces of work that are sent together, and the number of their program."""

    job: int
    works: Sequence[WorkItem]
    permit: int = 0
    """Number of its start token, if it was sent ahead."""

    @property
    def work(self) -> WorkItem:
        """The single piece of work."""
        (work,) = self.works
        return work

    @property
    def parts(self) -> list[WorkBatch]:
        """One batch per piece of work."""
        return [WorkBatch(self.job, (work,)) for work in self.works]


@dataclass(eq=False)
class WorkerHandle:
    """Worker process as seen by the driver."""

    number: int
    socket: socket.socket
    tally: WorkerCounters
    permits: StartTokens
    queue: deque[WorkBatch] = field(default_factory=deque)
    """Work sent and not yet answered; the first piece is running."""
    inbox: wire.MessageReader = field(init=False)
    """Reader of its answers."""
    answered: int = 0
    loaded: set[int] = field(default_factory=set)
    lost: bool = False
    """Whether its socket closed while its exit status is unknown."""

    garbled: bool = False
    """Whether it sent an invalid frame."""

    def __post_init__(self) -> None:
        self.inbox = wire.MessageReader(self.socket)

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"{_HOST}:{self.tally.pid}"

    @property
    def at_work(self) -> bool:
        """Whether it started the first piece of its queue."""
        return bool(self.queue) and self.tally.begun > self.answered

    @property
    def has_answered(self) -> bool:
        """Whether an answer is there for sure: it was read, or was given before the worker began what it is at."""
        return bool(self.queue) and (self.inbox.has_whole or self.tally.begun - 1 > self.answered)

    def has(self, job: int, key: Key) -> bool:
        """Whether a piece of work is in its queue."""
        return any(piece.job == job and work.key == key for piece in self.queue for work in piece.works)

    def ends_with(self, job: int, key: Key) -> bool:
        """Whether a piece of work is the last in its queue."""
        return bool(self.queue) and self.queue[-1].job == job and self.queue[-1].works[-1].key == key

    def send(self, message: Any) -> None:
        """Send a message."""
        self.post(wire.pack(message, packed=True))  # nothing of the user is in it

    def post(self, parcel: wire.Message) -> None:
        """Send a parcel."""
        with suppress(OSError):  # a worker that is gone is found out when its socket is read
            parcel.send(self.socket)

    def send_ahead(self, job: int, calls: Sequence[Call]) -> int:
        """Send small calls ahead, revocably; returns how many, up to the first large one."""
        pickled = (dumps((job, lean_call(call)), protocol=5) for call in calls)
        small = list(takewhile(lambda one: len(one) <= SMALL, pickled))  # pickles no other behind a large one
        if not small:
            return 0
        permits = self.permits.give(len(small))
        parcels = [wire.Message(one, permit=permit) for one, permit in zip(small, permits, strict=True)]
        with suppress(OSError):  # as in `post`
            wire.send_together(self.socket, parcels)
        self.queue.extend(WorkBatch(job, (call,), permit) for call, permit in zip(calls, permits, strict=False))
        return len(small)

    def take_back(self) -> list[WorkBatch]:
        """Recall the work sent ahead that has not started."""
        permits = set(self.permits.take_back())
        taken = [piece for piece in self.queue if piece.permit in permits]
        self.queue = deque(piece for piece in self.queue if piece.permit not in permits)
        return taken

    def close(self) -> None:
        """Close its socket and files, so that the worker ends."""
        self.socket.close()
        self.inbox.close()
        self.permits.close()
