"""Did you mean …: for words of the command line, names, options and columns; silent where nothing is alike."""

import asyncio
from types import SimpleNamespace

import pyarrow as pa
import pytest

import batchflow as bf
from batchflow.cli import main
from batchflow.core.text import did_you_mean


@pytest.mark.parametrize(
    ("word", "known", "text"),
    [
        ("jsn", ["text", "json"], "; did you mean 'json'?"),
        ("PARQUET", ["parquet", "csv"], "; did you mean 'parquet'?"),
        ("Amuont", ["amount"], "; did you mean 'amount'?"),
        ("xyz", ["parquet", "csv"], ""),
        ("", ["parquet"], ""),
        ("a", [], ""),
    ],
)
def test_only_a_word_that_is_alike_is_meant(word, known, text):
    assert did_you_mean(word, known) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("rnu f.py:clean in.csv", "batchflow: argument COMMAND: invalid choice: 'rnu'|; did you mean 'run'?"),
        (
            "run f.py:clean in.csv --formt csv",
            "batchflow run: unrecognized arguments: --formt|; did you mean '--format'?",
        ),
        (
            "run f.py:clean in.csv --max-eror=1",
            "unrecognized arguments: --max-eror=1; did you mean '--max-errors'?",
        ),
        ("run f.py:clean in.csv --per bacth", "argument --per: invalid choice: 'bacth'|; did you mean 'batch'?"),
        ("flow f.py:flow --on-error contineu", "argument --on-error: invalid choice|; did you mean 'continue'?"),
        ("submit rnu f.py:clean in.csv", "batchflow submit: argument COMMAND: invalid|; did you mean 'run'?"),
        (
            "submit run f.py:clean in.csv --wrkers 2",
            "batchflow submit run: unrecognized|; did you mean '--workers'?",
        ),
        (
            "errors out extra",
            "batchflow errors: unrecognized arguments: extra (batchflow errors --help tells more)",
        ),
        ("run f.py:claen in.csv", "f.py has no function 'claen'; it has clean|; did you mean 'clean'?"),
        ("run g.py:clean in.csv", "there is no file 'g.py' (looked in|; did you mean 'f.py'?"),
        (
            "run f.py:clean in.csv --read cvs",
            "unknown kind of input 'cvs': use one of text, json,|; did you mean 'csv'?",
        ),
        (
            "run f.py:clean in.csv --into out/ --format parqet",
            "unknown output format 'parqet'|; did you mean 'parquet'?",
        ),
        ("run f.py:clean in.csv --into out.parqet", "'parqet' is no output format|; did you mean 'parquet'?"),
        ("run f.py:clean in.csv --executor procceses", "unknown executor 'procceses'|; did you mean 'processes'?"),
        ("flow f.py:flwo", "f.py has no flow 'flwo'; it has flow; did you mean 'flow'?"),
        ("flow f.py:flow --only laod", "flow 'f' has no step 'laod'; it has load; did you mean 'load'?"),
    ],
)
def test_the_command_line(tmp_path, monkeypatch, capsys, arguments, text):
    (tmp_path / "f.py").write_text(
        "import batchflow\n\n\ndef clean(row):\n    return row\n\n\n"
        "flow = batchflow.Flow('f')\nflow.step(int, name='load')\n"
    )
    (tmp_path / "in.csv").write_text("n\n1\n")
    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments.split())
    except SystemExit as left:
        status = left.code
    told = capsys.readouterr()
    assert (status, told.out, told.err.count("\n")) == (2, "", 1)
    for part in text.split("|"):
        assert part in told.err


def test_names_in_python():
    flow = bf.Flow("f")
    flow.step(int, name="load")
    with pytest.raises(bf.errors.UsageError, match="did you mean 'load'"):
        flow["laod"]
    with pytest.raises(bf.errors.UsageError, match="a job has no option max_error; did you mean 'max_errors'"):
        flow.map_records(abs, [1], max_error=3)
    with pytest.raises(bf.errors.UsageError, match="did you mean 'load'"):
        flow.run(executor="serial")["laod"]
    with pytest.raises(AttributeError) as caught:
        _ = bf.map_record
    assert (caught.value.name, caught.value.obj) == ("map_record", bf)  # of which Python makes its own guess


RATES = {"EUR": 1.1}


def mistyped(row):
    return row["amout"]


def of_another_table(row):
    return RATES[row["region"]]


def of_a_copy(row):
    other = {"amounts": 1}
    return other["amount_"] + row["amount"]


def in_a_call(row):
    def inner():
        return row["amout"]

    return inner()


HOLDER = SimpleNamespace(row={"amount_": 1})


def of_an_attribute(row):
    return HOLDER.row["amout"] + row["amount"]


