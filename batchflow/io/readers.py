"""The public readers: each describes an input and reads nothing yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchflow.core.text import did_you_mean
from batchflow.errors import FormatError
from batchflow.io.sources import Source

if TYPE_CHECKING:
    from batchflow.io.sources.paths import Paths
    from batchflow.io.stores import Place


def _tuple(paths: Paths) -> tuple[str, ...]:
    """Return one path or many as text."""
    from batchflow.io.sources.paths import as_paths  # records in memory need none

    return as_paths(paths)


def read_text(paths: Paths, *, encoding: str = "utf-8") -> Source:
    """Describe text files; a record is a line as `str`, without its line ending.

    Parameters
    ----------
    paths
        A path, folder, glob (with ``**``), URI, or a list of them. A file counts once, whatever leads to
        it, and the output of the job is no input. Compressed files (gz, bz2, zst, lz4, xz) are known by
        suffix or by their first bytes.
    encoding
        Of the text, any of Python's. Files in encodings based on ASCII with one byte for each character are
        cut like UTF-8; of others each file is one chunk.

    Returns
    -------
    Source
        In `map_batches` a table with the column ``value``.

    Raises
    ------
    FormatError
        If Python has no such encoding.
    """
    from batchflow.io.sources.text import TextSource
    from batchflow.io.sources.text_encoding import check_encoding

    return TextSource(_tuple(paths), check_encoding(encoding))


def read_json(paths: Paths, *, types: Any = None, encoding: str = "utf-8") -> Source:
    """Describe JSON Lines files; a record is what is on one line, most often a `dict`.

    Parameters
    ----------
    paths
        As for `read_text`. Blank lines are no records.
    types
        In `map_batches`, of columns: a mapping from column to type (`str`, `int`, `float`, `bool`,
        `datetime.date`, `datetime.datetime` or a type of pyarrow), or a `pyarrow.Schema`. Other columns and
        their types are inferred once for all files, as by `read_csv`. A record with another field, or with
        a value that does not fit, is a read error; a column of `str` holds other values as JSON text.
    encoding
        As for `read_text`.

    Raises
    ------
    FormatError
        If a type is none that a column can have, or Python has no such encoding.
    """
    from batchflow.io.sources.json_lines import JsonSource
    from batchflow.io.sources.text_encoding import check_encoding

    named = None
    if types is not None:
        from batchflow.io.sources.json_types import plain_types

        named = plain_types(types)
    return JsonSource(_tuple(paths), check_encoding(encoding), named)


def read_csv(
    paths: Paths,
    *,
    types: Any = None,
    delimiter: str = ",",
    quote: str | None = '"',
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
) -> Source:
    r"""Describe CSV files, read exactly as Python's `csv` module reads them; a record is a `dict`.

    Parameters
    ----------
    paths
        As for `read_text`.
    types
        ``None``: int, float, bool or str for each column, inferred once for all files from the first 1,000
        records of five of them: the first and the last by name that have records, and three between. A
        column that none of these has is text. ``str``: every cell is text. A mapping from column to type
        (also `datetime.date`, `datetime.datetime`), or a `pyarrow.Schema`, for some columns or all. A cell
        that does not fit is a read error of its record, and so is one that an inferred type would change:
        ``02134``, ``+33``, 20 digits in a column of floats. An empty cell is ``None``, in a text column ``""``.
    delimiter, quote
        One character each; ``quote=None``: quotes are text.
    columns
        Names of the columns, for files without a header line.
    encoding
        As for `read_text`.

    Raises
    ------
    FormatError
        If a type or a character is none that CSV can have, or Python has no such encoding.
    """
    from batchflow.io.sources.csv import CsvSource, column_types
    from batchflow.io.sources.text_encoding import check_encoding

    marks = [delimiter] if quote is None else [delimiter, quote]
    if any(len(mark) != 1 or mark in "\r\n" for mark in marks) or delimiter == quote:
        message = f"delimiter={delimiter!r} and quote={quote!r} must be one character each, and not the same"
        raise FormatError(message)
    names = None if columns is None else tuple(columns)
    return CsvSource(_tuple(paths), delimiter, quote, names, column_types(types), check_encoding(encoding))


def read_parquet(paths: Paths, *, columns: Sequence[str] | None = None) -> Source:
    """Describe Parquet files; a record is a row as `dict`.

    Parameters
    ----------
    paths
        As for `read_text`.
    columns
        Names of the columns to read; ``None``: all.
    """
    from batchflow.io.sources.parquet import ParquetSource

    return ParquetSource(_tuple(paths), None if columns is None else tuple(columns))


def files(paths: Paths) -> Source:
    """Describe whole files; a record is a `File` with ``uri``, ``size``, ``open()``, ``read_text()``.

    Parameters
    ----------
    paths
        As for `read_text`; compressed files are given as they are.
    """
    from batchflow.io.sources.whole_files import WholeFiles

    return WholeFiles(_tuple(paths))


def records(data: Iterable[Any] | Any) -> Source:
    """Describe records in memory: a list, range, generator, Arrow table, pandas or Polars frame.

    A generator is read as the work goes on, once, and never held as a whole.

    Raises
    ------
    InputError
        If the data cannot be iterated over, or is text, bytes or a mapping.
    """
    from batchflow.io.sources.in_memory import as_records

    return as_records(data)


def again(options: Mapping[str, Any], paths: Sequence[str]) -> Source | None:
    """Return the source that an earlier run described; ``None`` where it was in the memory of a program.

    Parameters
    ----------
    options
        What `Source.options` gave then.
    paths
        Of its inputs.
    """
    if options["kind"] not in _READERS:
        return None
    if options["kind"] == "csv":
        return read_csv(
            paths,
            types=options["types"],
            delimiter=options["delimiter"],
            quote=options["quote"],
            columns=options["columns"],
            encoding=options["encoding"],
        )
    if options["kind"] == "parquet":
        return read_parquet(paths, columns=options["columns"])
    if options["kind"] in ("text", "json"):
        own = {name: value for name, value in options.items() if name in ("encoding", "types")}
        return _READERS[options["kind"]](paths, **own)
    return _READERS[options["kind"]](paths)


_READERS: dict[str, Callable[..., Source]] = {
    "text": read_text,
    "json": read_json,
    "csv": read_csv,
    "parquet": read_parquet,
    "files": files,
}
_OPTIONS = {"text": ("encoding",), "json": ("encoding", "types")}
"""Options that readers other than that of CSV share with it."""
_KINDS = {
    "txt": "text",
    "log": "text",
    "md": "text",
    "json": "json",
    "jsonl": "json",
    "ndjson": "json",
    "csv": "csv",
    "tsv": "csv",
    "parquet": "parquet",
    "pq": "parquet",
}


def guess(
    paths: Paths,
    kind: str | None = None,
    options: Mapping[str, Any] | None = None,
    output: Place | None = None,
) -> Source:
    """Return the source for paths by the kind that was named, or that suffixes show: theirs, or of what is there.

    Parameters
    ----------
    kind
        Of the input, if it is named.
    options
        Of the reader, as its arguments.
    output
        Of the job, whose files are none of its inputs.

    Raises
    ------
    FormatError
        If no kind is known for them, or more than one.
    InputError
        If a path that shows none matches no file.
    """
    names = _tuple(paths)
    seen: Sequence[str] = names
    if kind is None and _kinds(names) == {""}:  # folders, patterns like ``in/*.gz``
        from batchflow.io.sources.listing import list_inputs  # others are listed later

        seen = [item.uri for item in list_inputs(names, output).inputs]
    kinds = {kind} if kind else _kinds(seen)
    kind = kinds.pop() if len(kinds) == 1 else ""
    if kind and kind not in _READERS:
        known = ", ".join(_READERS)
        message = f"unknown kind of input {kind!r}: use one of {known}{did_you_mean(kind, _READERS)}"
        raise FormatError(message)
    if kind not in _READERS:
        known = ", --read ".join(_READERS)
        given = ", ".join(names[:3])
        message = f"cannot tell what kind of input {given} is{_odd(seen)}: add one of --read {known}"
        raise FormatError(message)
    if kind == "csv":
        tabs = {"delimiter": "\t"} if all(".tsv" in name.lower() for name in seen) else {}
        return read_csv(names, **{**tabs, **(options or {})})
    for option in sorted(options or ()):
        if option not in _OPTIONS.get(kind, ()):
            message = f"--{option} is for CSV, and the input is {kind}: leave it out, or add --read csv"
            raise FormatError(message)
    return _READERS[kind](names, **(options or {}))


def _odd(names: Sequence[str]) -> str:
    """Return which files differ in kind, one of each."""
    firsts: dict[str, str] = {}
    for name in names:
        firsts.setdefault(min(_kinds([name])), name)
    return f" ({' and '.join(firsts.values())} differ)" if len(firsts) > 1 else ""


def _kinds(names: Iterable[str]) -> set[str]:
    """Return the kinds that suffixes show, an empty word for one that is not known."""
    from batchflow.io.sources.compression import by_suffix

    plain = (name.rpartition(".")[0] if by_suffix(name) else name for name in names)
    return {_KINDS.get(name.rpartition(".")[2].lower(), "") for name in plain}
