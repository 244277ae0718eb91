"""Remote function of Ray tasks: runs work with the program that it belongs to."""

from __future__ import annotations

import importlib
import io
import os
import pickle
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache, partial
from itertools import islice
from typing import IO, Any, Literal, NamedTuple

from batchflow.core.outcomes import Outcome, Succeeded
from batchflow.core.process_state import ProcessState
from batchflow.core.serialization import Pickled, dumps_out_of_band, forget_functions, private_buffers
from batchflow.core.work import AssemblePart, Call, CombineTables, CountRecords, Task, WorkItem
from batchflow.executors.base import BUNDLE_SECONDS, UNKNOWN
from batchflow.executors.program_loading import LoadedProgram, opened
from batchflow.executors.ray.file_shipping import Shipment, Unpacked, read_pieces, sees
from batchflow.executors.ray.positions import PositionFile
from batchflow.io.arrow.rows import Rows
from batchflow.io.step_cache import CachedValue
from batchflow.io.stores.staging import scratch_dir
from batchflow.worker import (
    PROGRAM_FREE_WORK,
    Limits,
    Program,
    TaskLimits,
    TaskTimeout,
    end_with_parent,
    failed,
    lost,
    over,
    run_without_program,
)
from batchflow.worker.log_records import LogSettings
from batchflow.worker.log_records import install as install_logging
from batchflow.worker.stdio_capture import Gathered, LineBuffer, install

Unseen = Literal["", "input", "more input", "output"]
"""Part of the driver's disk that a worker does not see."""


class ProgramNotice(NamedTuple):
    """Description of a job for its workers, with its program."""

    state: ProcessState
    reloads: Mapping[str, int]
    """Number of reloads and edits of each module of the driver."""
    program: Any
    """Pickled program."""
    waits: bool
    """Whether its calls are I/O-bound or async."""
    folder: str | None
    """Working directory of the driver, if its inputs are files."""
    pieces: str
    """Folder for pieces; empty for an object store or without an output."""
    mark: str
    """Marker file by which a worker recognizes the driver's folder for pieces."""
    log_settings: LogSettings | None


class TaskHeader(NamedTuple):
    """Header of each piece of work, pickled before it because each argument costs Ray 10 µs."""

    job: str
    """Identifier of the job for workers."""
    notice: bytes | None
    """Pickled notice; ``None`` if it is large, so that each worker fetches it once."""
    number: int
    """Increasing number, since headers of queued tasks arrive late."""
    alive: tuple[str, ...]
    """Identifiers of all running jobs."""
    limits: Limits
    here: str
    """Node of the driver, which sees all that the driver sees."""


class TaskExtras(NamedTuple):
    """Optional extras of work, apart from the header because Ray is slow for anything but bytes."""

    notice: Any = None
    """Reference to a large notice."""
    buffers: Sequence[Any] = ()
    """Large buffers of the work."""
    writable: bytes = b""
    """Writable flags of the buffers, as in `Buffers.writable`."""
    shipment: Shipment | None = None


INLINE_BYTES = 32 << 10
"""Rows up to this size go within the reply: they would be in the driver's memory anyway, for Ray keeps objects
up to 100 KiB with their owner, and a second object costs the driver a look-up more for each chunk."""


class Reply(NamedTuple):
    """Reply of a worker to a piece of work."""

    outcome: Outcome | None
    node: str
    has: Literal["", "rows", "pieces"] = ""
    """Kind of payload next to the reply."""
    unseen: Unseen = ""
    """Files that the worker needs and does not see; the work is resubmitted with them."""

    @property
    def goes_on(self) -> bool:
        """Whether the worker may continue with the rest of the batch."""
        return isinstance(self.outcome, Succeeded) and not self.has


class _Known(NamedTuple):
    """Job on a worker."""

    loaded: LoadedProgram
    notice: ProgramNotice
    opened: ExitStack
    away: str
    """Local folder for pieces of a worker that does not see the driver's."""
    position: PositionFile

    def close(self) -> None:
        """Release the resources of the job."""
        self.loaded.close()
        self.position.close()
        self.opened.close()


_jobs: dict[str, _Known] = {}
"""Running jobs by identifier."""
_prints = LineBuffer()
_newest = [0]
"""Number of the newest header so far."""


