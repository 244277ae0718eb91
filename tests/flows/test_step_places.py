"""Steps of a flow that write to one place, or read what another step writes."""

import os
from pathlib import Path

import pytest

import batchflow as bf
from batchflow import errors


def same(row):
    return row


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("data")
    Path("data/a.jsonl").write_text('{"a":1}\n')
    return tmp_path


def writer(flow, into="clean/", source="data/a.jsonl", **options):
    return flow.map_records(same, bf.read_json(source), name="write", into=into, format="jsonl", **options)


@pytest.mark.parametrize("into", ["clean/", "clean", "./clean/", "data/../clean/", "{cwd}/clean/"])
def test_steps_that_write_one_place_are_refused(folder, into):
    flow = bf.Flow()
    first = writer(flow)
    with pytest.raises(
        errors.UsageError, match=r"^steps 'write' and 'more' both write .*/clean: give each its own into=$"
    ):
        flow.map_records(same, bf.records([1]), name="more", into=into.format(cwd=folder), after=first)
    assert len(flow) == 1


def test_values_that_are_kept_in_one_file_are_refused():
    flow = bf.Flow()
    flow.step(abs, 1, name="one", into="x.json")
    with pytest.raises(errors.UsageError, match="both write"):
        flow.step(abs, 2, name="two", into="./x.json")


@pytest.mark.parametrize("source", ["clean/", "clean/*.jsonl", "./clean", "{cwd}/clean/part-00000.jsonl"])
def test_step_that_reads_what_another_writes_waits_for_it(folder, source):
    source = source.format(cwd=folder)
    flow = bf.Flow()
    first = writer(flow)
    with pytest.raises(
        errors.UsageError,
        match=r"^step 'read' reads .*/clean, which step 'write' writes, at any time: add after=flow\['write'\]",
    ):
        flow.map_records(same, bf.read_json(source), name="read")
    between = flow.step(abs, 1, after=first)
    last = flow.map_records(same, bf.read_json(source), name="read", after=between)
    assert flow.run(executor="serial")[last].value.to_pylist() == [{"a": 1}]


def test_step_that_writes_what_another_reads_waits_for_it():
    writer(first := bf.Flow())
    first.run(executor="serial")
    flow = bf.Flow()
    reader = flow.map_records(same, bf.read_json("clean/"), name="read")
    with pytest.raises(errors.UsageError, match="step 'read' reads"):
        writer(flow, fresh=True)
    writer(flow, fresh=True, after=reader)


def test_folder_that_steps_make_is_read_behind_them():
    flow = bf.Flow()
    days = [
        flow.map_records(same, bf.read_json("data/"), name=f"day {day}", into=f"days/{day}/", format="jsonl")
        for day in range(2)
    ]
    with pytest.raises(errors.UsageError, match=r"add after=flow\['day 1'\]"):
        flow.map_records(same, bf.read_json("days/"), name="all", after=days[0])
    last = flow.map_records(same, bf.read_json("days/**"), name="all", after=days)
    assert flow.run(executor="serial")[last].value.to_pylist() == [{"a": 1}] * 2


def test_step_that_writes_into_the_folder_that_is_read_is_no_input():
    for _ in range(2):
        flow = bf.Flow()
        writer(flow, "data/clean/", "data/")
        last = flow.map_records(same, bf.read_json("data/"), name="read")
        assert flow.run(executor="serial")[last].value.to_pylist() == [{"a": 1}]


def test_step_that_writes_what_it_reads_fails_untouched():
    writer(first := bf.Flow())
    first.run(executor="serial")
    flow = bf.Flow()
    last = writer(flow, "clean/", "clean/", fresh=True)
    run = flow.run(executor="serial", on_error="continue")
    assert run[last].state == "failed"
    assert "is read from there" in str(run.errors["message"][0])
    assert Path("clean/part-00000.jsonl").read_text() == '{"a":1}\n'
