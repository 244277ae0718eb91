"""The report as people see it, in a real browser: it draws itself, answers to mouse and keys, and stays harmless."""

import json
import time

import pytest
from told import Clock, ended, many, told

import batchflow as bf
from batchflow.events import JobStarted, SlotsChanged
from batchflow.reporting.html import page_of

pytestmark = pytest.mark.browser


def saved(tmp_path, values, name="report.html"):
    (tmp_path / name).write_text(page_of(values), encoding="utf-8")
    return tmp_path / name


def small():
    """Return two workers with three tasks, of which one is tried again, and a third one that died."""
    timeline = Clock()
    timeline(JobStarted("bytes", None, "processes", 2))
    timeline.now = 10.0
    timeline(ended("here:1", 0.0, 4.0, phases=(0, 1, 0, 0), at=1000))
    timeline(ended("here:1", 5.0, 5.0, phases=(0.5, 0.5, 0, 0), at=2000, attempt=2, failed=3))
    timeline(ended("here:2", 0.0, 10.0, phases=(0, 0, 1, 0), ok=False, source="logs/b.jsonl"))
    timeline.now = 6.0
    timeline(ended("here:3", ok=False, again=True, died=True))
    return told(timeline, seconds=10.0)


GUTTER, MARGIN = 108, 8


def at(page, seconds, row, total=10.0):
    """Return the place of a moment on the canvas."""
    width = page.script("return document.querySelector('canvas').clientWidth")
    return GUTTER + seconds / total * (width - GUTTER - MARGIN), 6 + 20 * row + 10


def test_a_real_job(page, tmp_path):
    def fn(n):
        if n % 10 == 7:
            raise ValueError(f"no {n}")
        return {"n": n}

    bf.map_records(fn, bf.records(range(100)), into=tmp_path / "out/", executor="processes", chunk=10)
    page.open(tmp_path / ".out_batchflow/report.html")
    assert page.script("return document.title").endswith("fn")
    assert page.texts("h2") == [
        "Where the time went",
        "Time line",
        "Over time",
        "Slowest chunks",
        "What failed",
        "Plan and environment",
    ]
    numbers = dict(zip(page.texts(".numbers dt"), page.texts(".numbers dd"), strict=True))
    assert numbers["records in"].split("\n")[0] == "100"
    assert numbers["failed"].split("\n") == ["10", "10 %"]
    assert page.texts("details.error summary") == ["10\nValueError in call · test_browser.py:46 in fn\nno 7"]
    page.all("details.error summary")[0].click()
    assert "ValueError: no 7" in page.texts("details.error pre")[1]
    assert len(page.all("svg.chart")) >= 3


def test_hovering_a_bar_tells_which_task_it_was(page, tmp_path):
    page.open(saved(tmp_path, small()))
    assert page.tip is None
    page.hover("canvas", *at(page, 2, 0))
    assert page.tip.splitlines() == [
        "logs/a.jsonl",
        "range\t1,000 to 2,000",
        "worker\there:1",
        "time\t4.00 s, from 0 s on",
        "phases\tcall 4.00 s",
        "records\t50 in, 50 rows out",
        "attempt\t1",
        "ended\tok",
    ]
    page.hover("canvas", *at(page, 9, 0))
    assert {"attempt\t2", "phases\tread 2.50 s, call 2.50 s", "ended\tsome records failed"} <= set(
        page.tip.splitlines()
    )
    page.hover("canvas", *at(page, 5, 1))
    assert page.tip.splitlines()[0] == "logs/b.jsonl"
    page.hover("canvas", *at(page, 6, 2))
    assert page.tip.splitlines()[0] == "died at logs/a.jsonl"
    page.hover("canvas", *at(page, 4.5, 0))
    assert page.tip is None


def test_tasks_that_isolate_a_record_have_a_colour_of_their_own(page, tmp_path):
    timeline = Clock()
    timeline(JobStarted("bytes", None, "processes", 1))
    timeline.now = 10.0
    timeline(ended("here:1", 0.0, 4.0))
    timeline(ended("here:1", 5.0, 4.0, attempt=2)._replace(isolating="record 3 of a.jsonl"))
    page.open(saved(tmp_path, told(timeline, seconds=10.0)))
    assert "isolating a record" in page.script("return document.querySelector('.legend').innerText")
    page.hover("canvas", *at(page, 7, 0))
    assert "isolation\tto find a record that failed" in page.tip.splitlines()


def test_the_other_drawings_tell_too(page, tmp_path):
    page.open(saved(tmp_path, small()))
    page.hover(".bar span:nth-child(2)", 5, 5)
    assert page.tip.startswith("call: ")
    page.hover("section[aria-label='Over time'] svg.chart", 200, 60)
    assert "records/s" in page.tip
    page.hover("svg.chart .column", 3, 3)
    assert page.tip.splitlines() == ["2 tasks", "took\t3.98 s to 6.31 s"]


