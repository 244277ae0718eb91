"""What tasks print: kept, tagged with the chunk, whole lines, the same on every executor."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
import warnings

import pytest
from seen import seen

import batchflow as bf
from batchflow.events import Printed


@pytest.fixture
def heard():
    """Listen to what is printed: pairs of place and lines."""

    class Heard(list):
        def __call__(self, event):
            if isinstance(event, Printed):
                self.append((event.place, list(event.lines)))

    return Heard()


def run(fn, source, **options):
    return bf.Job(fn, source, progress=False, **options).run()


def lines(path, count):
    path.write_text("".join(f"{number}\n" for number in range(count)))
    return bf.read_text(str(path))


def test_each_line_is_told_with_its_chunk(executor, tmp_path, heard, capfd):
    def fn(line):
        if int(line) % 2:
            print("odd", line)
            print("to stderr", line, file=sys.stderr)
        return line

    path = tmp_path / "in.txt"
    into = tmp_path / "out"
    result = run(fn, lines(path, 6), into=f"{into}/", executor=executor, chunk="4B", listeners=[heard])
    assert result.values == list("012345")
    expected = [
        (f"{path} {4 * at}:{4 * at + 4}", [f"odd {2 * at + 1}", f"to stderr {2 * at + 1}"]) for at in range(3)
    ]
    assert sorted(heard) == expected
    shown = capfd.readouterr()
    told = [f"[{place}] {line}" for place, printed in heard for line in printed]
    assert (shown.out, shown.err.splitlines()) == ("", told)
    assert (tmp_path / ".out_batchflow/output.log").read_text().splitlines() == told


def test_a_job_that_goes_on_appends_to_the_log(tmp_path, executor, heard):
    path = tmp_path / "in"
    path.mkdir()
    lines(path / "a.txt", 2)
    for _ in range(2):
        run(_shout, bf.read_text(str(path)), into=f"{tmp_path}/out/", executor=executor, chunk="1MB")
        lines(path / "b.txt", 1)
    log = (tmp_path / ".out_batchflow" / "output.log").read_text().splitlines()
    assert log == [f"[{path}/a.txt] shout 0", f"[{path}/a.txt] shout 1", f"[{path}/b.txt] shout 0"]
    run(_shout, bf.read_text(str(path)), into=f"{tmp_path}/out/", executor=executor, chunk="1MB", fresh=True)
    assert len((tmp_path / ".out_batchflow" / "output.log").read_text().splitlines()) == 3


def _shout(line):
    print("shout", line)
    return line


def test_a_job_that_prints_nothing_has_no_log(tmp_path, executor, heard):
    run(len, lines(tmp_path / "a.txt", 9), into=f"{tmp_path}/out/", executor=executor, listeners=[heard])
    assert heard == []
    assert not (tmp_path / ".out_batchflow" / "output.log").exists()


def test_lines_are_whole_whoever_writes_them(executor, heard):
    """Ends that come later, or never; bars that are drawn again; bytes; characters that cannot be encoded."""

    def fn(x):
        print("a", end="")
        sys.stdout.flush()
        print("b")
        print("one\ntwo\n\nfour")
        sys.stderr.write("  0%\r 50%")
        sys.stderr.write("\r100%\n")
        print("from Windows\r")
        sys.stdout.buffer.write("grüße\n".encode())
        sys.stdout.writelines(["\ud800\n"])
        print("no end", end="")
        return x

    run(fn, bf.records([1]), executor=executor, listeners=[heard])
    told = ["ab", "one", "two", "", "four", "100%", "from Windows", "grüße", "\\ud800", "no end"]
    assert heard == [("records", told)]


def test_lines_of_threads_and_of_calls_that_wait_do_not_mix(executor, heard):
    barrier = {}

    def fn(x):
        gate = barrier.setdefault("gate", threading.Barrier(2))

        def say(name):
            for part in range(3):
                gate.wait()
                print(name, part, end=" ")
            print()

        threads = [threading.Thread(target=say, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return x

    async def waits(x):
        await asyncio.sleep(0)
        print("waits", x)
        return x

    run(fn, bf.records([1]), executor=executor, listeners=[heard])
    ((_, told),) = heard
    assert sorted(told) == ["a 0 a 1 a 2 ", "b 0 b 1 b 2 "]
    heard.clear()
    run(waits, bf.records(range(3)), executor=executor, listeners=[heard], chunk=3)
    run(_shout, bf.records(range(3)), executor=executor, listeners=[heard], chunk=3, concurrency=3)
    assert [(place, sorted(told)) for place, told in heard] == [
        ("records", [f"waits {x}" for x in range(3)]),
        ("records", [f"shout {x}" for x in range(3)]),
    ]


def test_what_is_too_much_is_cut_and_told(executor, heard):
    def fn(x):
        for number in range(20_000):
            print(f"line {number:05d}")
        return x

    run(fn, bf.records([1]), executor=executor, listeners=[heard])
    ((_, told),) = heard
    kept = (64 << 10) // 11
    assert told == [
        *(f"line {number:05d}" for number in range(kept)),
        f"(and {20_000 - kept:,} lines more, which are too much)",
    ]


@pytest.mark.filterwarnings("default")  # workers filter as the driver does
def test_loggers_warnings_and_tracebacks_of_threads_are_told_too(remote, heard, tmp_path, monkeypatch):
    module = tmp_path / "chatty_module.py"
    module.write_text(
        "import logging, sys, threading, warnings\n"
        "logger = logging.getLogger('chatty')\n"
        "logger.addHandler(logging.StreamHandler())\n"  # holds the stream of now
        "out = sys.stdout\n"
        "def fn(x):\n"
        "    logger.warning('logged %s', x)\n"
        "    print('to the stream of then', x, file=out)\n"
        "    warnings.warn('careful', stacklevel=1)\n"
        "    thread = threading.Thread(target=lambda: 1 / 0)\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "    return x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import chatty_module

    run(chatty_module.fn, bf.records([1]), executor=remote, listeners=[heard], chunk=1)
    told = [line for _, printed in heard for line in printed]
    assert told[:2] == ["logged 1", "to the stream of then 1"]
    assert any(line.endswith("UserWarning: careful") for line in told[2:])
    assert told[-1] == "ZeroDivisionError: division by zero"


def test_the_root_logger_is_heard_in_serial(heard, monkeypatch):
    handler = logging.StreamHandler()
    monkeypatch.setattr(logging.root, "handlers", [handler])
    before = handler.stream

    def fn(x):
        logging.getLogger("plain").warning("logged %s", x)
        return x

    run(fn, bf.records([1]), executor="serial", listeners=[heard])
    assert heard == [("records", ["logged 1"])]
    assert handler.stream is before


def test_what_a_worker_printed_before_it_died_is_told(heard):
    def fn(x):
        print("at", x)
        if x == 2:
            print("without an end", end="")
            os._exit(3)
        return x

    with bf.Processes(1) as executor:
        result = run(fn, bf.records(range(4)), executor=executor, chunk=4, listeners=[heard])
    assert seen(result).values == [0, 1, 3]
    assert heard[0] == ("records", ["at 0", "at 1", "at 2"])
    assert ("records 2:3, try 3", ["at 2"]) in heard


def test_a_task_that_fails_tells_what_it_printed(executor, heard):
    def fn(table):
        print("before", table.num_rows)
        raise ValueError

    result = run(fn, bf.records(range(2)), per="batch", executor=executor, chunk=2, listeners=[heard])
    assert result.errors.num_rows == 2
    assert heard == [("records", ["before 2", "before 1", "before 1"])]


def test_parts_of_a_file_that_is_not_cut_are_told_by_their_records(executor, heard, tmp_path):
    def fn(table):
        print(table.num_rows)
        if table.num_rows > 1:
            raise ValueError

    path = tmp_path / "a.txt"
    paced = {"rate": "9999/s"}  # calls that wait for their turn are halved by the scheduler
    run(fn, lines(path, 5), per="batch", executor=executor, chunk="1MB", listeners=[heard], **paced)
    assert sorted(heard) == [
        (f"{path}", ["5"]),
        (f"{path} record 1, try 3", ["1"]),
        (f"{path} record 2, try 3", ["1"]),
        (f"{path} record 3, try 3", ["1"]),
        (f"{path} record 4, try 4", ["1"]),
        (f"{path} record 5, try 4", ["1"]),
        (f"{path} records 1-2, try 2", ["2"]),
        (f"{path} records 3-5, try 2", ["3"]),
        (f"{path} records 4-5, try 3", ["2"]),
    ]


def test_setup_and_combine_are_heard(executor, heard):
    def setup():
        print("set up")

    def combine(table):
        print("combined", table.num_rows)
        return table

    run(
        lambda x, _: x,
        bf.records(range(2)),
        setup=setup,
        combine=combine,
        executor=executor,
        chunk=2,
        listeners=[heard],
    )
    assert heard == [("records", ["set up", "combined 2"]), ("combine", ["combined 2"])]


def test_steps_of_a_flow_are_heard(executor, heard, capfd):
    def say(x):
        print("said", x)
        return x

    flow = bf.Flow()
    one = flow.step(say, 1, name="one")
    flow.map_records(say, bf.records([5]), name="all")
    flow.step(say, one, name="three")
    run = flow.run(executor=executor, listeners=[heard], progress=False)
    assert run.ok
    assert sorted(heard) == [("one", ["said 1"]), ("records", ["said 5"]), ("three", ["said 1"])]
    shown = capfd.readouterr()
    assert shown.out == ""
    assert sorted(shown.err.splitlines()) == ["[all: records] said 5", "[one] said 1", "[three] said 1"]


def test_a_try_of_a_step_is_told_as_such(executor, heard, tmp_path):
    def fails_once():
        print("tries")
        if not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch()
            raise OSError

    flow = bf.Flow()
    flow.step(fails_once, name="once", retry=bf.Retry(2, backoff=0))
    assert flow.run(executor=executor, listeners=[heard]).ok
    assert heard == [("once", ["tries"]), ("once, try 2", ["tries"])]


def test_stdout_of_the_command_line_has_rows_only(tmp_path):
    (tmp_path / "steps.py").write_text("def clean(line):\n    print('noise', line)\n    return {'x': int(line)}\n")
    lines(tmp_path / "in.txt", 3)
    for executor in ("serial", "processes"):
        command = [
            sys.executable,
            "-m",
            "batchflow.cli",
            "run",
            "steps.py:clean",
            "in.txt",
            "--executor",
            executor,
            "--quiet",
            "--chunk",
            "1MB",
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout == '{"x":0}\n{"x":1}\n{"x":2}\n'
        assert done.stderr == "".join(f"[in.txt] noise {x}\n" for x in range(3))


def test_what_a_terminal_would_obey_is_shown_and_kept_as_it_is(tmp_path, executor, capfd):
    def fn(line):
        print("\x1b[31mred\tend")
        return line

    run(fn, lines(tmp_path / "in.txt", 1), into=f"{tmp_path}/out/", executor=executor, chunk="1MB")
    line = f"[{tmp_path}/in.txt] \x1b[31mred\tend"
    assert capfd.readouterr().err == line.expandtabs().replace("\x1b", "\\x1b") + "\n"
    assert (tmp_path / ".out_batchflow/output.log").read_text() == f"{line}\n"


def test_the_streams_of_the_driver_are_its_own_again(heard, capsys):
    before = sys.stdout, sys.stderr
    run(_shout, bf.records([1]), executor="serial", listeners=[heard])
    assert (sys.stdout, sys.stderr) == before
    with pytest.raises(KeyboardInterrupt):
        run(_interrupted, bf.records([1]), executor="serial", listeners=[heard])
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().err.splitlines() == ["[records] shout 1", "about to be interrupted"]


def _interrupted(x):
    print("about to be interrupted")
    raise KeyboardInterrupt


def test_c_code_and_children_write_where_the_worker_does(capfd):
    def fn(x):
        os.write(1, b"bytes of C code\n")
        subprocess.run(["echo", "of a child"], check=True)
        subprocess.run(["echo", "of a child with our stream"], check=True, stdout=sys.stderr)
        return x

    with bf.Processes(1) as executor:
        run(fn, bf.records([1]), executor=executor)
    shown = capfd.readouterr()
    assert shown.out == "bytes of C code\nof a child\n"
    assert shown.err == "of a child with our stream\n"


def test_a_fork_of_the_function_prints_where_the_worker_does(capfd, heard):
    def fn(x):
        pid = os.fork()
        if pid == 0:
            print("from the child", flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        print("from the parent")
        return x

    with bf.Processes(1) as executor, warnings.catch_warnings():
        run(fn, bf.records([1]), executor=executor, listeners=[heard])
    assert heard == [("records", ["from the parent"])]
    assert capfd.readouterr().out == "from the child\n"


def test_what_a_thread_prints_after_its_task_comes_with_the_next_one(heard, tmp_path):
    def fn(folder):
        def later():
            while not os.path.exists(f"{folder}/go"):
                time.sleep(0.001)
            print("late")
            os.unlink(f"{folder}/go")

        threading.Thread(target=later).start()

    def wait(folder):
        open(f"{folder}/go", "w").close()
        while os.path.exists(f"{folder}/go"):
            time.sleep(0.001)
        print("next")

    with bf.Processes(1) as executor:
        for each in (fn, wait):
            run(each, bf.records([str(tmp_path)]), executor=executor, listeners=[heard])
    assert heard == [("records", ["late", "next"])]
