"""Every phase of a job x every manner of failing x both executors with processes of their own."""

import os
import signal
import threading
import time
from contextlib import suppress
from functools import partial

import mischief
import psutil
import pytest
from leftovers import children
from mischief import GUILTY
from seen import seen

import batchflow as bf
from batchflow.combiner import dataset_writer as dataset
from batchflow.core.work import AssemblePart
from batchflow.io.stores import meta_of
from batchflow.testing import Script

RAISES = {"raise": "ScriptedError", "unpicklable raise": "UnpicklableError", "sys.exit": "SystemExit"}
DIES = ("os._exit", "SIGKILL", "SIGSEGV")
LIMITED = {"hang": ("timeout", "TimeoutError"), "memory": ("memory", "MemoryError")}
MANNERS = (*RAISES, *DIES, *LIMITED)
PHASES = ("read", "unpickle record", "unpickle function", "setup", "call", "convert", "write", "commit")
SECONDS = {"processes": 0.7, "ray": 1.5}
"""What a task may take where one hangs; Ray makes a worker anew, whose first task also loads what it needs."""
FILES = {
    "part-00000.parquet",
    *(
        f"metadata/{name}"
        for name in ("errors.pq", "ledger.log", "plan.json", "report.html", "report.json", "trace.json")
    ),
}
ALL = list(range(8))
CHUNK = [4, 5, 6, 7]
"""Of the guilty record; its lines are bytes 8 to 16 of the file."""
EVERYBODYS = ("unpickle function", "setup")
NAMES = {"unpickle function": "function", "setup": "setup", "commit": "commit"}
"""What misbehaves where that is no record: it belongs to all chunks alike."""


class Cell:
    """One job with one thing that misbehaves.

    Parameters
    ----------
    once
        It does so the first time only; else always.
    """

    def __init__(self, folder, phase, manner, monkeypatch, *, once=False):
        self.name = NAMES.get(phase, GUILTY)
        self.script = Script(folder / "script", {self.name: [manner, "ok"] if once else manner})
        self.into = folder / "out"
        self.source, self.fn = bf.records(self.records(phase, manner, once=once)), mischief.row
        self.options = {"into": f"{self.into}/", "chunk": 4}
        self.hangs = manner.startswith("hang")
        if manner == "memory":
            self.options["per_task"] = bf.Resources(memory="300MB")
        getattr(self, f"_{phase.replace(' ', '_')}")(folder, monkeypatch)

    @staticmethod
    def records(phase, manner, *, once=False):
        """Return the records: two are enough where each of them comes to the same end."""
        return ALL if once or manner in RAISES or phase not in EVERYBODYS else ALL[:2]

    def run(self, executor):
        # One at a time where nobody else is to meet what misbehaves.
        limits = bf.Resources(cpus=None if self.name == GUILTY else 1)
        timeout = SECONDS[executor.name] if self.hangs else None
        return bf.map_records(
            self.fn, self.source, executor=executor, limits=limits, timeout=timeout, **self.options
        )

    def left(self):
        folders = {"": self.into, "metadata/": meta_of(self.into)}
        return {
            name + str(path.relative_to(folder))
            for name, folder in folders.items()
            for path in folder.rglob("*")
            if path.is_file()
        }

    def _read(self, folder, _):
        (folder / "lines.txt").write_text("".join(f"{x}\n" for x in ALL))
        self.source = mischief.UnrulyLines(paths=(str(folder / "lines.txt"),), script=self.script)

    def _unpickle_record(self, *_):
        unruly = mischief.Unruly(self.script, GUILTY, GUILTY)
        self.source = bf.records([unruly if x == GUILTY else x for x in ALL])

    def _unpickle_function(self, *_):
        self.fn = mischief.Unruly(self.script, self.name, mischief.row)

    def _setup(self, *_):
        self.options["setup"] = partial(self.script.play, self.name)

    def _call(self, *_):
        self.fn = mischief.Calling(self.script)

    def _convert(self, *_):
        self.fn = mischief.Converting(self.script)

    def _write(self, *_):
        self.fn = mischief.Writing(self.script)

    def _commit(self, _, monkeypatch):
        def spoilt(key, pieces, schema, path, name, seconds):
            unruly = mischief.UnrulyPath(path)
            unruly.script = self.script
            return AssemblePart(key, pieces, schema, unruly, name, seconds)

        monkeypatch.setattr(dataset, "AssemblePart", spoilt)


