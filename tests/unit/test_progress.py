"""What a real terminal shows of jobs and flows: in the middle, at the end, and whatever ends them."""

import os
import re
import subprocess
import sys

import pytest
from terminal import Terminal

import batchflow as bf
from batchflow.errors import StoppedError, UsageError
from batchflow.events import JobEnded, JobStarted, Waited
from batchflow.reporting.progress import terminal as screen
from batchflow.reporting.progress.counters import ProgressLine
from batchflow.reporting.progress.listener import Progress

PRELUDE = """
import os, sys
import batchflow as bf, batchflow.reporting.progress.listener as progress
progress.DRAW_SECONDS = progress.STEP_SECONDS = 0
GATES = {gates!r}
def gate(name):
    with open(os.path.join(GATES, str(name))) as fifo:   # until the test opens its end
        fifo.read()
"""


class Gates:
    """Where functions in a terminal wait for the test."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, code):
        return PRELUDE.format(gates=str(self.folder)) + code

    def make(self, *names):
        for name in names:
            os.mkfifo(self.folder / str(name))

    def open(self, name):
        (self.folder / str(name)).write_text("")


@pytest.fixture
def gates(tmp_path):
    (tmp_path / "gates").mkdir()
    return Gates(tmp_path / "gates")


def timeless(text):
    """Return text without what depends on how fast this machine is."""
    text = re.sub(r"\d\d:\d\d(<(\d\d:\d\d|\?))?", "T", text)
    return re.sub(r", [\d,.]+( [kM]?B)?/s", "", re.sub(r"\|[^|]*\|", "|", text))


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_a_job_in_the_middle_and_at_its_end(gates, executor):
    code = gates(f"""
def fn(x):
    if x == 6:
        gate("six")
    if x % 4 == 1:
        raise ValueError
    return x
with bf.Processes(1) as one:
    executor = one if {executor!r} == "processes" else "serial"
    result = bf.map_records(fn, bf.records(range(10)), chunk=1, executor=executor)
print(len(result.errors), "errors,", len(result.values), "values")
""")
    gates.make("six")
    with Terminal(code, typed=False) as terminal:
        shown = terminal.until(lambda text: "6/10" in text and "2 failed" in text and "1/1 busy" in text)
        assert timeless(shown) == " 60%| 6/10 records [T, 2 failed, 1/1 busy]"
        assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, ", shown)
        gates.open("six")
        assert terminal.end() == 0
    assert timeless(terminal.text) == "100%| 10/10 records [T, 3 failed]\n3 errors, 7 values"
    assert terminal.text.splitlines()[0].count("█") > 40  # the bar fills the line


def test_bytes_are_shown_as_a_person_reads_them(gates, tmp_path):
    (tmp_path / "in.txt").write_text("x" * 99 + "\n" + "y" * 1900 + "\n")
    code = gates(f'bf.map_records(len, bf.read_text({str(tmp_path / "in.txt")!r}), executor="serial")')
    with Terminal(code, typed=False) as terminal:
        assert terminal.end() == 0
    assert timeless(terminal.text) == "100%| 2 kB/2 kB [T]"


def test_an_input_whose_end_nobody_knows_has_no_share(gates):
    code = gates("bf.map_records(lambda x: x, bf.records(x for x in range(10)), executor='serial', chunk=2)")
    with Terminal(code, typed=False) as terminal:
        assert terminal.end() == 0
    assert timeless(terminal.text) == "10 records [T]"


def test_a_run_that_goes_on_starts_where_the_one_before_stopped(gates, tmp_path):
    code = f"""
def fn(x):
    if x == 3:
        raise ValueError
    if x == 4:
        gate("four")
    return x
