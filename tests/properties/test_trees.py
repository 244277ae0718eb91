"""For any tree of folders: the files of the plan are those of the ledger, and those that verify proves."""

import json
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

import batchflow as bf
from batchflow.checkpoint.verify import verify
from batchflow.cli.targets import find_output, source_of

NAMES = st.sampled_from(["a", "b", "c.jsonl", "_x", ".y", "d [1]", "é", " "])
FOLDERS = st.lists(NAMES, max_size=3).map("/".join)
FILES = st.tuples(FOLDERS, NAMES).map(lambda names: os.path.join(*names) + ".jsonl")
LINKS = st.tuples(FOLDERS, NAMES, st.one_of(FILES, FOLDERS))
OUTPUTS = st.tuples(FOLDERS, st.sampled_from(["out/", "out.jsonl", "other/"])).map(
    lambda names: os.path.join(*names)
)
SOURCES = st.sampled_from(
    ["data", "data/", "./data", "data/**/*.jsonl", "data/*", "{cwd}/data", "data/a/../*", "link"]
)


def same(row):
    return row


def make_tree(folder, files, links):
    """Write files with their numbers, and links."""
    for number, name in enumerate(files):
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"a": number}) + "\n")
        except OSError:
            continue  # a file has the name of a folder
    for above, name, target in links:
        path = folder / above / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(folder / target)
        except OSError:
            continue


def numbers_in(place):
    return [json.loads(line)["a"] for line in Path(place).read_text().splitlines()]


def proved_places(into):
    destination, plan, history = find_output(into.rstrip("/"))
    assert list(verify(destination, plan, history, source_of(plan))) == []
    return {span.input.identity for done in history.chunks.values() for span in done.chunk.spans}


@settings(max_examples=60, deadline=None, report_multiple_bugs=False)
@given(
    files=st.lists(FILES, min_size=1, max_size=6, unique=True),
    links=st.lists(LINKS, max_size=4),
    outputs=st.lists(OUTPUTS, max_size=2),
    into=OUTPUTS,
    first=SOURCES,
    second=SOURCES,
)
def test_plan_ledger_and_proof_agree(files, links, outputs, into, first, second):
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            data = Path("data")
            data.mkdir()
            os.symlink("data", "link")
            make_tree(data.absolute(), files, links)
            for output in outputs:  # of other jobs
                try:
                    bf.map_records(
                        same,
                        bf.read_json(first.format(cwd=folder)),
                        into=f"data/{output}",
                        format="jsonl",
                        executor="serial",
                    )
                except bf.errors.UsageError:
                    continue
            check(f"data/{into}", first.format(cwd=folder), second.format(cwd=folder))
        finally:
            os.chdir(before)


def check(into, first, second):
    try:
        job = bf.Job(same, bf.read_json(first), into=into, format="jsonl", executor="serial")
        plan = job.plan()
    except bf.errors.UsageError:
        return
    places = [item.identity for item in plan.inputs]
    assert len(set(places)) == len(places)
    assert not any("_batchflow/" in place for place in places)
    result = job.run()
    expected = [number for place in places if os.path.isfile(place) for number in numbers_in(place)]
    assert [row["a"] for row in result.values] == expected
    assert proved_places(into) == set(places)
    again = job.run()
    assert again.report.rows_in == again.report.before == result.report.rows_in
    try:
        other = bf.Job(same, bf.read_json(second), into=into, format="jsonl", executor="serial")
        more = {item.identity for item in other.plan().inputs}
    except bf.errors.UsageError:
        return
    result = other.run()
    assert proved_places(into) == set(places) | more
    assert result.report.before == again.report.rows_in