def perform(message: bytes, *rest: Any) -> tuple[bytes, Any]:
    """Run work; returns pickled replies, and the pickled rows of the last piece.

    There are fewer replies than pieces of work where one takes long, gives much, or is to be done otherwise.

    Parameters
    ----------
    message
        `TaskHeader` and the work, a pickle each.
    rest
        If there is any: the fields of a `TaskExtras`, then the values of other tasks, fetched by Ray.
    """
    file = io.BytesIO(message)
    told: TaskHeader = pickle.load(file)
    more, *parts = rest or ((),)
    replies: list[Reply] = []
    rows: Any = None
    until = time.monotonic() + BUNDLE_SECONDS
    with _tapped():  # other tasks of the user's program may run in this process
        while not replies or (file.tell() < len(message) and replies[-1].goes_on and time.monotonic() < until):
            reply, rows = _performed(told, file, TaskExtras(*more), parts)
            if _prints and reply.outcome is not None:
                reply = reply._replace(outcome=reply.outcome._replace(printed=_prints.take()))
            replies.append(reply)
    if replies[-1].has == "rows" and not told.here:
        rows = rows[0], [bytes(buffer.raw()) for buffer in rows[1]], rows[2]  # Ray's client takes nothing else
    return pickle.dumps(replies), rows


@cache
def _tapped() -> Gathered:
    """Return the line collector of this process; its streams are replaced once."""
    install()
    return Gathered(_prints)


def _performed(terms: TaskHeader, file: IO[bytes], more: TaskExtras, parts: Sequence[Any]) -> tuple[Reply, Any]:
    node = _node()
    job = _known(terms, more.notice)
    try:
        work: WorkItem = opened(
            partial(pickle.load, file, buffers=private_buffers(more.buffers, more.writable)), terms.limits
        )
    except (TaskTimeout, MemoryError) as error:
        return Reply(over(UNKNOWN, error, terms.limits), node), None
    except (Exception, SystemExit) as error:
        return Reply(failed(UNKNOWN, "read", error), node), None
    unseen = "" if node == terms.here else _unseen(job, work, more.shipment)
    if unseen:
        return Reply(None, node, unseen=unseen), None
    return _answer(job, _with_values(work, parts), more.shipment, terms.limits, node)


def _answer(
    job: _Known, work: WorkItem, shipment: Shipment | None, limits: Limits, node: str
) -> tuple[Reply, Any]:
    if shipment is None:
        return _limited_reply(job, work, _outcome(job, work, limits), limits, node)
    import ray

    files = Unpacked(shipment, ray.get)
    with files.in_place():
        outcome = _outcome(job, work, limits)
    if files.missed:
        return Reply(None, node, unseen="more input"), None
    return _limited_reply(job, work, outcome, limits, node)


def _outcome(job: _Known, work: WorkItem, limits: Limits) -> Outcome:
    job.notice.state.go_home()
    if isinstance(work, Task):
        job.position.begin(work)
    try:
        with warnings.catch_warnings():  # filters of the driver are not for Ray's own code
            job.notice.state.apply_filters()
            return (
                run_without_program(work)
                if isinstance(work, PROGRAM_FREE_WORK)
                else job.loaded.runner().perform(work)
            )
    except (TaskTimeout, MemoryError) as error:
        return over(work, error, limits)
    except BaseException as error:
        return lost(work, "call", error)


def _limited_reply(job: _Known, work: WorkItem, outcome: Outcome, limits: Limits, node: str) -> tuple[Reply, Any]:
    """Return the reply, created within the time limit since pickling may run user code."""
    try:
        with TaskLimits(None if isinstance(work, PROGRAM_FREE_WORK) else limits.seconds, None):
            return _reply(job, work, outcome, node)
    except TaskTimeout as error:
        return Reply(over(work, error, limits)._replace(stats=outcome.stats), node), None


def _reply(job: _Known, work: WorkItem, outcome: Outcome, node: str) -> tuple[Reply, Any]:
    """Separate an outcome from its rows, or from its pieces if these must be sent."""
    if not isinstance(outcome, Succeeded):
        return Reply(outcome, node), None
    try:
        if job.away and isinstance(work, Task) and outcome.payload:
            return Reply(outcome, node, "pieces"), read_pieces(outcome.payload)
        if isinstance(outcome.payload, Rows | Pickled):
            rows = pack(outcome.payload)
            pickle.loads(rows[0], buffers=rows[1])  # the driver could not tell any more whose fault it is
            if not rows[1] and len(rows[0]) <= INLINE_BYTES and not isinstance(work, Call):
                return Reply(outcome._replace(payload=rows), node), None
            return Reply(outcome._replace(payload=None), node, "rows"), rows
    except TaskTimeout:
        raise
    except BaseException as error:
        return Reply(lost(work, "convert", error), node), None
    return Reply(outcome, node), None


def _unseen(job: _Known, work: WorkItem, shipment: Shipment | None) -> Unseen:
    """Return the kind of files that some work needs and this worker does not see."""
    if isinstance(work, AssemblePart):
        return "output" if job.away else ""
    chunk = work.chunk if isinstance(work, Task) else work.task.chunk if isinstance(work, CountRecords) else None
    folder = job.notice.folder
    if chunk is None or folder is None or shipment is not None or sees(chunk, folder):
        return ""
    return "input"