bf.map_records(fn, bf.records(range(10)), chunk=1, executor="serial", into={str(tmp_path / "out/")!r}, VERSION)
"""
    with pytest.raises(StoppedError):
        bf.map_records(
            _fails_at_3, bf.records(range(10)), chunk=1, executor="serial", into=f"{tmp_path}/out/", max_errors=0
        )
    gates.make("four")
    with Terminal(gates(code.replace("VERSION", "version='2'")), typed=False) as terminal:
        shown = terminal.until(lambda text: "busy" in text)
        assert timeless(shown).startswith(" 40%| 4/10 records [T, ")
        gates.open("four")
        assert terminal.end() == 0
    assert timeless(terminal.text) == "100%| 10/10 records [T, 1 failed]"


def _fails_at_3(x):
    if x == 3:
        raise ValueError
    return x


@pytest.mark.parametrize("columns", [12, 50])
def test_nothing_wraps_in_a_narrow_terminal(gates, columns):
    code = gates("""
print("begin")
def fn(x):
    if x == 2:
        gate("two")
    return x
flow = bf.Flow()
flow.map_records(fn, bf.records(range(4)), name="a name: {漢字漢字漢字} that is long, far too long for a terminal like this", chunk=1)
flow.run(executor=bf.Processes(1))
print("end")
""")
    gates.make("two")
    with Terminal(code, columns=columns, typed=False) as terminal:
        shown = terminal.until(lambda text: "  a name" in text)
        assert [line[:5] for line in shown.splitlines()] == ["begin", "  0%|", "  a n"]
        gates.open("two")
        assert terminal.end() == 0
    begin, line, end = terminal.text.splitlines()
    assert (begin, line[:5], end) == ("begin", "100%|", "end")


def test_a_flow_has_lines_for_its_running_steps_which_go(gates):
    code = gates("""
def held(name):
    gate(name)
    return name
def each(x):
    print("record", x)
    if x == 2:
        gate("two")
    return x
flow = bf.Flow("x")
one, two = flow.step(held, "one", name="first"), flow.step(held, "other", name="second")
flow.map_records(each, bf.records(range(4)), name="job", chunk=1, limits=bf.Resources(cpus=1))
flow.step(len, [one, two], name="last")
run = flow.run(executor=bf.Processes(3))
print(run["last"].value)
""")
    gates.make("one", "other", "two")
    with Terminal(code, typed=False) as terminal:
        below = ["  job:  50%| 2/4 records [T, 1/1 busy]", "  first: [T]", "  second: [T]"]
        shown = terminal.until(lambda text: timeless(text).splitlines()[-3:] == below)
        lines = timeless(shown).splitlines()
        assert [line for line in lines if line.startswith("[")] == [
            f"[job: records {x}:{x + 1}] record {x}" for x in range(2)
        ]
        assert lines[2].startswith("  0%| 0/4 steps [T, ")
        gates.open("one")
        terminal.until(lambda text: "1/4 steps" in text and "first" not in text)
        gates.open("two")
        terminal.until(lambda text: "2/4 steps" in text)
        assert timeless(terminal.until(lambda text: "  job" not in text)).splitlines()[-1] == "  second: [T]"
        gates.open("other")
        assert terminal.end() == 0
    assert timeless(terminal.text).splitlines()[4:] == ["100%| 4/4 steps [T]", "2"]
    assert [f"[job: records {x}:{x + 1}] record {x}" for x in range(4)] == sorted(terminal.text.splitlines()[:4])


def test_many_running_steps_share_a_few_lines(gates):
    names = [f"s{number}" for number in range(8)]
    code = gates(f"""
flow = bf.Flow()
for name in {names!r}:
    flow.step(gate, name, name=name, per_task=bf.Resources(cpus=0))
flow.run(executor=bf.Processes(8))
""")
    gates.make(*names)
    with Terminal(code, lines=20, typed=False) as terminal:
        shown = terminal.until(lambda text: "and 4 more" in text and text.count("\n") == 5)
        assert timeless(shown).splitlines()[1:] == [*(f"  s{number}: [T]" for number in range(4)), "  and 4 more:"]
        for name in names:
            gates.open(name)
        assert terminal.end() == 0
    assert timeless(terminal.text) == "100%| 8/8 steps [T]"


def test_steps_that_steps_return_count(gates):
    code = gates("""
