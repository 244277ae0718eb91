"""Input and output are never confused, and each file is read once, whatever leads to it."""

import os
import shutil
import socket
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from seen import seen

import batchflow as bf
from batchflow import errors
from batchflow.cli import main


def same(row):
    return row


def write(path, *numbers):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f'{{"a":{n}}}\n' for n in numbers))


def numbers(result):
    return sorted(row["a"] for row in seen(result).values)


def run(paths, into=None, fn=same, **options):
    return bf.map_records(fn, bf.read_json(paths), into=into, executor="serial", **options)


def proved(out, capsys):
    capsys.readouterr()
    assert main(["verify", out]) == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- the output of the job itself ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    ["data/", "data", "./data", "data/**/*.jsonl", "data/*", "**/*.jsonl", "{cwd}/data", "link/", "data/../data"],
)
@pytest.mark.parametrize("into", ["data/clean/", "data/clean.jsonl", "data/deep/er/clean/", "link/clean/"])
def test_output_in_the_folder_that_is_read_is_no_input(folder, capsys, source, into):
    os.symlink("data", "link")
    write("data/a.jsonl", 1)
    write("data/b/c.jsonl", 2)
    source = source.format(cwd=folder)
    for before in (0, 2, 2):
        result = run(source, into, format="jsonl")
        assert numbers(result) == [1, 2]
        assert result.report.before == before
    assert "2 records in, 2 rows out" in proved(into, capsys)
    assert bf.Job(same, bf.read_json(source), into=into, format="jsonl", executor="serial").plan().finished
    write("data/b/d.jsonl", 3)
    assert numbers(run(source, into, format="jsonl")) == [1, 2, 3]


def test_commands_leave_the_output_out_of_the_input(folder, capsys):
    write("data/a.jsonl", 1, 2)
    Path("steps.py").write_text("def same(row):\n    return row\n")
    arguments = ["steps.py:same", "data/", "--into", "data/clean/", "--executor", "serial"]
    assert main(["run", *arguments]) == 0
    assert main(["run", *arguments]) == 0  # the parts are of another format than the input
    capsys.readouterr()
    assert main(["plan", *arguments]) == 0
    assert "nothing is left to do" in capsys.readouterr().out
    write("data/b.jsonl", 3)
    assert main(["plan", *arguments]) == 0
    assert "json: 2 files" in capsys.readouterr().out


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    "source",
    [
        "clean/",
        "clean",
        "./clean/",
        "clean/*.jsonl",
        "clean/**",
        "clean/part-00000.jsonl",
        "x/../clean",
        "link",
        "cl*/*.jsonl",
        "cl*",
        "{cwd}/clean",
        "file://{cwd}/clean/",
    ],
)
def test_output_that_is_read_is_refused_untouched(folder, source, fresh):
    os.mkdir("x")
    write("in.jsonl", 1, 2)
    run("in.jsonl", "clean/", format="jsonl")
    os.symlink("clean", "link")
    with pytest.raises(
        errors.DestinationError,
        match=r"^cannot write to .*/clean: the input .* is read from there; choose another output$",
    ):
        run(source.format(cwd=folder), "clean/", format="jsonl", fresh=fresh)
    assert numbers(run("clean/")) == [1, 2]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("source", ["x.jsonl", "./x.jsonl", "link.jsonl", "hard.jsonl", "x.*", "?.jsonl"])
def test_output_file_that_is_read_is_refused_untouched(folder, source, fresh):
    write("in.jsonl", 1, 2)
    run("in.jsonl", "x.jsonl")
    os.symlink("x.jsonl", "link.jsonl")
    os.link("x.jsonl", "hard.jsonl")
    with pytest.raises(errors.DestinationError, match="is read from there; choose another output"):
        run(source, "x.jsonl", fresh=fresh)
    assert numbers(run("x.jsonl")) == [1, 2]


def test_output_that_holds_the_input_is_refused(folder):
    write("in.jsonl", 1)
    run("in.jsonl", "data/", format="jsonl")
    write("data/raw/a.jsonl", 2)
    with pytest.raises(errors.DestinationError, match="the input data/raw is read from there"):
        run("data/raw", "data/", format="jsonl", fresh=True)
    assert numbers(run("data/raw")) == [2]


