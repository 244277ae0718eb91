"""An output that is not what was written is found out, each time with the name of the file."""

import gzip
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crash import proved

import batchflow as bf
from batchflow import errors
from batchflow.checkpoint.history import link_of
from batchflow.cli import main


@pytest.fixture
def out(tmp_path):
    """Make an output of two parts from two text files, one record of which fails."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("".join(f"{n}\n" for n in range(40)))
    (tmp_path / "in/b.txt").write_text("".join(f"{n}\n" for n in range(40, 50)) + "x\n")
    source = bf.read_text(tmp_path / "in")
    bf.map_records(int, source, into=f"{tmp_path}/out/", executor="serial", chunk="40B", part_size=600)
    assert len(list((tmp_path / "out").glob("part-*"))) == 2
    assert proved(tmp_path / "out") == []
    return tmp_path / "out"


def told(out, capsys, status=1):
    assert main(["verify", str(out)]) == status
    return capsys.readouterr().out.splitlines()


def test_a_whole_output_is_proved(out, capsys):
    assert told(out, capsys, 0) == ["51 records in, 50 rows out, 1 failed: each accounted for once"]


def test_a_part_that_was_deleted(out, capsys):
    (out / "part-00001.parquet").unlink()
    assert told(out, capsys) == ["part-00001.parquet is gone"]


def test_a_part_that_was_cut_off(out, capsys):
    part = out / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    [line] = told(out, capsys)
    assert line.startswith("part-00000.parquet has ")
    assert line.endswith("it was cut off or added to")


def test_a_part_that_was_edited(out, capsys):
    part = out / "part-00000.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    assert told(out, capsys) == ["part-00000.parquet was changed after it was written"]


def test_a_part_that_was_doubled(out, capsys):
    shutil.copy(out / "part-00000.parquet", out / "part-00009.parquet")
    assert told(out, capsys) == [
        "part-00009.parquet is no part of this output, but a reader of the folder would take it for one"
    ]


def test_a_file_of_somebody_elses(out, capsys):
    (out / "notes.txt").write_text("mine")
    assert told(out, capsys) == [
        "notes.txt is no part of this output, but a reader of the folder would take it for one"
    ]


def test_an_error_table_that_was_edited(out, capsys):
    table = pq.read_table(out.parent / ".out_batchflow/errors.pq")
    pq.write_table(table.slice(0, 0), out.parent / ".out_batchflow/errors.pq")
    assert told(out, capsys) == ["errors.pq is gone or was changed after it was written"]


def lines(out):
    return (out.parent / ".out_batchflow/ledger.log").read_text().splitlines()


@pytest.mark.parametrize("at", range(-6, 0))
def test_a_line_of_the_ledger_that_was_edited(out, capsys, at):
    ledger = lines(out)
    ledger[at] = ledger[at].replace(":", ": ", 1)
    (out.parent / ".out_batchflow/ledger.log").write_text("\n".join(ledger) + "\n")
    [line] = told(out, capsys)
    assert line == (
        f"{out.parent}/.out_batchflow/ledger.log, line {len(ledger) + at + 1}: "
        "was changed after it was written, or a line before it was"
    )


@pytest.mark.parametrize("at", [1, 3, -2])
def test_a_line_of_the_ledger_that_was_taken_out(out, capsys, at):
    ledger = lines(out)
    del ledger[at]
    (out.parent / ".out_batchflow/ledger.log").write_text("\n".join(ledger) + "\n")
    [line] = told(out, capsys)
    assert "was changed after it was written, or a line before it was" in line


def test_the_last_lines_of_the_ledger_that_were_taken_out(out, capsys):
    (out.parent / ".out_batchflow/ledger.log").write_text("\n".join(lines(out)[:-1]) + "\n")
    assert told(out, capsys) == ["the job has not come to its end: run it again, and it goes on"]


@pytest.mark.parametrize("junk", ["{", '{"chunk":9', "\0" * 20])
def test_something_behind_the_last_line_of_the_ledger(out, capsys, junk):
    with open(out.parent / ".out_batchflow/ledger.log", "a") as file:
        file.write(junk)
    assert told(out, capsys) == ["ledger.log goes on behind its last line"]


def test_rows_that_stand_in_another_order_than_their_input(out, capsys):
    def turned(entry):
        if "part" in entry:
            entry["chunks"] = entry["chunks"][::-1]
        return [entry]

    rewrite(out, turned)
    told_lines = told(out, capsys)
    assert told_lines
    assert all(line.endswith("behind those of later input") for line in told_lines)


def test_a_ledger_that_is_gone(out, capsys):
    (out.parent / ".out_batchflow/ledger.log").unlink()
    [line] = told(out, capsys)
    assert line.startswith(f"cannot read {out.parent}/.out_batchflow/ledger.log: ")


@pytest.mark.parametrize("content", [None, "{", '{"batchflow": 2}'])
def test_a_plan_that_was_edited_or_is_gone(out, capsys, content):
    plan = out.parent / ".out_batchflow/plan.json"
    plan.unlink() if content is None else plan.write_text(content)
    [line] = told(out, capsys)
    assert str(plan) in line


def test_an_input_that_changed(out, capsys, tmp_path):
    with open(tmp_path / "in/a.txt", "a") as file:
        file.write("7\n")
    assert told(out, capsys) == [f"the input {tmp_path}/in/a.txt has changed since: size 110 then, 112 now"]


def test_an_input_that_is_gone(out, capsys, tmp_path):
    (tmp_path / "in/a.txt").unlink()
    assert main(["verify", str(out)]) == 0
    answer = capsys.readouterr()
    assert answer.out == "51 records in, 50 rows out, 1 failed: each accounted for once\n"
    assert answer.err == f"the input {tmp_path}/in/a.txt is gone: what was made of it stays\n"
    assert main(["verify", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [answer.err.strip()]


def rewrite(out, change):
    """Change the lines of a ledger and link them anew, as somebody would who knows how."""
    link, written = "", []
    for line in lines(out):
        entry = json.loads(line)
        del entry["chain"]
        for changed in change(entry):
            text = json.dumps(changed, separators=(",", ":"))
            link = link_of(link, text)
            written.append(f'{text[:-1]},"chain":"{link}"}}\n')
    (out.parent / ".out_batchflow/ledger.log").write_text("".join(written))


def chunks(start, change):
    """Return a change of the chunk that begins at a byte of the first file."""

    def changed(entry):
        if "chunk" in entry and entry["ranges"][0][0].endswith("a.txt") and entry["ranges"][0][1] == start:
            return change(entry)
        return [entry]

    return changed


def test_a_range_that_is_missing(out, capsys, tmp_path):
    rewrite(out, chunks(40, lambda _: []))
    told_lines = told(out, capsys)
    assert f"{tmp_path}/in/a.txt[40:80] is missing" in told_lines
    assert any("which nothing tells of" in line for line in told_lines)


def test_a_range_that_is_done_twice(out, capsys, tmp_path):
    rewrite(out, chunks(40, lambda entry: [entry, {**entry, "chunk": 99}]))
    told_lines = told(out, capsys)
    assert f"{tmp_path}/in/a.txt[40:80] is done twice" in told_lines
    assert any("but the parts hold 0 of them" in line for line in told_lines)


def test_counts_that_do_not_add_up(out, capsys):
    def fewer(entry):
        entry["ranges"][0][5] -= 1
        return [entry]

    rewrite(out, chunks(40, fewer))
    assert any("rows, but the parts hold" in line for line in told(out, capsys))


def test_failures_without_an_error(out, capsys):
    def silent(entry):
        return [entry | ({"errors": []} if "chunk" in entry else {})]

    rewrite(out, silent)
    assert any("failed, but no error tells why" in line for line in told(out, capsys))


@pytest.mark.parametrize("into", ["x.parquet", "x.csv", "x.jsonl", "x.arrow"])
def test_one_file_too(tmp_path, capsys, into):
    bf.map_records(lambda n: {"n": n}, bf.records(range(10)), into=tmp_path / into, executor="serial")
    assert told(tmp_path / into, capsys, 0) == ["10 records in, 10 rows out, 0 failed: each accounted for once"]
    with open(tmp_path / into, "ab") as file:
        file.write(b"\n")
    assert len(told(tmp_path / into, capsys)) == 1


def test_parquet_and_csv_inputs_and_halved_chunks(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(100)))
    pq.write_table(pa.table({"n": range(100)}), tmp_path / "b.parquet", row_group_size=30)

    def fn(table):
        if 17 in table["n"].to_pylist():
            raise ValueError(17)
        return table

    for source in (bf.read_csv(tmp_path / "a.csv"), bf.read_parquet(tmp_path / "b.parquet")):
        result = bf.map_batches(fn, source, into=f"{tmp_path}/out/", executor="serial", chunk=16, fresh=True)
        assert result.errors["record"].to_pylist() == [18]
        assert told(tmp_path / "out", capsys, 0) == [
            "100 records in, 99 rows out, 1 failed: each accounted for once"
        ]


def test_what_is_no_output(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert "is no output of batchflow" in capsys.readouterr().err


def test_a_run_does_not_go_on_with_what_was_damaged(out, tmp_path):
    def run():
        return bf.map_records(
            int, bf.read_text(tmp_path / "in"), into=f"{out}/", executor="serial", chunk="40B", part_size=600
        )

    (out / "part-00001.parquet").unlink()
    with pytest.raises(
        errors.LedgerError, match=r"part-00001.parquet is gone, so this output cannot be gone on with"
    ):
        run()
    (out.parent / ".out_batchflow/ledger.log").write_text("\n".join(lines(out)[1:]) + "\n")
    with pytest.raises(errors.LedgerError, match="line 1: was changed after it was written"):
        run()


def test_a_file_that_broke_off_is_named_beside_what_is_proved(tmp_path, capsys):
    (tmp_path / "in.txt.gz").write_bytes(
        gzip.compress("".join(f"{n * 7919}\n" for n in range(5000)).encode())[:5000]
    )
    result = bf.map_records(len, bf.read_text(tmp_path / "in.txt.gz"), into=f"{tmp_path}/out/", executor="serial")
    kept = result.report.rows_out
    assert told(tmp_path / "out", capsys, 0) == [
        f"{kept + 1:,} records in, {kept:,} rows out, 1 failed, and what nobody can read, behind the damage of 1 file: "
        "each accounted for once"
    ]