def more():
    flow = bf.Flow()
    return [flow.step(int, x) for x in range(3)]
flow = bf.Flow()
flow.step(more)
flow.run(executor="serial")
""")
    with Terminal(code, typed=False) as terminal:
        assert terminal.end() == 0
    assert timeless(terminal.text) == "100%| 4/4 steps [T]"


def test_ctrl_c_leaves_the_terminal_clean(gates, tmp_path):
    code = gates(f"""
def fn(x):
    if x >= 1:
        gate(str(x))
    return x
try:
    bf.map_records(fn, bf.records(range(4)), chunk=1, executor=bf.Processes(1), into={str(tmp_path / "out/")!r})
except KeyboardInterrupt as error:
    print("stopped")
""")
    gates.make("1", "2")
    with Terminal(code, typed=False) as terminal:
        begun = terminal.until(lambda text: "1/4" in text)
        terminal.until(lambda text: text != begun)  # by now the next record waits beside the one that runs
        terminal.interrupt()
        terminal.until(lambda text: "finishing" in text)
        gates.open("1"), gates.open("2")
        terminal.until(lambda text: "stopped" in text)
        assert terminal.end() == 0
    lines = timeless(terminal.text).splitlines()
    assert lines[1] == "batchflow: finishing what is running, 10 s at most (Ctrl-C again stops at once)"
    assert lines[2].startswith(" 75%| 3/4 records [T")
    assert lines[3:] == ["stopped"]


def test_ctrl_c_of_a_flow_leaves_the_terminal_clean(gates):
    code = gates("""
flow = bf.Flow()
for name in "ab":
    flow.step(gate, name, name=name)
try:
    flow.run(executor=bf.Processes(2))
except KeyboardInterrupt:
    print("stopped")
""")
    gates.make("a", "b")
    with Terminal(code, typed=False) as terminal:
        terminal.until(lambda text: "  a: " in text and "  b: " in text)
        terminal.interrupt()
        terminal.until(lambda text: "finishing" in text and "  b: " in text)
        gates.open("a"), gates.open("b")
        assert terminal.end() == 0
    lines = timeless(terminal.text).splitlines()
    assert lines[1].startswith("batchflow: finishing")
    assert lines[2:] == ["100%| 2/2 steps [T]"]


def test_a_job_that_stops_finishes_its_line(gates):
    code = gates("""
def fn(x):
    if x == 5:
        raise ValueError("no 5")
try:
    bf.map_records(fn, bf.records(range(10)), chunk=1, executor="serial", max_errors=0)
except bf.errors.StoppedError:
    print("stopped")
""")
    with Terminal(code, typed=False) as terminal:
        assert terminal.end() == 0
    assert timeless(terminal.text) == " 60%| 6/10 records [T, 1 failed]\nstopped"


def test_lines_of_other_bars_of_the_program_stay_whole(gates):
    code = gates("""
from tqdm import tqdm
for turn in tqdm(range(2), desc="outer", bar_format="{desc} {n}"):
    bf.map_records(print, bf.records([turn]), executor="serial")
