"""What the driver knows of one worker process, and what it sends there."""

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
    """A piece of work, or some short ones that travel together, and which program they are of."""

    job: int
    works: Sequence[WorkItem]
    permit: int = 0
    """Number of its permit, if it was sent ahead."""

    @property
    def work(self) -> WorkItem:
        """The only one."""
        (work,) = self.works
        return work

    @property
    def parts(self) -> list[WorkBatch]:
        """Each piece of work by itself."""
        return [WorkBatch(self.job, (work,)) for work in self.works]


@dataclass(eq=False)
class WorkerHandle:
    """One worker process, as the driver sees it."""

    number: int
    socket: socket.socket
    tally: WorkerCounters
    permits: StartTokens
    queue: deque[WorkBatch] = field(default_factory=deque)
    """Work sent and not yet answered; the first one is running."""
    inbox: wire.MessageReader = field(init=False)
    """What it answers."""
    answered: int = 0
    loaded: set[int] = field(default_factory=set)
    lost: bool = False
    """Its socket closed; how it ended is still to be told."""

    garbled: bool = False
    """What it sent was no answer."""

    def __post_init__(self) -> None:
        self.inbox = wire.MessageReader(self.socket)

    @property
    def name(self) -> str:
        """What names it in reports."""
        return f"{_HOST}:{self.tally.pid}"

    @property
    def at_work(self) -> bool:
        """Whether it began what stands first in its queue."""
        return bool(self.queue) and self.tally.begun > self.answered

    @property
    def has_answered(self) -> bool:
        """Whether an answer is there for sure: it was read, or was given before the worker began what it is at."""
        return bool(self.queue) and (self.inbox.has_whole or self.tally.begun - 1 > self.answered)

    def has(self, job: int, key: Key) -> bool:
        """Whether some work stands in its queue."""
        return any(piece.job == job and work.key == key for piece in self.queue for work in piece.works)

    def ends_with(self, job: int, key: Key) -> bool:
        """Whether some work stands in its queue last."""
        return bool(self.queue) and self.queue[-1].job == job and self.queue[-1].works[-1].key == key

    def send(self, message: Any) -> None:
        """Send a message."""
        self.post(wire.pack(message, packed=True))  # nothing of the user is in it

    def post(self, parcel: wire.Message) -> None:
        """Send a parcel."""
        with suppress(OSError):  # a worker that is gone is found out when its socket is read
            parcel.send(self.socket)

    def send_ahead(self, job: int, calls: Sequence[Call]) -> int:
        """Send calls that are small, which may be taken back; returns how many, up to one that is large."""
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
        """Take back what was sent ahead and did not begin."""
        permits = set(self.permits.take_back())
        taken = [piece for piece in self.queue if piece.permit in permits]
        self.queue = deque(piece for piece in self.queue if piece.permit not in permits)
        return taken

    def close(self) -> None:
        """Let it end, if it has not."""
        self.socket.close()
        self.inbox.close()
        self.permits.close()
