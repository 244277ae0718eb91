"""Public readers: each describes an input without reading it."""

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
    """Return one or more paths as text."""
    from batchflow.io.sources.paths import as_paths  # not needed for records in memory

    return as_paths(paths)


def read_text(paths: Paths, *, encoding: str = "utf-8") -> Source:
    """Describe text files; each record is one line as `str`, without its line ending.

    Parameters
    ----------
    paths
        A path, folder, glob (with ``**``), URI, or a list of them. A file matched more than once counts once,
        and the output of the job is never an input. Compressed files (gz, bz2, zst, lz4, xz) are recognized
        by suffix or by their first bytes.
    encoding
        Encoding of the text: any that Python supports. Files in single-byte encodings based on ASCII are split
        like UTF-8; in other encodings each file is one chunk.

    Returns
    -------
    Source
        In `map_batches`, a table with the column ``value``.

    Raises
    ------
    FormatError
        If Python does not support the encoding.
    """
    from batchflow.io.sources.text import TextSource
    from batchflow.io.sources.text_encoding import check_encoding

    return TextSource(_tuple(paths), check_encoding(encoding))


def read_json(paths: Paths, *, types: Any = None, encoding: str = "utf-8") -> Source:
    """Describe JSON Lines files; each record is the value on one line, usually a `dict`.

    Parameters
    ----------
    paths
        As for `read_text`. Blank lines are skipped.
    types
        Column types in `map_batches`: a mapping from column to type (`str`, `int`, `float`, `bool`,
        `datetime.date`, `datetime.datetime` or a pyarrow type), or a `pyarrow.Schema`. Types of other columns
        are inferred once for all files, as by `read_csv`. A record with an unexpected field or a value that
        does not fit is a read error; a `str` column stores other values as JSON text.
    encoding
        As for `read_text`.

    Raises
    ------
    FormatError
        If a type cannot be a column type, or Python does not support the encoding.
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
    r"""Describe CSV files, parsed exactly as Python's `csv` module does; each record is a `dict`.

    Parameters
    ----------
    paths
        As for `read_text`.
    types
        ``None``: int, float, bool or str for each column, inferred once for all files from the first 1,000
        records of five files: the first and last non-empty ones by name and three in between. A column
        that none of these has is text. ``str``: every cell is text. A mapping from column to type (also
        `datetime.date`, `datetime.datetime`), or a `pyarrow.Schema`, for some or all columns. A cell that
        does not fit is a read error of its record, and so is a cell that an inferred type would change:
        ``02134``, ``+33``, 20 digits in a float column. An empty cell is ``None``, in a text column ``""``.
    delimiter, quote
        One character each; ``quote=None`` treats quotes as text.
    columns
        Column names, for files without a header line.
    encoding
        As for `read_text`.

    Raises
    ------
    FormatError
        If a type or character is not valid for CSV, or Python does not support the encoding.
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
    """Describe Parquet files; each record is one row as a `dict`.

    Parameters
    ----------
    paths
        As for `read_text`.
    columns
        Columns to read; ``None``: all.
    """
    from batchflow.io.sources.parquet import ParquetSource

    return ParquetSource(_tuple(paths), None if columns is None else tuple(columns))


def files(paths: Paths) -> Source:
    """Describe whole files; each record is a `File` with ``uri``, ``size``, ``open()``, ``read_text()``.

    Parameters
    ----------
    paths
        As for `read_text`; compressed files are not decompressed.
    """
    from batchflow.io.sources.whole_files import WholeFiles

    return WholeFiles(_tuple(paths))


def records(data: Iterable[Any] | Any) -> Source:
    """Describe records in memory: a list, range, generator, Arrow table, pandas or Polars frame.

    A generator is consumed once as the job proceeds and is never held as a whole.

    Raises
    ------
    InputError
        If the data is not iterable, or is text, bytes or a mapping.
    """
    from batchflow.io.sources.in_memory import as_records

    return as_records(data)


def again(options: Mapping[str, Any], paths: Sequence[str]) -> Source | None:
    """Rebuild the source of an earlier run; ``None`` if it was in the memory of a program.

    Parameters
    ----------
    options
        Value of `Source.options` in the earlier run.
    paths
        Paths of its inputs.
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
"""Options that other readers share with the CSV reader."""
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
    """Return the source for paths, by the named kind or by the suffixes of the paths or of the files in them.

    Parameters
    ----------
    kind
        Kind of the input, if named.
    options
        Arguments for the reader.
    output
        Output of the job, whose files are never inputs.

    Raises
    ------
    FormatError
        If the kind is unknown or ambiguous.
    InputError
        If a path whose suffix shows no kind matches no file.
    """
    names = _tuple(paths)
    seen: Sequence[str] = names
    if kind is None and _kinds(names) == {""}:  # folders and patterns like ``in/*.gz``
        from batchflow.io.sources.listing import list_inputs  # other inputs are listed later

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
    """Describe which files differ in kind, with one example of each."""
    firsts: dict[str, str] = {}
    for name in names:
        firsts.setdefault(min(_kinds([name])), name)
    return f" ({' and '.join(firsts.values())} differ)" if len(firsts) > 1 else ""


def _kinds(names: Iterable[str]) -> set[str]:
    """Return the kinds that suffixes show, with ``""`` for unknown ones."""
    from batchflow.io.sources.compression import by_suffix

    plain = (name.rpartition(".")[0] if by_suffix(name) else name for name in names)
    return {_KINDS.get(name.rpartition(".")[2].lower(), "") for name in plain}
