"""In the kernel of a real notebook: the line of progress, what tasks print, and a result that shows itself."""

import re

import pytest
from jupyter_client.manager import KernelManager

pytestmark = pytest.mark.filterwarnings("default")  # of the client's own


class Cell:
    """What the notebook was sent while a cell ran: widgets by their last state, texts, and what the cell gave."""

    def __init__(self, client, code):
        self.widgets, self.texts, self.shown = {}, {"stdout": "", "stderr": ""}, ""
        client.execute_interactive(code, timeout=60, output_hook=self._hear)

    def _hear(self, message):
        kind, content = message["msg_type"], message["content"]
        if kind in ("comm_open", "comm_msg"):
            state = content["data"].get("state", {})
            self.widgets.setdefault(content["comm_id"], {}).update(state)
        elif kind == "stream":
            self.texts[content["name"]] += content["text"]
        elif kind == "execute_result":
            self.shown = content["data"].get("text/html", "")
        assert kind != "error", "\n".join(content["traceback"])

    def line(self):
        """Return what stands left and right of the bar, and how full that is."""
        [bar] = [state for state in self.widgets.values() if state.get("_model_name") == "FloatProgressModel"]
        texts = [
            state["value"].replace("\N{FIGURE SPACE}", " ")
            for state in self.widgets.values()
            if state.get("_model_name") == "HTMLModel"
        ]
        return texts, bar["value"] / bar["max"], bar["bar_style"]


@pytest.fixture(scope="module")
def run():
    """Return what runs a cell in a kernel."""
    manager = KernelManager(kernel_name="python3", transport="ipc")
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    Cell(client, "import sys, batchflow as bf\ndef double(n):\n    print('at', n)\n    return 2 * n\n")
    yield lambda code: Cell(client, code)
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_a_line_of_widgets_and_a_result_that_shows_itself(run, executor):
    cell = run(f"bf.map_records(double, bf.records(range(3)), executor={executor!r}, chunk=1)")
    texts, full, style = cell.line()
    assert (full, style) == (1.0, "success")
    assert [text for text in texts if "100%" in text]
    assert [text for text in texts if re.search(r" 3/3 records \[00:0\d, [\d.,]+/s\]", text)]
    assert sorted(cell.texts["stderr"].splitlines()) == [f"[records {n}:{n + 1}] at {n}" for n in range(3)]
    assert re.findall(r'<td class="bf-number">(\d)</td>', cell.shown) == ["0", "2", "4"]


def test_progress_can_be_left_out(run):
    cell = run("bf.map_records(len, bf.records(['a']), executor='serial', progress=False).values[0]")
    assert (cell.widgets, cell.texts) == ({}, {"stdout": "", "stderr": ""})


def test_without_widgets_it_is_a_line_of_text(run):
    run(
        "hidden = sys.modules.pop('ipywidgets', None); sys.modules['ipywidgets'] = None\n"
        "for name in [name for name in sys.modules if name.startswith('tqdm')]: del sys.modules[name]"
    )
    cell = run("bf.map_records(len, bf.records(['a', 'bc']), executor='serial').values")
    assert cell.widgets == {}
    assert re.fullmatch(r"100% 2/2 records \[00:0\d, [\d.,]+/s\]\n", cell.texts["stderr"])


def test_without_widgets_there_are_few_lines_and_no_control_characters(run):
    run(
        "import sys; sys.modules['ipywidgets'] = None\nfrom batchflow.reporting.progress import terminal as screen; screen.CELL_SECONDS = 0.001"
    )
    cell = run("bf.map_records(double, bf.records(range(2000)), executor='serial', chunk=1).values[-1]")
    printed, shown = [], []
    for line in cell.texts["stderr"].splitlines():
        (printed if line.startswith("[records") else shown).append(line)
    assert len(printed) == 2000
    assert 2 <= len(shown) < 16
    assert shown[-1].startswith("100% 2,000/2,000 records [")
    assert all(line.isprintable() for line in shown)