def test_error_table_of_the_output_is_no_input_of_it(folder):
    write("in.jsonl", 1)
    run("in.jsonl", "clean/", fn=lambda row: 1 / 0)
    with pytest.raises(errors.DestinationError, match="is read from there"):
        bf.map_records(
            same, bf.read_parquet(".clean_batchflow/errors.pq"), into="clean/", executor="serial", fresh=True
        )
    (row,) = bf.map_records(same, bf.read_parquet(".clean_batchflow/errors.pq"), executor="serial").values
    assert row["error_type"] == "ZeroDivisionError"


# --- outputs of other jobs ----------------------------------------------------------------------------


def test_jobs_that_write_into_one_input_folder_read_the_input_only(folder):
    write("data/a.jsonl", 1, 2)
    for _ in range(2):
        for into in ("data/clean/", "data/stats/", "data/one.jsonl"):
            assert numbers(run("data/", into, format="jsonl")) == [1, 2]
    plan = bf.Job(same, bf.read_json("data/")).plan()
    assert "left out  data/clean is the output of another job and is not read: name it" in plan.explain()


def test_output_of_another_job_is_read_if_it_is_named(folder):
    write("data/a.jsonl", 1)
    run("data/a.jsonl", "data/clean/", format="jsonl")
    for source in ("data/clean/", "data/clean/*.jsonl", ["data/", "data/clean"]):
        assert numbers(run(source)) == ([1, 1] if isinstance(source, list) else [1])


@pytest.mark.parametrize(
    "source", ["days/*", "days/*/*.jsonl", "days/**/*.jsonl", "days/**", "days/day=*", "day*/day=*/**"]
)
def test_outputs_that_a_pattern_matches_are_always_read(folder, source):
    write("in.jsonl", 1)
    for day in (1, 2):
        run("in.jsonl", f"days/day={day}/", format="jsonl")
    assert numbers(run(source, "all/")) == [1, 1]
    write("days/day=3/foreign.jsonl", 2)
    for into in ("all/", "fresh/"):
        assert numbers(run(source, into)) == [1, 1, 2]


def test_folder_of_nothing_but_outputs_is_refused(folder):
    write("in.jsonl", 1)
    for day in (1, 2):
        run("in.jsonl", f"days/day={day}/", format="jsonl")
    with pytest.raises(
        errors.InputError,
        match=r"^the folder 'days' holds only outputs of other jobs, which are read if they are named: 'days/day=1', or 'days/\*\*' for all$",
    ):
        run("days")
    write("days/day=3/foreign.jsonl", 2)
    assert numbers(run("days")) == [2]


def test_output_that_is_named_too_is_not_called_left_out(folder):
    write("data/a.jsonl", 1)
    run("data/a.jsonl", "data/clean/", format="jsonl")
    plan = bf.Job(same, bf.read_json(["data/", "data/clean/"])).plan()
    assert (len(plan.inputs), plan.left_out) == (2, ())


# --- one input, however it is spelled -----------------------------------------------------------------

SPELLINGS = [
    "dd/*.jsonl",
    "./dd/*.jsonl",
    "{cwd}/dd/*.jsonl",
    "dd/",
    "dd",
    "file://{cwd}/dd/",
    "link/*.jsonl",
    "dd/../dd",
    "d?/f*",
    "**/f*.jsonl",
]


@pytest.mark.parametrize("first", ["dd/*.jsonl", "{cwd}/dd/", "link/"])
def test_input_in_another_spelling_is_the_same(folder, capsys, first):
    for n in range(3):
        write(f"dd/f{n}.jsonl", n)
    os.symlink("dd", "link")
    fail = lambda row: row if row["a"] else 1 / 0
    run(first.format(cwd=folder), "out/", fn=fail)
    for spelling in SPELLINGS:
        result = run(spelling.format(cwd=folder), "out/", fn=fail)
        assert (numbers(result), result.report.before, result.report.failed) == ([1, 2], 3, 1)
    assert str(result.errors["source"][0]) == "dd/f0.jsonl"
    assert "3 records in, 2 rows out, 1 failed" in proved("out/", capsys)
    os.mkdir("else")
    os.chdir("else")
    assert numbers(run("../dd/", "../out/", fn=fail)) == [1, 2]
    assert "3 records in, 2 rows out, 1 failed" in proved("../out/", capsys)
    os.chdir(folder / "else")  # the command works from the folder of the run
    assert (
        bf.Job(same, bf.read_json("../link"), into="../out/", executor="serial", version="2")
        .retry_failed()
        .report.failed
        == 0
    )