def test_the_bars_are_drawn_in_the_colours_of_their_phases(page, tmp_path):
    for dark in (False, True):
        page.open(saved(tmp_path, small()), dark=dark)
        names = ("read", "call", "convert", "idle")
        style = "return arguments[0].map(name => { const probe = document.createElement('i'); probe.style.color = `var(--${name})`; document.body.append(probe); const colour = getComputedStyle(probe).color; probe.remove(); return colour.match(/\\d+/g).map(Number); })"
        read, call, convert, idle = page.script(style, list(names))
        assert page.pixel(*at(page, 2, 0))[:3] == call
        assert page.pixel(*at(page, 6, 0))[:3] == read
        assert page.pixel(*at(page, 9, 0))[:3] == call
        assert page.pixel(*at(page, 5, 1))[:3] == convert
        assert page.pixel(*at(page, 4.5, 0))[:3] == idle


def test_it_follows_the_theme_while_it_is_open(page, tmp_path):
    page.open(saved(tmp_path, small()))
    light = page.colour("body"), page.pixel(*at(page, 4.5, 0))
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    page.settle()
    assert light == ("rgba(255, 255, 255, 1)", [238, 241, 244, 255])
    assert (page.colour("body"), page.pixel(*at(page, 4.5, 0))) == ("rgba(13, 17, 23, 1)", [22, 27, 34, 255])


