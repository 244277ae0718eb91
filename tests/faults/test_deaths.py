"""Workers, zygotes and drivers that die: every other record is a result, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest
from seen import seen

import batchflow as bf
from batchflow.executors import Processes


def leave(_=None):
    os._exit(7)


def kill(_=None):
    os.kill(os.getpid(), signal.SIGKILL)


def crash(_=None):
    os.kill(os.getpid(), signal.SIGSEGV)


CAUSES = {
    leave: "the worker process ended with exit status 7",
    kill: "the worker process was killed by SIGKILL (out of memory, or by somebody)",
    crash: "the worker process was killed by SIGSEGV",
}


def run(fn, data, executor, **options):
    return bf.map_records(fn, bf.records(data), executor=executor, **options)


def told(result):
    columns = ["start", "stop", "record", "payload", "phase", "error_type"]
    return [tuple(row.values()) for row in result.errors.select(columns).to_pylist()]


@pytest.mark.parametrize("die", [leave, kill, crash], ids=lambda die: die.__name__)
def test_one_record_kills_its_worker(remote, die):
    result = run(lambda x: die() if x == 13 else x, range(40), remote, chunk=8)
    assert seen(result).values == [x for x in range(40) if x != 13]
    assert told(result) == [(13, 14, 14, "13", "worker", "WorkerDied")]
    [row] = result.errors.to_pylist()
    if remote.name == "processes":
        assert row["message"] == CAUSES[die]
        host, _, pid = row["worker"].rpartition(":")
        assert host
        assert int(pid) not in (0, os.getpid())
    else:
        assert "WorkerCrashedError" in row["message"]
    # The chunk, the chunk with the start of each record noted, the record alone.
    assert row["attempts"] == 3


def test_several_records_kill_their_workers(remote):
    result = run(lambda x: leave() if x in (0, 5, 19) else x, range(20), remote, chunk=5)
    assert seen(result).values == [x for x in range(20) if x not in (0, 5, 19)]
    assert [row[2] for row in told(result)] == [1, 6, 20]


def test_a_batch_function_that_kills_its_worker(remote):
    def fn(table):
        if 6 in table["value"].to_pylist():
            leave()
        return table

    result = bf.map_batches(fn, bf.records(range(12)), executor=remote, chunk=6)
    assert seen(result).values == [x for x in range(12) if x != 6]
    assert told(result) == [(6, 7, 7, "6", "worker", "WorkerDied")]


@pytest.mark.parametrize("die", [leave, kill, crash], ids=lambda die: die.__name__)
def test_setup_that_kills_its_worker_is_one_error_of_the_job(remote, tmp_path, die):
    """Something else could have killed one or two of its workers."""

    def setup():
        (tmp_path / str(os.getpid())).touch()
        die()

    limits = bf.Resources(cpus=1)
    with pytest.raises(
        bf.errors.StoppedError, match=r"^stopped: setup=.*setup failed: WorkerDied: .*; fix it"
    ) as stopped:
        run(lambda x, _: x, range(400), remote, setup=setup, chunk=2, limits=limits)
    assert (stopped.value.reason, stopped.value.errors.num_rows) == ("setup", 0)
    assert 3 <= len(list(tmp_path.iterdir())) <= 9  # of 200 chunks some are on their way


def test_setup_that_kills_some_workers_costs_no_record(remote, tmp_path):
    def setup():
        if len(list(tmp_path.iterdir())) < 2:
            (tmp_path / str(os.getpid())).touch()
            leave()

    result = run(lambda x, _: x, range(40), remote, setup=setup, chunk=10)
    assert (seen(result).values, told(result)) == (list(range(40)), [])


def test_record_that_kills_its_worker_after_setup_is_to_blame(remote):
    result = run(lambda x, _: leave() if x == 2 else x, range(4), remote, setup=dict, chunk=2)
    assert seen(result).values == [0, 1, 3]
    assert [row[2:] for row in told(result)] == [(3, "2", "worker", "WorkerDied")]


class Killer:
    """Kills the worker that makes it again."""

    def __reduce__(self):
        return _die_elsewhere, (os.getpid(),)


def _die_elsewhere(driver):
    if os.getpid() != driver:
        leave()


def test_a_program_that_kills_its_worker_when_loaded(remote):
    killer = Killer()
    result = run(lambda x: (killer, x), range(2), remote, chunk=1)
    assert seen(result).values == []
    assert [row[4] for row in told(result)] == ["worker", "worker"]


def test_reading_that_kills_its_worker(remote):
    """The driver knows how many records there are, so nobody else has to look at them to count them."""
    result = run(lambda x: 1, [1, Killer(), 3, 4], remote, chunk=2)
    assert seen(result).values == [1, 1, 1]
    assert [(row[0], row[1], row[2], row[4]) for row in told(result)] == [(1, 2, 2, "worker")]


def test_the_same_number_of_records_whatever_dies(remote):
    """Halves of a file keep numbers and places."""

    def fn(x):
        if x % 97 == 0:
            leave()
        if x % 31 == 0:
            raise ValueError(x)
        return x

    result = run(fn, range(200), remote, chunk=50)
    assert seen(result).values == [x for x in range(200) if x % 97 and x % 31]
    assert [row[2] - 1 for row in told(result)] == [x for x in range(200) if not (x % 97 and x % 31)]


# --- Processes only -------------------------------------------------------------------------------


def is_alive(pid):
    """Whether a process runs; one that ended may wait for whoever is to reap it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(processes, seconds=10):
    """Wait for the end of processes that are not our children; whether all ended in time."""
    end = time.monotonic() + seconds
    while alive := any(is_alive(pid) for pid in processes):
        if time.monotonic() > end:
            break
        os.sched_yield()
    return not alive


