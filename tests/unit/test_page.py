"""The page as text: one file that loads nothing, and in which whatever comes from outside is data."""

import json
import re
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.builders.wheel import WheelBuilder
from told import Clock, ended, many, told

from batchflow.reporting.html import embedded, page_of

NASTY = [
    "</script><script>boom()</script>",
    "<!--<script>",
    "]]>",
    "\u2028\u2029",
    "\ud800",
    "\x00\x1b[31m",
    "&lt;&amp;",
    "{{DATA}}",
    "\U0001f600",
]


def data(page):
    (text,) = re.findall(r'<script type="application/json" id="told">(.*?)</script>', page, re.S)
    return text


@pytest.mark.parametrize("text", NASTY)
def test_whatever_a_name_or_a_message_says_stays_data(text):
    assert json.loads(embedded([text])) == [text]
    assert embedded([text]).isascii()
    assert not set("<>&") & set(embedded([text]))


def test_nothing_from_outside_becomes_markup():
    timeline = Clock()
    timeline(ended("".join(NASTY), source="".join(NASTY)))
    row = dict.fromkeys(("source", "payload", "message", "traceback", "worker"), "".join(NASTY))
    row |= {"phase": "call", "error_type": "".join(NASTY), "start": 0, "stop": 1, "record": 1, "attempts": 1}
    values = told(timeline, [row])
    values["plan"] = {**values["plan"], "function": "".join(NASTY)}
    plain = page_of(told(many(1)))
    page = page_of(values)
    assert page.isascii()
    assert len(re.findall("<[a-z!/]", page)) == len(re.findall("<[a-z!/]", plain))
    assert json.loads(data(page))["errors"]["groups"][0]["error_type"] == "".join(NASTY)


def test_it_loads_nothing():
    page = page_of(told(many(50)))
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!data:,")', page)
    assert [url for url in re.findall(r"https?://[^\s\"']+", page) if "w3.org" not in url] == []
    assert not re.findall(
        r"@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket|innerHTML|insertAdjacentHTML|document\.write|\beval\(",
        page,
    )


def test_the_wheel_holds_what_it_is_drawn_with(tmp_path):
    (wheel,) = WheelBuilder(str(Path(__file__).parents[2])).build(directory=str(tmp_path))
    names = set(ZipFile(wheel).namelist())
    assert {
        f"batchflow/reporting/html/{name}" for name in ("__init__.py", "page.html", "page.css", "page.js")
    } <= names


def test_of_100_000_chunks_it_is_a_fraction_of_the_five_megabytes():
    assert len(page_of(told(many(100_000, 32)))) < 1_000_000
    assert len(page_of(told(many(50_000, 300)))) < 1_500_000  # as many workers as are told apart, and more