def rows_of(result):
    return seen(result).table["x"].to_pylist() if seen(result).table.num_rows else []


def told(result):
    columns = ["start", "stop", "record", "payload", "phase", "error_type", "attempts"]
    return [tuple(row.values()) for row in result.errors.select(columns).to_pylist()]


def cause(manner, phase):
    """Return phase and type as the error table has them."""
    if manner in RAISES:
        return phase, RAISES[manner]
    return LIMITED.get(manner.removesuffix(" in C"), ("worker", "WorkerDied"))


def nobody_left(executor):
    """Whether only idle workers of the warm executor are left; who was killed may take a moment to end."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if (nobody_at_ray if executor.name == "ray" else nobody_beside)(executor):
            return True
        os.sched_yield()
    return False


def nobody_beside(executor):
    ours = {executor._zygote.process.pid, *(worker.tally.pid for worker in executor._workers.values())}
    below = {child.pid for child in psutil.Process(executor._zygote.process.pid).children(recursive=True)}
    return below & children() <= ours


def nobody_at_ray(_):
    """Ray's own processes are Ray's, and its workers name themselves by what they do."""
    doing = []
    for process in map(psutil.Process, children()):
        with suppress(psutil.Error):
            if (title := process.name()).startswith("ray::") and not title.endswith("Agent"):
                doing += [title, *(child.name() for child in process.children())]
    return set(doing) <= {"ray::IDLE"}


def tries(phase, manner, executor):
    """Return how often the guilty record was tried, and how often it misbehaved."""
    if manner in RAISES and phase in ("call", "convert"):
        return 1, 2 if phase == "convert" else 1  # converted with its block, then alone
    if phase == "call":  # the worker notes which record it is at, where the driver can read it
        tried = 1 if manner in ("hang", "hang in C") else 3
        return (2, 2) if manner == "memory" else (tried, tried)
    # 4, 2, 1 records; and once more alone where the kernel may have killed for the memory of others
    tried = 4 if (executor.name, manner) == ("processes", "SIGKILL") else 3
    return tried, tried


def expected(phase, manner, executor):
    """Return the rows kept, the error table, and how often what misbehaves was met."""
    if phase in EVERYBODYS:
        return everybodys(phase, manner, executor)
    without = [x for x in ALL if x != GUILTY]
    if phase != "read":
        tried, met = tries(phase, manner, executor)
        where = {"unpickle record": "read"}.get(phase, phase)
        return without, [(5, 6, 6, "5", *cause(manner, where), tried)], met
    if manner in ("raise", "unpicklable raise"):  # of one line: the others are decoded
        return without, [(10, 12, 6, "5", "read", RAISES[manner], 1)], 2  # with its block, then alone
    if manner in ("sys.exit", "hang"):
        record, met = (5, 1) if manner == "sys.exit" else (None, 2)
        return [x for x in ALL if x not in CHUNK], [(8, 16, record, None, *cause(manner, "read"), 1)], met
    # 8, 4, 2, 1 bytes, since nobody can count the records; the first time that is tried, by three where workers die
    tried = 5 if (executor.name, manner) == ("processes", "SIGKILL") else 4
    met = tried + (1 if manner == "memory" else 3)
    return without, [(10, 11, 6, None, *cause(manner, "read"), tried)], met


def everybodys(phase, manner, executor):
    """What is expected of what belongs to no record and does not stop the job, so that it hits each of them."""
    tried, met = tries(phase, manner, executor)
    tried, met = tried - 1, 1 + 2 * (met - 2)  # a chunk of 2; each record, which some are twice
    return [], [(x, x + 1, x + 1, str(x), *cause(manner, phase), tried) for x in ALL[:2]], met


STOPS = [("unpickle function", manner) for manner in RAISES] + [("setup", manner) for manner in MANNERS]
"""What is one error of the job and no record's."""
CELLS = [
    (phase, manner) for phase in PHASES if phase != "commit" for manner in MANNERS if (phase, manner) not in STOPS
]
CELLS.append(("call", "hang in C"))


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "manner"), CELLS, ids=lambda name: name.replace(" ", "-"))
def test_matrix(remote, tmp_path, monkeypatch, phase, manner):
    """Eight records in two chunks; whatever happens, the other chunk is kept and nothing is left behind.

    read
        A line of a file cannot be decoded. Where decoding raises, it alone is lost. Where it ends the
        task, nobody can count the records of its chunk, so the file is cut by bytes until the line is
        alone; where it takes too long, wherever it is cut, its chunk is one error.
    unpickle record
        A record in memory cannot be made again on the worker. The driver knows how many there are, so
        the chunk is halved until the record is alone, whatever it does.
    unpickle function
        No record's fault: if it ends the worker, each record is one error, as if it were at fault.
        (After 100 tasks the job is given up instead.) If it raises, and ``setup=``: `test_program_that_fails_stops_the_job`.
    call, convert
        The record alone is lost, after one attempt if it raises, also by `sys.exit`. If it ends the task: after
        three, of 4, 2 and 1 records. In a call, the worker names it: after one attempt if it hangs, two if it takes too much memory, three if its worker is killed.
    write
        The rows of the chunk can only be written together, so it is halved for everything.
    """
    cell = Cell(tmp_path, phase, manner, monkeypatch)
    result = cell.run(remote)
    rows, errors, met = expected(phase, manner, remote)
    assert (rows_of(result), told(result)) == (rows, errors)
    assert cell.script.attempts(cell.name) in (met if isinstance(met, set) else {met})
    assert cell.left() == FILES
    assert not (meta_of(cell.into) / "pieces").exists()
    assert nobody_left(remote)


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "manner"), STOPS, ids=lambda name: name.replace(" ", "-"))
def test_program_that_fails_stops_the_job(remote, tmp_path, monkeypatch, phase, manner):
    """One error of the job after at most one attempt a chunk, or three starts that died; no record is lost, and the fixed program finishes the output."""
    cell = Cell(tmp_path, phase, manner, monkeypatch)
    _, kind = cause(manner, phase)
    error, why = {
        "setup": (
            bf.errors.StoppedError,
            rf"^stopped: setup=functools.partial failed: {kind}: .*; fix it .*, which resumes$",
        ),
        "unpickle function": (
            bf.errors.FunctionError,
            rf"^a worker cannot load 'function': {kind}: .*; make what",
        ),
    }[phase]
    with pytest.raises(error, match=why) as caught:
        cell.run(remote)
    assert getattr(caught.value, "errors", None) is None or caught.value.errors.num_rows == 0
    # The second chunk may be on its way.
    assert cell.script.attempts(cell.name) in ({1, 2} if manner in RAISES else {3, 4} if manner in DIES else {1})
    assert "part-00000.parquet" not in cell.left()
    assert nobody_left(remote)
    cell.fn = mischief.row
    cell.options.pop("setup", None)
    result = cell.run(remote)
    assert (rows_of(result), told(result)) == (ALL if manner in RAISES else ALL[:2], [])
    assert cell.left() == FILES