def workers_of(executor):
    return {worker.tally.pid for worker in executor._workers.values()}


@pytest.fixture
def processes():
    with Processes(2) as executor:
        yield executor


def test_workers_that_die_idle_blame_nobody(processes):
    assert run(lambda x: x, range(4), processes, chunk=1).values == [0, 1, 2, 3]
    for pid in workers_of(processes):
        os.kill(pid, signal.SIGKILL)
        assert gone([pid])
    result = run(lambda x: x, range(50), processes, chunk=1)
    assert result.values == list(range(50))
    assert result.errors.num_rows == 0


def test_workers_that_are_killed_while_idle_again_and_again(processes):
    """However their death and new work meet."""
    for _ in range(30):
        for pid in workers_of(processes):
            if pid:
                os.kill(pid, signal.SIGKILL)
        result = run(lambda x: x, range(8), processes, chunk=1)
        assert result.values == list(range(8))
        assert result.errors.num_rows == 0


def test_work_behind_a_death_is_not_blamed():
    """One worker, so that the next chunk waits in its socket."""
    result = run(lambda x: leave() if x == 2 else x, range(10), Processes(1), chunk=1)
    assert seen(result).values == [x for x in range(10) if x != 2]
    assert [row[2] for row in told(result)] == [3]
    assert result.errors["attempts"].to_pylist() == [2]  # whoever died once may have been unlucky
    assert result.report.retries == 1


def test_a_child_of_the_function_dies_with_its_worker(processes, tmp_path):
    """And does not keep the driver waiting, though it holds the worker's socket open."""
    note = tmp_path / "pid"

    def fn(x):
        if x == 1:
            pid = os.fork()
            if pid == 0:
                threading.Event().wait()
            note.write_text(str(pid))
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    result = run(fn, range(4), processes, chunk=1)
    assert seen(result).values == [0, 2, 3]
    assert gone([int(note.read_text())])


def test_unload_kills_a_worker_that_hangs(processes, tmp_path):
    note = tmp_path / "note"
    os.mkfifo(note)

    def hang(_):
        with open(note, "w") as file:
            file.write(str(os.getpid()))
        threading.Event().wait()

    from batchflow.core.chunks import Chunk, InputFile, Span
    from batchflow.core.resources import Resources
    from batchflow.core.work import Task
    from batchflow.io.sources.in_memory import RecordsSource
    from batchflow.worker import Program

    processes.start(2, Resources())
    job = processes.load(Program(hang, RecordsSource(data=None)))
    processes.submit(job, Task((0, 0), Chunk((Span(InputFile("records", -1), 0, 1),), 1), 1, [1]))
    pid = int(note.read_text())
    processes.unload(job)
    assert gone([pid])
    assert run(lambda x: x, range(5), processes).values == list(range(5))


def test_zygote_killed(processes):
    assert run(lambda x: x, range(4), processes).values == [0, 1, 2, 3]
    zygote = processes._zygote.process.pid

    def kill_zygote(x):
        os.kill(zygote, signal.SIGKILL)
        threading.Event().wait()

    left = workers_of(processes)
    with pytest.raises(
        bf.errors.ExecutorError, match=r"^the process that workers are forked from was killed by SIGKILL \(out of"
    ):
        run(kill_zygote, range(4), processes)
    assert gone(left)
    assert run(lambda x: x, range(4), processes).values == [0, 1, 2, 3]  # the next job starts anew


def test_zygote_killed_under_a_stream_that_is_closed(processes):
    def slow(x):
        if x:
            threading.Event().wait()
        return x

    stream = bf.stream_batches(slow, bf.records(range(10)), per="record", chunk=1, executor=processes)
    next(stream)
    left = workers_of(processes)
    os.kill(processes._zygote.process.pid, signal.SIGKILL)
    assert gone(left)
    stream.close()
    with pytest.raises(bf.errors.ExecutorError, match="killed by SIGKILL"):
        run(slow, range(4), processes)
    assert run(str, range(4), processes).values == ["0", "1", "2", "3"]


