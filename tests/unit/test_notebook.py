"""What a notebook shows: the first rows and errors, escaped and bounded, whatever is in them."""

import re
import shutil
from html.parser import HTMLParser

import pytest

import batchflow as bf

HOSTILE = "</td></table></svg></style><script>alert('1')</script><img src=x onerror=alert(2)>\x1b[31m\u202e"
KNOWN = {
    "div",
    "style",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "svg",
    "title",
    "defs",
    "marker",
    "path",
    "rect",
    "text",
    "g",
}


class Page(HTMLParser):
    """Reads HTML as a browser does; whatever is neither of ours nor closed is a fault."""

    def __init__(self, html):
        super().__init__()
        self.open, self.cells, self.texts, self.captions = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []
        assert html.isascii() or not re.search("[\x00-\x08\x1b\u202a-\u202e]", html)

    def handle_starttag(self, tag, attributes):
        assert tag in KNOWN
        assert not [name for name, value in attributes if name.startswith("on") or "script" in (value or "")]
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attributes):
        assert tag in KNOWN

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        inside = self.open[-1]
        if inside in ("td", "th"):
            self.cells[-1] += data
        (self.captions if inside == "caption" else self.texts).append(data)


def shown(value):
    html = value._repr_html_()
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    return Page(html)


def test_a_result_in_memory():
    result = bf.map_records(
        lambda n: {"n": n, "square": n * n} if n < 12 else 1 / 0, bf.records(range(13)), executor="serial"
    )
    page = shown(result)
    assert page.captions == ["Report", "first 10 of 12 rows", "1 error"]
    assert "Result in memory" in page.texts
    at = page.cells.index("square") + 1
    assert page.cells[at : at + 20] == [str(part) for n in range(10) for part in (n, n * n)]
    assert page.cells[-5:] == ["records", "13", "call", "ZeroDivisionError", "division by zero"]
    assert page.cells[page.cells.index("records in") + 1] == "13"


@pytest.mark.parametrize("into", ["out/", "out.csv"])
def test_a_result_on_disk_and_one_that_is_gone(tmp_path, into):
    result = bf.map_records(lambda n: {"n": n}, bf.records(range(3)), into=f"{tmp_path}/{into}", executor="serial")
    page = shown(result)
    assert page.captions == ["Report", "3 rows"]
    assert page.cells[-4:] == ["n", "0", "1", "2"]
    shutil.rmtree(tmp_path / "out/", ignore_errors=True)
    (tmp_path / "out.csv").unlink(missing_ok=True)
    assert any(text.startswith("its 3 rows cannot be read") for text in shown(result).texts)


class Odd:
    def __init__(self, told):
        self.told = told

    def __repr__(self):
        if self.told is None:
            raise ValueError("no repr")
        return self.told


@pytest.mark.parametrize(
    "value",
    [
        HOSTILE,
        {HOSTILE: HOSTILE},
        [HOSTILE] * 5,
        {"a": {HOSTILE: [HOSTILE]}},
        HOSTILE.encode(),
        "\ud800",
        None,
        Odd(HOSTILE),
        Odd(None),
        {1: 2},
        float("nan"),
        10**400,
    ],
)
def test_hostile_values_are_text(value):
    shown(bf.map_records(lambda _: value, bf.records([1, 2]), executor="serial"))


def test_hostile_names_and_messages(tmp_path):
    def fail(_):
        raise type(HOSTILE.replace("\x1b", ""), (Exception,), {})(HOSTILE)

    page = shown(bf.map_records(fail, bf.records([1]), executor="serial"))
    assert page.captions[-1] == "1 error"
    flow = bf.Flow(HOSTILE)
    flow.map_records(fail, [1], name=HOSTILE)
    shown(flow)
    page = shown(flow.run(executor="serial", on_error="continue"))
    assert page.captions == ["1 error"]
    assert page.cells[6].startswith("</td></table>")


def test_the_page_stays_small():
    wide = {f"column {number}": "x" * 1000 for number in range(1000)}
    result = bf.map_records(lambda _: wide, bf.records(range(12)), executor="serial")
    html = result._repr_html_()
    assert "first 10 of 12 rows (980 more columns)" in html
    assert len(html) < 40_000
    nested = bf.map_records(lambda _: [list(range(100))] * 100, bf.records(range(12)), executor="serial")
    assert len(nested._repr_html_()) < 10_000


def test_a_flow_draws_itself():
    flow = bf.Flow("sum")
    total = flow.step(sum, [flow.step(abs, number, name=f"abs {number}") for number in (1, -2)], name="total")
    assert "total" in shown(flow).texts
    run = flow.run(executor="serial")
    assert run[total].value == 3
    page = shown(run)
    assert any(text.startswith("sum: 3 steps in ") for text in page.texts)
    assert page.captions == []


def test_a_report_that_did_not_end():
    report = bf.Report(rows_in=5, failed=5)
    assert shown(report).captions == ["Report of a run that did not come to its end"]
    page = shown(
        bf.Report(rows_in=5000, seconds=2.0, slots=2, executor="processes", task_seconds=3.0, complete=True)
    )
    assert page.cells[page.cells.index("workers") + 1] == "1.5 workers' worth on 2 (processes)"
    assert page.cells[page.cells.index("time") + 1] == "2.00 s, 2,500 records/s"