@pytest.mark.slow
@pytest.mark.parametrize("manner", [*DIES, *LIMITED, "hang in C"])
@pytest.mark.parametrize("phase", ["unpickle function", "setup"])
def test_what_ends_a_worker_once_costs_nothing(remote, tmp_path, monkeypatch, phase, manner):
    """Whoever dies is replaced, and another one does everything."""
    survives(Cell(tmp_path, phase, manner, monkeypatch, once=True), remote)


@pytest.mark.slow
@pytest.mark.parametrize("manner", [*DIES, *LIMITED, "hang in C"])
def test_commit_survives(remote, tmp_path, monkeypatch, manner):
    """Whoever ends while a part is put together is replaced, and so is who has no memory left for it."""
    monkeypatch.setattr(dataset, "PATIENCE", 2.0 if manner.startswith("hang") else dataset.PATIENCE)
    survives(Cell(tmp_path, "commit", manner, monkeypatch, once=True), remote)


def survives(cell, executor):
    result = cell.run(executor)
    assert (rows_of(result), told(result), cell.script.attempts(cell.name)) == (ALL, [], 2)
    assert cell.left() == FILES
    assert not (meta_of(cell.into) / "pieces").exists()
    assert nobody_left(executor)


def goes_on(cell, executor, monkeypatch):
    """Run again without the fault: nothing is lost and nothing is called once more."""
    monkeypatch.undo()
    result = cell.run(executor)
    assert (rows_of(result), told(result)) == (ALL, [])
    assert (result.report.before, result.report.rows_in) == (8, 8)
    assert cell.left() == FILES
    assert not (meta_of(cell.into) / "pieces").exists()
    assert nobody_left(executor)