def test_zygote_of_a_lost_import_path_starts(script):
    done = script(
        """
        import sys
        import batchflow as bf
        import cloudpickle, batchflow.executors.processes.executor
        bf.map_records(len, bf.records(["a"]), executor="serial")
        sys.path[:] = ["/nowhere"]
        print(bf.map_records(len, bf.records(["a"]), executor="processes").values)
        """
    )
    assert (done.stdout, done.stderr) == ("[1]\n", "")


def test_zygote_that_cannot_start_is_an_executor_error(script):
    done = script(
        """
        import os
        import batchflow as bf
        from batchflow import errors
        os.environ["PYTHONHOME"] = "/nowhere"
        try:
            bf.map_records(len, bf.records(["a"]), executor="processes")
        except errors.ExecutorError as error:
            print(error)
        """
    )
    assert done.stdout == (
        "the process that workers are forked from ended with exit status 1: its message stands above\n"
    )
    assert "ModuleNotFoundError" in done.stderr or "ImportError" in done.stderr


def test_many_jobs_hold_no_files_open():
    def files():
        return sorted(os.listdir("/proc/self/fd"))

    run(lambda x: x, range(4), Processes(2))
    before = files()
    for _ in range(3):
        run(lambda x: leave() if x == 2 else x, range(4), Processes(2), chunk=1)
    assert files() == before
    with Processes(2) as executor:
        run(lambda x: x, range(4), executor)
        before = files()
        for _ in range(20):
            run(lambda x: "x" * 50_000, range(4), executor, chunk=1)
        assert files() == before


# --- the driver -----------------------------------------------------------------------------------

DRIVER = """
    import sys, threading
    import batchflow as bf

    def hang(x):
        with open(sys.argv[1], "w") as file:
            print(x, file=file, flush=True)
        threading.Event().wait()

    bf.map_records(hang, bf.records(range(4)), executor="processes", chunk=1)
"""


@pytest.fixture
def driver(tmp_path):
    """Start a driver whose two workers hang in the function; return it and its processes."""
    path, note = tmp_path / "driver.py", tmp_path / "note"
    os.mkfifo(note)
    path.write_text(textwrap.dedent(DRIVER))
    with subprocess.Popen([sys.executable, str(path), str(note)], stderr=subprocess.PIPE, text=True) as process:
        with open(note) as file:
            file.readline()
            yield process, [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        process.kill()


def test_driver_killed(driver):
    process, offspring = driver
    assert len(offspring) >= 2
    process.kill()
    assert gone(offspring, 2)


def test_ctrl_c(driver):
    process, offspring = driver
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=2) == -signal.SIGINT
    assert gone(offspring, 1)
    assert process.stderr.read().rstrip().endswith("KeyboardInterrupt")


# --- odd places to run from -----------------------------------------------------------------------


def test_from_a_thread():
    results = {}

    def work(name):
        results[name] = run(lambda x: (name, x), range(20), "processes", chunk=3).values

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {name: [(name, x) for x in range(20)] for name in "ab"}


def test_under_a_running_event_loop():
    import asyncio

    async def notebook():
        return run(lambda x: x, range(5), "processes").values

    assert asyncio.run(notebook()) == list(range(5))


def test_in_a_daemonic_process(script):
    done = script(
        """
        import multiprocessing, batchflow as bf

        def work():
            print(bf.map_records(lambda x: x + 1, bf.records(range(5)), executor="processes").values)

        if __name__ == "__main__":
            process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
            process.start()
            process.join()
        """
    )
    assert (done.stdout, done.stderr) == ("[1, 2, 3, 4, 5]\n", "")


def test_nested(remote):
    def inner(x):
        import batchflow as bf

        return sum(bf.map_records(lambda y: x * y, bf.records(range(4)), executor="processes").values)

    assert run(inner, range(3), remote).values == [0, 6, 12]


def test_a_fork_of_the_driver_does_not_disturb_it(processes):
    assert run(lambda x: x, range(4), processes).values == [0, 1, 2, 3]
    pid = os.fork()
    if pid == 0:
        try:
            processes.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert run(lambda x: x, range(4), processes).values == [0, 1, 2, 3]


@pytest.mark.cluster
def test_quiet_on_ray(script):
    """Nothing is printed, whatever dies, and a Ray of our own is gone in the end."""
    done = script(
        """
        import os
        import batchflow as bf

        def fn(x):
            if x == 5:
                os._exit(1)
            if x == 7:
                raise ValueError(x)
            return {"x": x, "text": "x" * 20_000}

        result = bf.map_records(fn, bf.records(range(40)), executor="ray", chunk=10)
        assert result.errors["record"].to_pylist() == [6, 8]
        import ray
        assert not ray.is_initialized()
        rows = result.table.to_pylist()  # memory of the object store that is gone
        assert [row["x"] for row in rows] == [x for x in range(40) if x not in (5, 7)]
        assert all(row["text"] == "x" * 20_000 for row in rows)
        """
    )
    assert (done.stdout, done.stderr) == ("", "")