def without_values(work: WorkItem) -> tuple[WorkItem, tuple[Any, ...]]:
    """Separate work from the values of other tasks."""
    if isinstance(work, CombineTables):
        return work._replace(parts=()), work.parts
    if isinstance(work, Call) and work.values:
        bare = [given._replace(payloads=(None,) * len(given.payloads)) for given in work.values]
        return work._replace(values=tuple(bare)), tuple(one for given in work.values for one in given.payloads)
    return work, ()


def _with_values(work: WorkItem, parts: Sequence[Any]) -> WorkItem:
    """Return work with the values of other tasks restored."""
    if isinstance(work, CombineTables):
        return work._replace(parts=tuple(map(unpack, parts)))
    if not isinstance(work, Call):
        return work
    left = (
        part if isinstance(part, Pickled | CachedValue) else unpack(part) for part in parts
    )  # of the driver's own
    values = [given._replace(payloads=tuple(islice(left, len(given.payloads)))) for given in work.values]
    return work._replace(values=tuple(values))


Carried = tuple[bytes, list[Any], bytes]
"""Value in its Ray form: pickle, large buffers, and their writable flags."""


def pack(value: Any) -> Carried:
    """Return a value in its Ray form; large buffers are not copied again."""
    pickled, buffers = dumps_out_of_band(value)
    return pickled, list(buffers), buffers.writable


def unpack(packed: Carried) -> Any:
    """Return the value of a Ray form; arrays are copied, as Ray's shared memory is read-only."""
    pickled, buffers, writable = packed
    return pickle.loads(pickled, buffers=private_buffers(buffers, writable))


def repack(packed: Carried) -> Carried:
    """Return a received Ray form in a form that Ray can send again."""
    pickled, buffers, writable = packed
    return pickled, [pickle.PickleBuffer(buffer) for buffer in buffers], writable


@cache
def _node() -> str:
    import ray

    node: str = ray.get_runtime_context().get_node_id()
    return node


def _known(terms: TaskHeader, reference: Any) -> _Known:
    """Return a job, loaded once by each worker process; ended jobs are dropped."""
    if terms.number > _newest[0]:
        _newest[0] = terms.number
        for key in _jobs.keys() - terms.alive:
            _jobs.pop(key).close()
    if not _jobs:
        end_with_parent()  # a Ray of our own ends with its driver, and its workers at once with it
    if terms.job not in _jobs:
        notice = _fetched(reference) if terms.notice is None else pickle.loads(terms.notice)
        _jobs[terms.job] = _made_ready(terms.job, notice, terms.limits)
    return _jobs[terms.job]


def _fetched(reference: Any) -> ProgramNotice:
    import ray

    notice: ProgramNotice = ray.get(reference)
    return notice


_reloads: dict[str, int] = {}
"""Reloads and edits of the driver's modules, as last received by this process."""


def _forget_stale(reloads: Mapping[str, int]) -> None:
    """Drop modules that the driver reloaded since, so that they are imported again."""
    stale = [name for name, count in reloads.items() if _reloads.get(name, 0) != count]
    for name in stale:
        sys.modules.pop(name, None)
    _reloads.update(reloads)
    if stale:
        forget_functions()
        importlib.invalidate_caches()


def _made_ready(job: str, notice: ProgramNotice, limits: Limits) -> _Known:
    notice.state.apply(same_machine=False)
    _forget_stale(notice.reloads)
    install_logging(notice.log_settings)
    if any(limits):
        import pyarrow.parquet  # noqa: F401 - what most tasks need is loaded at the expense of none
    opened = ExitStack()
    sees_output = not notice.mark or os.path.exists(notice.mark)
    away = "" if sees_output else opened.enter_context(scratch_dir())
    announce = partial(announce_setup, job)
    position = PositionFile(job)
    make = partial(_program, notice, away)
    loaded = LoadedProgram(make, limits, waits=notice.waits, cells=position.cells, announce=announce)
    return _Known(loaded, notice, opened, away, position)


def announce_setup(job: str, task: Task, starts: bool) -> None:
    """Record at Ray's head that ``setup=`` starts for a task, or remove that record when ``setup=`` has ended.

    A worker that dies leaves the record behind. Ray has no public place for it that is not a process of its own.
    """
    from ray.experimental import internal_kv

    if starts:
        internal_kv._internal_kv_put(setup_key(job, task), b"1")
    else:
        internal_kv._internal_kv_del(setup_key(job, task))


def setup_key(job: str, task: Task | None = None) -> str:
    """Return the key of the record that a task is in ``setup=``, or without a task the prefix of all of a job."""
    return f"batchflow setup {job} " + ("" if task is None else f"{task.key} {task.attempt}")


def _program(notice: ProgramNotice, away: str) -> Program:
    program: Program = unpack(notice.program)
    return program._replace(pieces=away) if away else program