def test_input_of_two_spellings_is_read_once(folder):
    write("dd/a.jsonl", 1)
    os.symlink("dd", "link")
    os.symlink("a.jsonl", "dd/latest.jsonl")
    sources = [spelling.format(cwd=folder).replace("f*", "*") for spelling in SPELLINGS]
    assert numbers(run(sources)) == [1]
    assert numbers(run(["dd/a.jsonl"] * 3)) == [1]
    assert [item.uri for item in bf.read_json("dd").inputs()] == ["dd/a.jsonl"]


def test_same_name_in_another_folder_is_another_input(folder):
    for number, name in enumerate(("one", "two")):
        write(f"{name}/dd/a.jsonl", number)
        os.chdir(name)
        result = run("dd/*.jsonl", f"{folder}/out/")
        os.chdir(folder)
    assert numbers(result) == [0, 1]


def test_error_table_has_paths_as_they_were_written(folder):
    write("dd/a.jsonl", 1)
    for source, shown in (("dd/*", "dd/a.jsonl"), (f"{folder}/dd", f"{folder}/dd/a.jsonl")):
        assert str(run(source, fn=lambda row: 1 / 0).errors["source"][0]) == shown


def test_project_that_moved_says_that_rows_are_of_both(folder, capsys):
    write("old/in.jsonl", 1, 2, 3)
    os.chdir("old")
    run("in.jsonl", "out/")
    os.chdir(folder)
    os.rename("old", "moved")
    os.chdir("moved")
    job = bf.Job(same, bf.read_json("in.jsonl"), into="out/", executor="serial")
    line = "1 earlier input is gone and 1 new: the output holds rows of both; fresh=True (--fresh) makes it of the new ones only"
    assert f"replaced  {line}" in job.plan().explain()
    result = job.run()
    assert numbers(result) == [1, 1, 2, 2, 3, 3]
    assert line in result.report.advice
    assert numbers(run("in.jsonl", "out/", fresh=True)) == [1, 2, 3]


@pytest.mark.parametrize("keep", [True, False])
def test_new_inputs_beside_earlier_ones_say_nothing(folder, keep):
    write("in/a.jsonl", 1)
    run("in/a.jsonl", "out/")
    write("in/b.jsonl", 2)
    plan = bf.Job(same, bf.read_json("in/" if keep else "in/b.jsonl"), into="out/").plan()
    assert plan.doubts == ()


# --- odd files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["in", "in/**/*.jsonl", "in/*"])
def test_links_in_a_circle_are_walked_once(folder, source):
    write("in/a.jsonl", 1)
    write("in/b/c.jsonl", 2)
    for name in ("x", "y", "z"):
        os.symlink("..", f"in/b/{name}")
        os.symlink("b", f"in/{name}")
    assert [item.uri for item in bf.read_json(source).inputs()] == ["in/a.jsonl", "in/b/c.jsonl"]


def test_folders_that_a_pattern_matches_are_read(folder):
    write("2024-01.jsonl/part-0.jsonl", 1)
    write("2024-02.jsonl", 2)
    write("h/year=2024/a.jsonl", 3)
    assert numbers(run("*.jsonl")) == [1, 2]
    assert numbers(run("h/year=*")) == [3]
    assert numbers(run("h/*/")) == [3]