CONTRAST = """
const lum = text => { const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const probe = document.createElement("i"); document.body.append(probe);
const of = name => { probe.style.color = `var(--${name})`; return lum(getComputedStyle(probe).color); };
const ground = of("ground");
const result = Object.fromEntries(arguments[0].map(name => { const own = of(name); return [name, (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05)]; }));
probe.remove();
return result;
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_bars_stand_out_from_the_ground(page, tmp_path, dark):
    page.open(saved(tmp_path, small()), dark=dark)
    text = page.script(CONTRAST, ["text", "soft", "bad", "good", "strong"])
    assert min(text.values()) >= 4.5, text
    bars = page.script(CONTRAST, ["read", "call", "convert", "write", "other", "start", "cached"])
    assert min(bars.values()) >= 3, bars


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_has_to_be_scrolled_sideways(page, tmp_path, dark):
    path = "/very/long/" + "path" * 40 + "/x.jsonl"
    row = {
        "phase": "call",
        "error_type": "E" * 200,
        "message": "m" * 400,
        "traceback": "t" * 300,
        "payload": "p" * 300,
    }
    row |= {"source": path, "start": 0, "stop": 10**12, "record": 10**9, "attempts": 1, "worker": "w" * 90}
    values = small()
    values["plan"] = {**values["plan"], "function": "f" * 200, "first": [path], "output": path}
    values = {
        **values,
        "errors": {"groups": [{**row, "where": "x" * 90, "count": 10**7, "examples": [row]}], "others": 3},
    }
    page.open(saved(tmp_path, values), width=360, height=740, mobile=True, dark=dark)
    for details in page.all("summary"):
        details.click()
    assert page.script("return [document.documentElement.scrollWidth, innerWidth, visualViewport.scale]") == [
        360,
        360,
        1,
    ]
    assert (
        page.script(
            "return Math.max(...[...document.querySelectorAll('.numbers dd, canvas, svg.chart, summary')].map(one => one.getBoundingClientRect().right))"
        )
        <= 360
    )


def test_the_keyboard_goes_from_bar_to_bar(page, tmp_path):
    page.open(saved(tmp_path, small()))
    page.focus("canvas")
    page.press("ArrowRight")
    assert page.tip.splitlines()[:2] == ["logs/a.jsonl", "range\t1,000 to 2,000"]
    page.press("ArrowRight")
    assert page.tip.splitlines()[1] == "range\t2,000 to 3,000"
    page.press("ArrowDown")
    assert page.tip.splitlines()[0] == "logs/b.jsonl"
    page.press("ArrowUp", "ArrowLeft", "ArrowLeft")
    assert page.tip.splitlines()[1] == "range\t1,000 to 2,000"
    page.press("Escape")
    assert page.tip is None


def test_drawings_have_texts_in_their_place(page, tmp_path):
    page.open(saved(tmp_path, small()))
    labels = page.script(
        "return [...document.querySelectorAll('[role=img]')].map(one => one.getAttribute('aria-label'))"
    )
    assert all(labels)
    assert labels[0].startswith("read 1")
    assert labels[1] == "How many tasks took how long: 2 from 3.98 s, 1 from 10.0 s"
    assert labels[2] == "Time line of 3 workers, 3 tasks, 1 death. Arrow keys go from bar to bar."
    table = "[...document.querySelectorAll('details table tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    assert page.script(f"return {table}") == [
        ["here:1", "2", "9.00 s", "90 %", "0 s"],
        ["here:2", "1", "10.0 s", "100 %", "0 s"],
        ["here:3", "0", "0 s", "0 %", ""],
    ]


def test_tables_sort_by_what_is_clicked(page, tmp_path):
    page.open(saved(tmp_path, small()))
    column = "return [...document.querySelectorAll('section[aria-label=\"Slowest chunks\"] tbody tr')].map(row => row.cells[0].textContent)"
    assert page.script(column) == ["10.0 s", "5.00 s", "4.00 s"]
    page.all("section[aria-label='Slowest chunks'] th button")[0].click()
    page.all("section[aria-label='Slowest chunks'] th button")[0].click()
    assert page.script(column) == ["4.00 s", "5.00 s", "10.0 s"]


def test_dragging_looks_closer_and_a_double_click_shows_all(page, tmp_path):
    page.open(saved(tmp_path, small()))
    page.hover("canvas", *at(page, 5, 0))
    left, top = page.script(
        "const box = document.querySelector('canvas').getBoundingClientRect(); return [box.left, box.top]"
    )
    (x, y), (end, _) = at(page, 5, 0), at(page, 10, 0)
    page.mouse("mousePressed", left + x, top + y, button="left", clickCount=1)
    page.mouse("mouseMoved", left + end, top + y, button="left")
    page.mouse("mouseReleased", left + end, top + y, button="left", clickCount=1)
    page.hover("canvas", *at(page, 2, 0))  # a fifth of the way is second 6 by now
    assert page.tip.splitlines()[1] == "range\t2,000 to 3,000"
    for count in (1, 2):
        page.mouse("mousePressed", left + x, top + y, button="left", clickCount=count)
        page.mouse("mouseReleased", left + x, top + y, button="left", clickCount=count)
    page.hover("canvas", *at(page, 2, 0))
    assert page.tip.splitlines()[1] == "range\t1,000 to 2,000"


@pytest.mark.parametrize("workers", [32, 300])
def test_100_000_chunks_open_within_two_seconds(page, tmp_path, workers):
    path = saved(tmp_path, told(many(100_000, workers)))
    assert path.stat().st_size < 5_000_000
    began = time.perf_counter()
    page.open(path)
    assert time.perf_counter() - began < 2
    assert page.texts("section[aria-label='Time line'] p.note")[0].startswith(
        "Too many tasks to draw one by one: each column is "
    )


def test_a_column_of_very_many_tasks_tells_how_many_there_were(page, tmp_path):
    page.open(saved(tmp_path, told(many(100_000, 32))))
    page.hover("canvas", 500, 24)
    assert page.tip.splitlines()[1:4] == ["worker\there:1", "tasks\t26", "busy\t74 %"]


def test_thousands_of_bars_open_within_two_seconds(page, tmp_path):
    path = saved(tmp_path, told(many(4000, 200)))
    began = time.perf_counter()
    page.open(path)
    assert time.perf_counter() - began < 2


NASTY = [
    "</script><script>window.hurt = 1</script>",
    "<!--<script>",
    "<img src=x onerror='window.hurt = 1'>",
    "\u2028\u2029\ud800\x00",
    "\u202egnp.exe",
    "{{DATA}}{{SCRIPT}}",
    "__proto__",
    "&lt;b&gt;",
]


def test_what_is_hostile_is_only_shown(page, tmp_path):
    text = "".join(NASTY)
    timeline = Clock()
    timeline.now = 2.0
    for name in NASTY:
        timeline(ended(name, 0.5, 1.0, source=name, failed=1))
    timeline(ended(text, ok=False, again=True, died=True))
    row = dict.fromkeys(("source", "payload", "message", "traceback", "worker", "error_type", "phase"), text)
    values = told(
        timeline,
        [{**row, "start": None, "stop": None, "record": None, "attempts": 1}],
        logs=text,
        executor=text,
        advice=[text],
        time={text: 1.0, "call": 2.0},
    )
    values["plan"] = {name: text if isinstance(value, str) else value for name, value in values["plan"].items()}
    values["plan"] |= {"options": {text: text}, "first": [text]}
    page.open(saved(tmp_path, values))
    for details in page.all("summary"):
        details.click()
    page.hover("canvas", 600, 12)
    assert "window.hurt" in page.tip
    assert page.script(
        "return [window.hurt ?? null, document.querySelectorAll('script').length, document.images.length]"
    ) == [None, 2, 0]
    assert page.script("return document.querySelector('h1').textContent.includes(arguments[0])", NASTY[2])


def test_the_policy_keeps_scripts_of_others_and_the_network_out(page, tmp_path):
    page.open(saved(tmp_path, small()))
    page.script(
        "const one = document.createElement('script'); one.textContent = 'window.hurt = 1'; document.body.append(one)"
    )
    page.script("const one = new Image(); one.src = 'http://127.0.0.1:9/x.png'; document.body.append(one)")
    page.settle()
    assert page.script("return window.hurt ?? null") is None
    complaints = page.console()
    assert len(complaints) == 2
    assert all("Content Security Policy" in message for _, message in complaints)


def make_flow():
    flow = bf.Flow("sales <img src=x onerror='window.hurt = 1'>")
    fetched = [flow.step(list, range(20), name=f"fetch {name}") for name in ("north", "south")]
    jobs = [flow.map_records(lambda n: {"n": 6 // n}, rows, name=f"parse {at}") for at, rows in enumerate(fetched)]
    flow.step(lambda *tables: [table.num_rows for table in tables], *jobs, name="total")
    flow.step(lambda: {}["<script>window.hurt = 1</script>"], name="bad</script>")
    return flow


@pytest.mark.parametrize("dark", [False, True])
def test_a_flow(page, tmp_path, dark):
    make_flow().run(on_error="continue", executor="serial").save_report(tmp_path / "flow.html")
    page.open(tmp_path / "flow.html", dark=dark)
    assert page.texts("h2") == [
        "Graph",
        "What the time went into",
        "Time line",
        "Steps",
        "What failed",
        "Environment",
    ]
    assert (
        page.script("return document.querySelectorAll('.graph svg .bf-hot').length") >= 3
    )  # boxes, and lines between
    names = page.script(
        "return [...document.querySelectorAll('section[aria-label=Steps] tbody tr')].map(row => row.cells[0].textContent)"
    )
    assert sorted(names) == ["bad</script>", "fetch north", "fetch south", "parse 0", "parse 1", "total"]
    page.focus("canvas")
    page.press("ArrowRight")
    assert page.tip.splitlines()[0] in names
    assert page.script("return window.hurt ?? null") is None
    assert page.colour(".bf-ground", "fill") == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")


def test_a_flow_of_thousands_of_steps_opens_within_two_seconds(page, tmp_path):
    flow = bf.Flow("many")
    for number in range(5000):
        flow.step(divmod, 7, number - 10)
    flow.run(on_error="continue", executor="serial").save_report(tmp_path / "flow.html")
    began = time.perf_counter()
    page.open(tmp_path / "flow.html")
    assert time.perf_counter() - began < 2
    assert page.texts("section[aria-label=Steps] p.note") == ["The 4,000 that failed or took longest, of 5,000."]


def test_a_flow_on_a_phone(page, tmp_path):
    make_flow().run(on_error="continue", executor="serial").save_report(tmp_path / "flow.html")
    page.open(tmp_path / "flow.html", width=360, height=740, mobile=True)
    assert page.script("return [document.documentElement.scrollWidth, innerWidth]") == [360, 360]


def test_a_cluster_that_grew_shows_when(page, tmp_path):
    timeline = Clock()
    timeline(JobStarted("bytes", None, "ray", 2))
    timeline.now = 5.0
    timeline(SlotsChanged(6))
    timeline(ended("here:1", 0.0, 4.0))
    page.open(saved(tmp_path, told(timeline, seconds=10.0)))
    assert page.texts("section[aria-label='Over time'] h3")[-1] == "Tasks side by side at most"
    chart = "section[aria-label='Over time'] .two > div:last-child svg"
    width = page.all(chart)[0].size["width"]
    for at, slots in ((0.3, "2 slots"), (0.8, "6 slots")):
        page.hover(chart, at * width, 60)
        assert page.tip.splitlines()[0] == slots


def test_advice_and_the_parts_of_the_time_are_shown_as_the_report_has_them(page, tmp_path):
    page.open(
        saved(
            tmp_path,
            told(Clock(), seconds=10.0, time={"start": 1.0, "call": 6.0, "wait": 3.0}, advice=["chunks of 64 MB"]),
        )
    )
    cells = "return [...document.querySelectorAll('section[aria-label=\"Where the time went\"] tbody tr')].map(row => [...row.cells].slice(0, 3).map(cell => cell.textContent))"
    assert page.script(cells) == [
        ["start", "10 %", "1.00 s"],
        ["call", "60 %", "6.00 s"],
        ["wait", "30 %", "3.00 s"],
    ]
    assert page.texts(".advice li") == ["chunks of 64 MB"]


def test_an_empty_run_has_a_page_too(page, tmp_path):
    bf.map_records(len, bf.records([]), into=tmp_path / "out/", executor="serial")
    page.open(tmp_path / ".out_batchflow/report.html")
    assert json.loads((tmp_path / ".out_batchflow/report.json").read_bytes())["rows_in"] == 0
    assert "Plan and environment" in page.texts("h2")