""")
    with Terminal(code, typed=False) as terminal:
        assert terminal.end() == 0
    assert terminal.text == "[records] 0\n[records] 1\nouter 2"


QUIET = "bf.map_records(lambda x: x, bf.records(range(3)), executor='serial', chunk=1{})\nassert 'tqdm' not in sys.modules"


@pytest.mark.parametrize(
    ("argument", "environment"),
    [(", progress=False", {}), ("", {"BATCHFLOW_PROGRESS": "off"}), ("", {"TQDM_DISABLE": "1"})],
)
def test_off_with_one_word(gates, argument, environment):
    with Terminal(gates(QUIET.format(argument)), typed=False, **environment) as terminal:
        assert terminal.end() == 0
    assert terminal.raw == b""


def test_quiet_on_the_command_line(tmp_path):
    (tmp_path / "in.txt").write_text("a\n")
    command = [
        sys.executable,
        "-m",
        "batchflow.cli",
        "run",
        "builtins:len",
        str(tmp_path / "in.txt"),
        "--executor",
        "serial",
    ]
    with Terminal([*command, "--quiet"], typed=False, out=subprocess.DEVNULL) as terminal:
        assert (terminal.end(), terminal.raw) == (0, b"")
    with Terminal(command, typed=False, out=subprocess.DEVNULL) as terminal:
        assert terminal.end() == 0
    assert timeless(terminal.text).startswith("100%| 2 B/2 B [T]\n1 record in")


def test_a_word_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("BATCHFLOW_PROGRESS", "loud")
    with pytest.raises(UsageError, match="BATCHFLOW_PROGRESS='loud' must be 'off' or 'lines'"):
        bf.map_records(len, bf.records([]), executor="serial")
    assert bf.map_records(len, bf.records(["a"]), executor="serial", progress=False).values == [1]


def test_no_terminal_means_a_line_every_ten_seconds(monkeypatch, capsys):
    now = [50.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = Progress()
    progress(JobStarted("records", 1000, "processes", 2))
    for _ in range(100):
        now[0] += 0.33
        progress(Waited())
    progress(JobEnded(complete=True))
    shown = [f"{screen.MARK}0% 0/1,000 records [00:{second}<?, 0/2 busy]" for second in ("10", "20", "30")]
    assert capsys.readouterr().err.splitlines() == shown


def test_a_log_does_not_grow_with_how_long_a_job_takes(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = Progress()
    progress(JobStarted("records", 1000, "processes", 2))
    for _ in range(3 * 24 * 60):
        now[0] += 60
        progress(Waited())
    assert 300 < len(capsys.readouterr().err.splitlines()) < 700


def test_a_debugger_talks_to_the_terminal(gates):
    """In `Serial`, where the input is a terminal; what the function prints comes at once, and not on the line."""
    code = gates("""
def fn(x):
    print("at", x)
    if x == 2:
        breakpoint()
    return x
print(sum(bf.map_records(fn, bf.records(range(4)), executor="serial", chunk=1).values))
""")
    with Terminal(code) as terminal:
        terminal.until(lambda text: "(Pdb)" in text)
        terminal.type("p x * 21\n")
        terminal.until(lambda text: "42" in text)
        terminal.type("c\n")
        assert terminal.end() == 0
    lines = [line for line in timeless(terminal.text).splitlines() if "(Pdb)" not in line]
    assert lines[:3] == ["at 0", "at 1", "at 2"]
    assert "42" in lines
    assert lines[-3:] == ["at 3", "100%| 4/4 records [T]", "6"]


def test_a_terminal_that_is_gone_does_not_end_the_job(gates, tmp_path):
    code = gates(f"""
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
def fn(x):
    if x == 1:
        gate("one")
    print("line", x)
    return x
result = bf.map_records(fn, bf.records(range(4)), chunk=1, executor=bf.Processes(1))
open({str(tmp_path / "done")!r}, "w").write(str(result.values))
""")
    gates.make("one")
    with Terminal(code, typed=False) as terminal:
        terminal.until(lambda text: "1/4" in text)
        terminal.hang_up()
        gates.open("one")
        terminal.process.wait(30)
    assert (tmp_path / "done").read_text() == "[0, 1, 2, 3]"


@pytest.mark.parametrize("failed", [0, 2])
def test_bar_of_a_notebook_is_green_only_without_failures(failed):
    styles = []

    class Bar:
        n = total = 0

        def close(self):
            styles.append("success")

        def disp(self, bar_style, check_delay):
            styles.append(bar_style)

    terminal = screen.TerminalDisplay()
    terminal._bar = Bar()
    terminal.draw = lambda line, rows: None
    terminal.close(ProgressLine("4/4 records", 4, 4, failed))
    assert styles[-1] == ("danger" if failed else "success")