@pytest.mark.parametrize("kind", ["json", "text", "csv", "parquet", "files"])
@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_pipes_and_sockets_among_files_are_failures(folder, kind, executor):
    write("in/a", 1)
    os.mkfifo("in/pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("in/socket")
        read = {
            "json": bf.read_json,
            "text": bf.read_text,
            "csv": bf.read_csv,
            "parquet": bf.read_parquet,
            "files": bf.files,
        }[kind]
        result = bf.map_records(lambda record: 1, read("in"), executor=executor, timeout=20)
    failed = dict(zip(result.errors["source"].to_pylist(), result.errors["message"].to_pylist(), strict=True))
    assert failed.keys() >= {"in/pipe", "in/socket"}
    assert "it is a pipe, not a file" in failed["in/pipe"]


@pytest.mark.parametrize("chunk", [None, "8B"])
def test_pipe_in_the_place_of_a_file_is_a_failure(folder, chunk):
    for name in "ab":
        write(f"in/{name}.jsonl", *range(10))

    def swap(row):
        if os.path.isfile("in/b.jsonl"):
            os.unlink("in/b.jsonl")
            os.mkfifo("in/b.jsonl")
        return row

    result = run("in", fn=swap, chunk=chunk, timeout=20)
    assert numbers(result) == list(range(10))
    assert set(result.errors["source"].to_pylist()) == {"in/b.jsonl"}


@pytest.mark.parametrize(
    ("make", "what"), [(os.mkfifo, "a pipe"), (lambda path: os.symlink("/dev/null", path), "a device")]
)
def test_pipe_that_is_named_is_refused(folder, make, what):
    make("odd")
    with pytest.raises(
        errors.InputError, match=f"^cannot read 'odd': it is {what}, not a file; write its data to a file first$"
    ):
        run("odd")


def test_loop_of_links_that_is_named_is_refused(folder):
    os.symlink("loop", "loop")
    with pytest.raises(errors.InputError, match=r"^cannot list 'loop': Too many levels of symbolic links"):
        run("loop")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_name_that_no_file_can_have_is_refused(folder, name):
    with pytest.raises(errors.InputError, match=r"^cannot list "):
        run(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become somebody else")
@pytest.mark.parametrize(
    "source", ["in", "in/**/*.jsonl", "in/*/*.jsonl", "in/secret/b.jsonl", "in/secret", "in/*"]
)
def test_folder_that_may_not_be_read_is_refused(folder, source):
    write("in/a.jsonl", 1)
    write("in/secret/b.jsonl", 2)
    for above in [folder, *folder.parents][:3]:
        above.chmod(0o755)
    os.chmod("in/secret", 0)
    os.seteuid(65534)
    try:
        with pytest.raises(errors.InputError, match=r"^cannot list 'in/secret[^']*': Permission denied"):
            run(source)
    finally:
        os.seteuid(0)
        os.chmod("in/secret", 0o755)


@pytest.mark.parametrize(
    "name", ["line\nbreak", "\udcff", "a[1]", "*", "-dash", "end ", " start", "q?", "{x}", "~"]
)
def test_odd_names_are_read_and_proved(folder, capsys, name):
    write(f"in/{name}.jsonl", 1)
    os.mkdir(f"in/{name}")
    write(f"in/{name}/x.jsonl", 2)
    for source in ("in/", "in/**/*.jsonl", [f"in/{name}.jsonl", f"in/{name}"]):
        assert numbers(run(source, "out/")) == [1, 2]
    assert "2 records in, 2 rows out" in proved("out/", capsys)


# --- files that go ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_inputs_that_are_gone_keep_their_rows(folder, kind):
    read = {"csv": bf.read_csv, "jsonl": bf.read_json, "parquet": bf.read_parquet}[kind]

    def day(n):
        bf.map_records(
            lambda a: {"a": a}, bf.records([2 * n, 2 * n + 1]), into=f"made/day{n}.{kind}", executor="serial"
        )
        os.makedirs("dd", exist_ok=True)
        shutil.move(f"made/day{n}.{kind}", f"dd/day{n}.{kind}")

    def result():
        return bf.map_records(same, read(f"dd/*.{kind}"), into="out/", executor="serial")

    for n in (1, 2, 3):
        day(n)
    assert numbers(result()) == [2, 3, 4, 5, 6, 7]
    for n in (1, 2, 3):
        os.unlink(f"dd/day{n}.{kind}")
    for n in (4, 5):
        day(n)
    for before in (6, 10):
        last = result()
        assert (numbers(last), last.report.failed, last.report.before) == ([*range(2, 12)], 0, before)


def test_input_gone_before_it_was_read_is_a_failure(folder):
    for n in range(3):
        write(f"dd/{n}.jsonl", n)

    def lose(row):
        if os.path.exists("dd/2.jsonl"):
            os.unlink("dd/2.jsonl")
        return row

    result = run("dd/", "out/", fn=lose, chunk=1)
    assert numbers(result) == [0, 1]
    assert result.errors["source"].to_pylist() == ["dd/2.jsonl"]
    assert numbers(run("dd/", "out/", fn=lose, chunk=1)) == [0, 1]


def test_output_is_written_where_its_name_leads(folder):
    write("in.jsonl", 1)
    os.makedirs("disk/real")
    os.symlink("disk/real", "out")
    run("in.jsonl", "out/")
    assert pq.read_table("disk/real")["a"].to_pylist() == [1]
    assert run("in.jsonl", "disk/real/").report.before == 1


def test_output_in_the_output_of_another_job_is_refused(folder):
    write("in.jsonl", 1)
    run("in.jsonl", "clean/", format="jsonl")
    for into in ("clean/more/", "clean/x.jsonl", "clean/a/b/"):
        with pytest.raises(
            errors.DestinationError, match=r"it is in .*/clean, the output of another job; choose another output$"
        ):
            run("in.jsonl", into, format="jsonl")
    assert os.listdir("clean") == ["part-00000.jsonl"]


@pytest.mark.parametrize(
    ("source", "into"),
    [("data/", "data/"), ("data/a.jsonl", "data/a.jsonl"), ("FILE://{cwd}/data", "file://{cwd}/data/")],
)
def test_input_that_is_named_as_the_output_is_not_to_be_removed(folder, source, into):
    write("data/a.jsonl", 1)
    with pytest.raises(errors.DestinationError, match="is read from there; choose another output") as caught:
        run(source.format(cwd=folder), into.format(cwd=folder), format="jsonl")
    assert "remove" not in str(caught.value)


def test_folder_that_a_cluster_unpacks_anew_holds_the_same_inputs(folder):
    for number, name in enumerate(("_ray_pkg_aa", "_ray_pkg_bb")):
        write(f"{name}/in/a.jsonl", 1)
        os.utime(f"{name}/in/a.jsonl", (1, 1))
        os.chdir(name)
        assert run("in/", f"{folder}/out/").report.before == number
        assert run(f"{os.getcwd()}/in/*", f"{folder}/out/").report.before == 1
        os.chdir(folder)


@pytest.mark.parametrize("folders", [("home", "_ray_pkg_aa"), ("_ray_pkg_aa", "home")])
def test_job_that_is_sent_to_a_cluster_has_the_same_inputs(folder, capsys, folders):
    for number, name in enumerate(folders):
        write(f"{name}/in/a.jsonl", 1)
        os.utime(f"{name}/in/a.jsonl", (1, 1))
        os.chdir(name)
        assert run("in/", f"{folder}/out/").report.before == number
        assert "1 records in, 1 rows out" in proved(f"{folder}/out/", capsys)
        os.chdir(folder)
    os.chdir(folders[1])
    write("in/b.jsonl", 2)
    result = run("in/", f"{folder}/out/")
    assert (numbers(result), result.report.before) == ([1, 2], 1)
    assert run("in/", f"{folder}/out/").report.before == 2


@pytest.mark.parametrize("form", ["file:{}", "file://{}", "file://localhost{}", "FILE:{}"])
def test_file_uri_of_any_form_is_its_path(tmp_path, form):
    (tmp_path / "a b.txt").write_text("x\n")
    uri = form.format(tmp_path)
    result = bf.map_records(len, bf.read_text(f"{uri}/a%20b.txt"), into=f"{uri}/out/", executor="serial")
    assert result.values == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out_batchflow", "a b.txt", "out"]


def test_home_of_an_unknown_user_is_an_input_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(bf.errors.InputError, match="does not exist"):
        bf.map_records(len, bf.read_text("~nobody-of-that-name/x.txt"), into="out/", executor="serial")