@pytest.mark.slow
@pytest.mark.parametrize("manner", RAISES)
def test_commit_that_always_raises(remote, tmp_path, monkeypatch, manner):
    """It stops the run; what is done is kept, and the half part is gone."""
    cell = Cell(tmp_path, "commit", manner, monkeypatch)
    with pytest.raises(
        bf.errors.OutputError, match=rf"^cannot write .*part-00000.parquet: {RAISES[manner]}: .*go on$"
    ):
        cell.run(remote)
    assert cell.script.attempts("commit") == 1
    assert FILES - cell.left() == {"part-00000.parquet"}
    assert [name.count("/") for name in sorted(cell.left() - FILES)] == [2, 2]  # the pieces of two chunks
    assert not [name for name in cell.left() if name.endswith(".new")]
    goes_on(cell, remote, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("manner", [*DIES, *LIMITED, "hang in C"])
def test_commit_that_always_ends_its_worker(remote, tmp_path, monkeypatch, manner):
    """Three workers are enough; a disk that hangs is told as that."""
    monkeypatch.setattr(dataset, "PATIENCE", 1.0 if manner.startswith("hang") else dataset.PATIENCE)
    cell = Cell(tmp_path, "commit", manner, monkeypatch)
    _, kind = cause(manner, "write")
    told = "TimeoutError: it is not written after 1 seconds: the disk hangs" if kind == "TimeoutError" else kind
    with pytest.raises(bf.errors.OutputError, match=rf"^cannot write .*part-00000.parquet: {told}.*; .*go on$"):
        cell.run(remote)
    assert cell.script.attempts("commit") == 3
    assert nobody_left(remote)
    goes_on(cell, remote, monkeypatch)


@pytest.mark.slow
def test_a_part_that_hangs_can_be_interrupted(remote, tmp_path, monkeypatch):
    """Nobody need wait for the time that a part may take."""
    monkeypatch.setattr("batchflow.core.interrupts.DRAIN_SECONDS", 0.0)
    cell = Cell(tmp_path, "commit", "hang", monkeypatch)
    over = threading.Event()

    def press():
        while not cell.script.attempts("commit") and not over.wait(0.01):
            pass
        os.kill(os.getpid(), signal.SIGINT)

    user = threading.Thread(target=press)
    user.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            cell.run(remote)
    finally:
        over.set()
        user.join()
    assert nobody_left(remote)
    goes_on(cell, remote, monkeypatch)
