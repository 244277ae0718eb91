"""Drivers that fork, end or have many threads: workers go with their driver, and no messages are mixed."""

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

import batchflow as bf

SECONDS = 20


def in_fork(act):
    """Return the exit status of a fork of this process that does something."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(SECONDS)  # ends a hang
        status = 1
        try:
            act()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def numbers(executor, name, count=20):
    return bf.map_records(
        lambda x: f"{name}{x}", bf.records(range(count)), chunk=2, executor=executor, progress=False
    ).values


def expected(name, count=20):
    return [f"{name}{x}" for x in range(count)]


@pytest.mark.parametrize("name", ["serial", "processes"])
def test_fork_with_warm_executor_has_workers_of_its_own(warm, name):
    executor = {"serial": bf.Serial, "processes": bf.Processes}[name]()
    with executor:
        assert numbers(executor, "before") == expected("before")

        def child():
            for turn in range(3):
                assert numbers(executor, f"child{turn}-") == expected(f"child{turn}-")
            flow = bf.Flow("f")
            step = flow.step(len, "abc")
            assert flow.run(executor=executor, progress=False)[step].value == 3
            executor.__exit__(None, None, None)

        assert in_fork(child) == 0
        assert numbers(executor, "after") == expected("after")


def test_fork_in_the_middle_of_a_stream_cannot_continue_it():
    with bf.Processes(workers=2) as warm:
        stream = bf.stream_batches(
            lambda x: x, bf.records(range(40)), per="record", chunk=1, executor=warm, progress=False
        )
        first = next(stream).to_pylist()

        def child():
            with pytest.raises(bf.errors.ExecutorError, match="forked while the job ran"):
                list(stream)
            assert numbers(warm, "child") == expected("child")

        assert in_fork(child) == 0
        assert first + [row for table in stream for row in table.to_pylist()] == [{"value": x} for x in range(40)]


def test_close_with_a_fork_that_holds_the_sockets_returns():
    reader, writer = os.pipe()
    with bf.Processes(workers=1) as warm:
        assert numbers(warm, "x") == expected("x")
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            signal.alarm(SECONDS)
            os.read(reader, 1)
            os._exit(0)
    os.close(writer)
    os.close(reader)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("child", ["fork", "subprocess"])
def test_killed_driver_with_a_living_child_leaves_no_worker(script, tmp_path, child):
    """The driver is killed in the middle of its job by its own worker, while a child of the driver sleeps."""
    code = f"""
    import os, signal, subprocess, sys, time
    from pathlib import Path
    import batchflow as bf

    def work(x, driver):
        Path("pids").write_text(f"{{os.getpid()}} {{os.getppid()}}")
        os.kill(driver, signal.SIGKILL)
        time.sleep({SECONDS})

    with bf.Processes(workers=1) as warm:
        bf.map_records(abs, bf.records([-1]), executor=warm, progress=False)
        if {child!r} == "fork":
            child = os.fork()
            if child == 0:
                os.close(1), os.close(2)
                time.sleep({SECONDS})
                os._exit(0)
        else:
            child = subprocess.Popen(["sleep", "{SECONDS}"], close_fds=False, stdout=-3, stderr=-3).pid
        Path("child").write_text(str(child))
        bf.map_records(work, bf.records([1]), args={{"driver": os.getpid()}}, executor=warm, progress=False)
    """
    assert script(code, check=False).returncode == -signal.SIGKILL
    pids = [int(pid) for pid in Path(tmp_path, "pids").read_text().split()]
    sleeper = psutil.Process(int(Path(tmp_path, "child").read_text()))
    try:
        until = time.monotonic() + SECONDS / 2
        while any(map(_lives, pids)) and time.monotonic() < until:
            time.sleep(0.01)
        assert not any(map(_lives, pids))
        assert sleeper.is_running()
    finally:
        sleeper.kill()


def _lives(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def in_threads(*acts):
    """Do something in each of several threads at once, and return what came of each."""
    found = [None] * len(acts)

    def run(at):
        try:
            found[at] = acts[at]()
        except Exception as error:
            found[at] = error

    threads = [threading.Thread(target=run, args=(at,), daemon=True) for at in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    return found


def test_one_warm_executor_serves_jobs_of_many_threads(executor):
    acts = [lambda at=at: [numbers(executor, f"{at}-"), numbers(executor, f"{at}+")] for at in range(3)]
    assert in_threads(*acts) == [[expected(f"{at}-"), expected(f"{at}+")] for at in range(3)]


def test_stream_of_another_thread_refuses_a_job_in_one_sentence():
    with bf.Processes(workers=1) as warm:
        stream = bf.stream_batches(
            lambda x: x, bf.records(range(9)), per="record", chunk=1, executor=warm, progress=False
        )
        next(stream)
        (error,) = in_threads(lambda: numbers(warm, "x"))
        assert isinstance(error, bf.errors.ExecutorError)
        assert "another thread reads a stream" in str(error)
        assert numbers(warm, "own") == expected("own")
        stream.close()
        assert in_threads(lambda: numbers(warm, "x")) == [expected("x")]


def test_first_jobs_of_a_process_in_several_threads_all_run(script):
    code = """
    import threading
    import batchflow as bf

    found = []

    def job(n):
        found.append(bf.map_records(lambda x: x * n, bf.records([1, 2, 3]), progress=False).values)

    threads = [threading.Thread(target=job, args=(n,)) for n in range(1, 5)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print(sorted(found))
    """
    for _ in range(2):
        assert script(code).stdout == "[[1, 2, 3], [2, 4, 6], [3, 6, 9], [4, 8, 12]]\n"


def test_workers_say_goodbye_when_their_executor_closes(script):
    code = """
    import atexit, os
    from pathlib import Path
    import batchflow as bf

    def setup():
        atexit.register(lambda: Path(f"bye-{os.getpid()}").touch())
        return open(f"out-{os.getpid()}", "w")

    def work(x, file):
        file.write(f"{x}\\n")

    bf.map_records(work, bf.records(range(100)), setup=setup, executor="processes", progress=False, chunk=5)
    lines = [line for path in Path().glob("out-*") for line in path.read_text().split()]
    print(sorted(map(int, lines)) == list(range(100)), len(list(Path().glob("bye-*"))) == len(list(Path().glob("out-*"))))
    """
    assert script(code).stdout == "True True\n"


@pytest.mark.cluster
def test_fork_of_a_process_with_ray_is_refused_in_one_sentence(script):
    code = """
    import os, signal
    import batchflow as bf

    def numbers(executor):
        return bf.map_records(lambda x: x + 1, bf.records(range(3)), executor=executor, progress=False).values

    with bf.Ray() as warm:
        assert numbers(warm) == [1, 2, 3]
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)
            try:
                numbers(warm)
            except bf.errors.ExecutorError as error:
                print(error, numbers(None), flush=True)
            warm.close()
            os._exit(0)
        os.waitpid(pid, 0)
        print(numbers(warm))
    """
    sentence, numbers = script(code).stdout.splitlines()
    assert sentence.startswith("this process was forked from one that uses Ray")
    assert (sentence[-9:], numbers) == ("[1, 2, 3]", "[1, 2, 3]")