def by_itself(row):
    raise KeyError("amout")


def lazily(row):
    yield row["amout"]


async def waiting(row):
    await asyncio.sleep(0)
    return row["amout"]


AMOUNT = "'amout' is no column of the record: the columns are region, amount; did you mean 'amount'?"


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (mistyped, AMOUNT),
        (in_a_call, AMOUNT),
        (lazily, AMOUNT),
        (waiting, AMOUNT),
        (lambda row: row["zzz"], "'zzz' is no column of the record: the columns are region, amount"),
        (lambda row: row["AMOUNT"], AMOUNT.replace("amout", "AMOUNT")),
        (of_another_table, "'north'"),
        (of_a_copy, "'amount_'"),
        (of_an_attribute, "'amout'"),
        (by_itself, "'amout'"),
        (lambda row: row[7], "7"),
    ],
)
def test_a_column_that_a_record_has_not(tmp_path, fn, message):
    (tmp_path / "in.csv").write_text("region,amount\nnorth,1\n")
    result = bf.map_records(fn, bf.read_csv(str(tmp_path / "in.csv")), executor="serial")
    assert result.errors["message"].to_pylist() == [message]


@pytest.mark.parametrize("source", [bf.records(pa.table({"amount": [1]})), bf.records([{"amount": 1}])])
def test_columns_of_records_in_memory(source):
    result = bf.map_records(mistyped, source, executor="serial")
    assert result.errors["message"].to_pylist() == [AMOUNT.replace("region, ", "")]


def test_no_more_columns_are_named_than_somebody_reads():
    row = {f"c{number}": 0 for number in range(30)}
    result = bf.map_records(lambda row: row["zzz"], bf.records([row]), executor="serial")
    assert result.errors["message"].to_pylist()[0].endswith("c18, c19, and 10 more")


def test_a_function_of_records_is_told_that_it_expects_a_table():
    for fn, name in [(lambda row: row.column("amount"), "column"), (lambda row: row.num_rows, "num_rows")]:
        result = bf.map_records(fn, bf.records([{"amount": 1}]), executor="serial")
        assert result.errors["message"].to_pylist() == [
            f"'dict' object has no attribute '{name}'; map_records calls the function with one record, map_batches "
            "(--per batch) with a table of many"
        ]


@pytest.mark.parametrize(
    "fn",
    [
        lambda row: {"other": 1}.column,
        lambda row: row.colour,
        lambda row: (_ for _ in ()).throw(AttributeError("no")),
    ],
)
def test_other_attributes_have_no_hint(fn):
    result = bf.map_records(fn, bf.records([{"amount": 1}]), executor="serial")
    assert "map_batches" not in result.errors["message"].to_pylist()[0]


OF_TABLES = "; map_batches (--per batch) calls the function with a table of many records, map_records with one"


@pytest.mark.parametrize(
    ("fn", "end"),
    [
        (
            lambda table: table["amout"],
            "schema'; of the batch the columns are region, amount; did you mean 'amount'?",
        ),
        (lambda table: table.select(["zzz"]), "schema'; of the batch the columns are region, amount"),
        (
            lambda table: table.sort_by("amout"),
            "; of the batch the columns are region, amount; did you mean 'amount'?",
        ),
        (
            lambda table: table.to_pandas()["amout"],
            "'amout'; of the batch the columns are region, amount; did you mean 'amount'?",
        ),
        (lambda table: table.to_pandas()["zzz"], "'zzz'"),
        (lambda table: RATES["amout"], "'amout'"),
        (lambda table: table["amount"] + 1, OF_TABLES),
        (lambda table: table["region"].strip(), OF_TABLES),
        (lambda table: table.get("region"), OF_TABLES),
        (lambda table: table.colour, "has no attribute 'colour'"),
        (lambda table: 1 + "1", "and 'str'"),
    ],
)
def test_a_mistake_in_a_function_of_batches(fn, end):
    result = bf.map_batches(fn, bf.records([{"region": "north", "amount": 1}]), executor="serial")
    (message,) = result.errors["message"].to_pylist()
    assert message.endswith(end)


@pytest.mark.parametrize("per", [bf.map_records, bf.map_batches])
@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_file_that_has_another_delimiter(tmp_path, per, mark):
    (tmp_path / "in.csv").write_text(f"region{mark}amount\nnorth{mark}1\n")
    result = per(lambda row: row["amount"], bf.read_csv(str(tmp_path / "in.csv")), executor="serial")
    (message,) = result.errors["message"].to_pylist()
    assert message.endswith(
        f"the columns are region{mark}amount; is the file delimited by {mark!r}? Pass delimiter={mark!r} (--delimiter)"
    )
