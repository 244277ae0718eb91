"""Which files paths, folders, globs and URIs stand for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from reading import read, writer

from batchflow.core.chunks import InputFile
from batchflow.errors import FormatError, InputError
from batchflow.io.readers import files, guess, read_text
from batchflow.io.sources.listing import list_inputs
from batchflow.io.sources.paths import as_paths
from batchflow.io.stores import filesystem
from batchflow.io.stores import uri as uris


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    return writer(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write = writer(tmp_path)
    for name in (
        "b.txt",
        "a.txt",
        "sub/c.csv",
        "sub/deep/d.txt",
        "_x/e.txt",
        ".h/f.txt",
        "_i.txt",
        ".j",
        "s2/k.txt",
    ):
        write(name, name)
    return tmp_path


def names(paths: object, root: Path) -> list[str]:
    return [os.path.relpath(item.uri, root) for item in list_inputs(as_paths(paths)).inputs]


def test_a_file_tells_its_size_time_and_compression(write):
    path = write("12345", "x.txt.gz")
    assert list_inputs((path,)).inputs == [InputFile(path, 5, str(os.stat(path).st_mtime_ns), "gz")]


def test_a_folder_gives_its_files_by_name_without_hidden_ones(tree):
    assert names(tree, tree) == ["a.txt", "b.txt", "s2/k.txt", "sub/c.csv", "sub/deep/d.txt"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["_i.txt", "a.txt", "b.txt"]),
        ("**/*.txt", ["_i.txt", "_x/e.txt", "a.txt", "b.txt", "s2/k.txt", "sub/deep/d.txt"]),
        ("sub/**", ["sub/c.csv", "sub/deep/d.txt"]),
        ("[ab].txt", ["a.txt", "b.txt"]),
        ("[!a].txt", ["b.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("s*/*", ["s2/k.txt", "sub/c.csv", "sub/deep/d.txt"]),
    ],
)
def test_globs(tree, pattern, expected):
    assert names(tree / pattern, tree) == expected


def test_a_list_keeps_its_order_and_counts_a_file_once(tree, monkeypatch):
    monkeypatch.chdir(tree)
    paths = ["b.txt", "./b.txt", "z*", "*.txt", tree / "a.txt", f"file://{tree}/b.txt", "sub/../b.txt"]
    with pytest.raises(InputError, match=r"no file matches 'z\*'"):
        list_inputs(as_paths(paths))
    paths.remove("z*")
    assert names(paths, tree) == ["b.txt", "_i.txt", "a.txt"]


def test_home_is_expanded(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree))
    assert names("~/sub", tree) == ["sub/c.csv", "sub/deep/d.txt"]


@pytest.mark.parametrize(
    "name",
    ["a b.txt", "a[1].txt", "[x].txt", "line\nbreak.txt", "*.txt", "q?.txt", "50%41.txt", "日本.txt", "it's"],
)
def test_names_with_special_characters_are_names_first(write, name, tmp_path):
    path = write("content\n", name)
    assert read(read_text(path)).rows == ["content"]
    assert read(read_text(Path(path).as_uri())).rows == ["content"]
    assert read(read_text(tmp_path)).records == [(path, 1, (0, 8), "content")]


def test_names_that_are_not_utf8(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.txt"
    with open(path, "w") as file:
        file.write("content\n")
    (item,) = list_inputs((str(tmp_path),)).inputs
    assert os.fsencode(item.uri) == path
    assert read(read_text(item.uri)).rows == ["content"]
    assert read(read_text(Path(item.uri).as_uri())).rows == ["content"]


@pytest.mark.parametrize("uri", ["file://{}", "file://localhost{}"])
def test_file_uris_are_paths(tree, uri):
    assert names(uri.format(f"{tree}/sub"), tree) == ["sub/c.csv", "sub/deep/d.txt"]
    assert names(uri.format(f"{tree}/**/*.csv"), tree) == ["sub/c.csv"]


def test_links_are_followed_but_never_in_a_circle(tree):
    (tree / "s2/up").symlink_to(tree)
    (tree / "s2/self").symlink_to("self")
    (tree / "s2/side").symlink_to(tree / "sub")
    assert names(tree / "s2", tree) == ["s2/k.txt", "s2/self", "s2/side/c.csv", "s2/side/deep/d.txt"]


def test_a_link_to_a_folder_whose_name_begins_alike_is_followed(tmp_path):
    write = writer(tmp_path)
    write("1\n", "data/x.txt")
    (tmp_path / "data-2").mkdir()
    (tmp_path / "data-2/link").symlink_to(tmp_path / "data")
    assert names(tmp_path / "data-2", tmp_path) == ["data-2/link/x.txt"]


@pytest.mark.parametrize("pattern", ["", "/*"])
def test_a_link_to_nothing_is_a_failure_of_that_file_only(tmp_path, pattern):
    write = writer(tmp_path)
    good = write("1\n", "good.txt")
    (tmp_path / "bad.txt").symlink_to("nowhere")
    seen = read(read_text(f"{tmp_path}{pattern}"))
    assert [(record[0], record[3]) for record in seen.records] == [(good, "1")]
    assert [(failure[0], failure[1]) for failure in seen.failures] == [(str(tmp_path / "bad.txt"), 1)]
    assert "No such file" in seen.messages[0]


def test_nothing_matches(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty/_hidden").mkdir(parents=True)
    here = f"(looked in {tmp_path})"
    for path, text in {
        "no.txt": f"'no.txt' does not exist {here}",
        "*.txt": f"no file matches '*.txt' {here}",
        "empty": f"the folder 'empty' holds no files {here}",
        "": f"'' does not exist {here}",
        "/no/such": "'/no/such' does not exist",
        "mock://b/x": "'mock://b/x' does not exist",
        "mock://b/*.x": "no file matches 'mock://b/*.x'",
    }.items():
        with pytest.raises(InputError) as caught:
            list_inputs((path,))
        assert str(caught.value) == text
    with pytest.raises(InputError, match="the list of paths is empty"):
        list_inputs(())
    with pytest.raises(InputError, match="'gone' does not exist"):
        list_inputs((str(tmp_path / "no"), "gone")[1:])


def test_a_uri_of_an_unknown_kind():
    with pytest.raises(InputError, match="cannot list 'gopher://x/y'"):
        list_inputs(("gopher://x/y",))


@pytest.fixture
def bucket(monkeypatch):
    """Make a bucket of the file system that Arrow keeps in memory for tests."""
    system, _ = filesystem("mock://bucket")
    for name in ("in/a.txt", "in/b.csv", "in/deep/c.txt", "in/_d/e.txt", "in/.f", "in/g [1].txt"):
        folder = f"bucket/{name}".rpartition("/")[0]
        system.create_dir(folder, recursive=True)
        with system.open_output_stream(f"bucket/{name}") as file:
            file.write(b"one\ntwo\n")
    return "mock://bucket"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/in", ["in/a.txt", "in/b.csv", "in/deep/c.txt", "in/g [1].txt"]),
        ("/in/", ["in/a.txt", "in/b.csv", "in/deep/c.txt", "in/g [1].txt"]),
        ("/in/*.txt", ["in/a.txt", "in/g [1].txt"]),
        ("/in/**/*.txt", ["in/_d/e.txt", "in/a.txt", "in/deep/c.txt", "in/g [1].txt"]),
        ("/in/[!a].csv", ["in/b.csv"]),
        ("/in/a.txt", ["in/a.txt"]),
    ],
)
def test_objects_of_a_store(bucket, path, expected):
    seen = read(read_text(bucket + path))
    assert [uri for uri, *_ in seen.records[::2]] == [f"{bucket}/{name}" for name in expected]
    assert seen.rows == ["one", "two"] * len(expected)


def test_objects_of_a_store_are_cut(bucket):
    assert read(read_text(f"{bucket}/in/a.txt"), 1) == read(read_text(f"{bucket}/in/a.txt"))
    (record,) = read(files(f"{bucket}/in/a.txt")).rows
    assert (record.read_bytes(), record.read_text(), record.path) == (b"one\ntwo\n", "one\ntwo\n", record.uri)


def test_a_store_with_a_host_keeps_it_in_the_names_of_its_objects(bucket, monkeypatch):
    system, _ = filesystem("mock://bucket")
    asked = []
    monkeypatch.setattr(uris, "_system", lambda root, _: asked.append(root) or system)
    found = list_inputs(("hdfs://host:8020/bucket/in/*.txt",)).inputs
    assert [item.uri for item in found] == [
        "hdfs://host:8020/bucket/in/a.txt",
        "hdfs://host:8020/bucket/in/g [1].txt",
    ]
    assert filesystem(found[0].uri)[1] == "/bucket/in/a.txt"
    assert set(asked) == {"hdfs://host:8020"}


def test_files_are_records(write):
    path = write("Grüße\r\n", "x.gz")
    ((uri, number, place, record),) = read(files(path)).records
    assert (uri, number, place) == (path, 1, (0, 9))
    assert (record.uri, record.path, record.size, str(record)) == (path, path, 9, path)
    assert record.read_text() == "Grüße\r\n"
    with record.open() as stream:
        assert stream.read(3) == b"Gr\xc3"
    assert files(path).table([record]).to_pylist() == [{"uri": path, "size": 9}]


@pytest.mark.parametrize("pattern", ["in/", "in/*.gz", "in/**/*", "in"])
def test_the_kind_of_a_folder_is_that_of_its_files(write, tmp_path, monkeypatch, pattern):
    for name in ("in/a.csv.gz", "in/b.csv.gz"):
        write(b"", name)
    monkeypatch.chdir(tmp_path)
    assert guess(pattern).kind == "csv"
    write(b"", "in/c.jsonl.gz")
    with pytest.raises(
        FormatError,
        match=r"what kind of input in.* is \(in/a.csv.gz and in/c.jsonl.gz differ\): add one of --read text",
    ):
        guess(pattern)


def test_the_kind_of_nothing_is_that_it_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no file matches 'in/\*.gz'"):
        guess("in/*.gz")


def test_dash_as_input_is_refused_in_one_sentence():
    with pytest.raises(InputError, match="'-' is not standard input: inputs are read more than once"):
        read_text("-").inputs()
