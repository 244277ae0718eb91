"""Public functions, each of which builds a `Job` and runs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

from batchflow.executors.processes.launcher import prestarted_fork_server

if TYPE_CHECKING:
    import pyarrow as pa

    from batchflow.combiner.result import Result
    from batchflow.core.resources import Resources
    from batchflow.core.retry import Retry
    from batchflow.executors import Executor
    from batchflow.io.sources import Source
    from batchflow.jobs.job import Job


def map_records(
    fn: Callable[..., Any],
    source: Source,
    *,
    into: str | os.PathLike[str] | None = None,
    format: str | None = None,  # noqa: A002 - the name a user expects
    setup: Callable[[], Any] | None = None,
    args: Mapping[str, Any] | None = None,
    combine: Callable[[pa.Table], Any] | None = None,
    limits: Resources | None = None,
    per_task: Resources | None = None,
    retry: Retry | None = None,
    timeout: float | None = None,
    concurrency: int | None = None,
    rate: float | str | None = None,
    max_errors: int | float | None = None,
    isolate: bool | None = None,
    chunk: int | str | None = None,
    part_size: int | str = "128MB",
    executor: Executor | str | None = None,
    progress: bool | None = None,
    version: str | None = None,
    fresh: bool = False,
) -> Result:
    """Call a function once per record, on all cores or on a cluster.

    Parameters
    ----------
    fn
        Gets a record. A mapping that it returns becomes a row; a scalar or list a row of the column
        ``value``; ``None`` gives no row; a generator gives many rows. Any other object comes back as
        it is in ``result.values``. A record for which it raises goes to the error table.
    source
        `read_text`, `read_json`, `read_csv`, `read_parquet`, `files` or `records`.
    into
        ``"dir/"``: a dataset of parts; ``"x.parquet"``: one file; ``None``: the result stays in memory.
        A URI, ``"s3://bucket/dir/"``, is written by the workers; it holds no credentials.
        Run again, a job goes on where the last run was, and adds what new input there is.
    format
        ``"parquet"`` (default), ``"csv"``, ``"jsonl"`` or ``"arrow"``.
    setup
        Called once in each worker process; its value is the second argument of ``fn``.
    args
        Keyword arguments for ``fn``, shipped once to each worker; large arrays share one memory.
    combine
        Makes a table smaller, and is associative; applied to each chunk and then, as a tree, to what
        neighbouring chunks gave, until one table is left.
    limits
        Caps of the whole job: cores and memory.
    per_task
        What one task asks for: as many run side by side as fit into the limits. A task that takes more
        memory, on top of an idle worker, is stopped (in worker processes on Linux).
    retry
        How often what failed is tried; by default once, three times where it raised `RetryAfter`, and
        whatever kills its worker until the record at fault is alone.
    timeout
        Seconds of one task, from when it really starts; one that takes longer is stopped, even in C
        code, and halved until the record at fault is alone. Waiting for a ``rate`` counts. Not by `Serial`.
    concurrency
        Calls at once in each worker, for functions that wait (for a server, say): an ``async def``, of
        which there are 100 at once if nothing is said, or a plain function, in threads. Rows stay in
        input order. ``setup=`` of an async function runs in the same loop as its calls, may be async
        too, and a client that it gives is closed there in the end. Not for functions of batches.
    rate
        Calls a second that all workers together may begin, retries included: a number, or a text like
        ``"50/s"``, ``"100/min"``, ``"1000/h"``, ``"50/s burst 10"``. In no second are there more than that
        and the burst, which is a hundredth of it and at least 1 unless it is named. A function that raises
        ``bf.errors.RetryAfter(seconds)`` has its record tried again then, and all calls wait as long.
    max_errors
        Rows of the error table that are too many: ``0`` stops at the first failure, ``n`` after n, a
        fraction of the records read (looked at from 1,000 records on), ``None`` collects them all.
    isolate
        Whether a chunk that fails as a whole, in ``combine=`` or in a function of batches, is halved
        until the records at fault are alone; otherwise all of it is one error. By default it is,
        unless ``max_errors=0``. Whatever ends a worker is halved in any case.
    chunk
        Size of chunks: records, or bytes like ``"8MB"``. By default they follow what is measured.
    part_size
        Bytes of each part of a dataset, about.
    executor
        `Serial`, `Processes`, `Ray`, or one of their names in lower case.
    progress
        Show a progress line; by default where standard error is a terminal, and else a line of text every
        ten seconds. ``BATCHFLOW_PROGRESS=off`` turns the default off.
    version
        Names the function in the place of its code: a job whose function was changed goes on with what
        is done, if it has a version.
    fresh
        Replace the output of an earlier run.

    Returns
    -------
    Result
        Rows, error table and report.

    Raises
    ------
    UsageError
        If the job cannot work; nothing has run then.
    StoppedError
        If more records failed than ``max_errors`` allows.
    OutputError
        If the output cannot be written, because a disk is full, say.
    """
    return _run("record", fn, source, into, locals())


def map_batches(
    fn: Callable[..., Any],
    source: Source,
    *,
    into: str | os.PathLike[str] | None = None,
    format: str | None = None,  # noqa: A002 - the name a user expects
    setup: Callable[[], Any] | None = None,
    args: Mapping[str, Any] | None = None,
    combine: Callable[[pa.Table], Any] | None = None,
    limits: Resources | None = None,
    per_task: Resources | None = None,
    retry: Retry | None = None,
    timeout: float | None = None,
    rate: float | str | None = None,
    max_errors: int | float | None = None,
    isolate: bool | None = None,
    chunk: int | str | None = None,
    part_size: int | str = "128MB",
    executor: Executor | str | None = None,
    progress: bool | None = None,
    version: str | None = None,
    fresh: bool = False,
) -> Result:
    """Call a function once per table of some records, on all cores or on a cluster.

    Parameters
    ----------
    fn
        Gets a `pyarrow.Table` and returns a table, record batch, dict of arrays, or a pandas or
        Polars frame; ``None`` gives no rows. How many records a table has follows the size of the
        chunks, so the function should not depend on it. A chunk for which it raises is halved until
        the records at fault stand alone in the error table.
    source, into, format, setup, args, combine, limits, per_task, retry, timeout, rate, max_errors, chunk
        As for `map_records`.
    part_size, isolate, executor, progress, version, fresh
        As for `map_records`.

    Returns
    -------
    Result
        Rows, error table and report.

    Raises
    ------
    UsageError
        If the job cannot work; nothing has run then.
    StoppedError
        If more records failed than ``max_errors`` allows.
    OutputError
        If the output cannot be written, because a disk is full, say.
    """
    return _run("batch", fn, source, into, locals())


def stream_batches(
    fn: Callable[..., Any],
    source: Source,
    *,
    per: Literal["record", "batch"] = "batch",
    ordered: bool = True,
    setup: Callable[[], Any] | None = None,
    args: Mapping[str, Any] | None = None,
    limits: Resources | None = None,
    per_task: Resources | None = None,
    retry: Retry | None = None,
    timeout: float | None = None,
    concurrency: int | None = None,
    rate: float | str | None = None,
    max_errors: int | float | None = 0,
    chunk: int | str | None = None,
    executor: Executor | str | None = None,
    progress: bool | None = None,
) -> Iterator[pa.Table]:
    """Yield result tables with bounded memory; closing the iterator stops the work.

    Parameters
    ----------
    fn
        As for `map_batches`, or with ``per="record"`` as for `map_records`.
    source, setup, args, limits, per_task, retry, timeout, concurrency, rate, chunk, executor, progress
        As for `map_records`.
    per
        What ``fn`` gets.
    ordered
        In input order; otherwise in the order of completion.
    max_errors
        As for `map_records`, but ``0`` by default: a stream has no error table to look at.

    Yields
    ------
    pyarrow.Table
        Rows of one chunk.

    Raises
    ------
    UsageError, StoppedError
        As for `map_records`.
    """
    options = {name: value for name, value in locals().items() if name != "ordered"}
    return _job(options).stream(ordered=ordered)


_ASYNC = 0x80 | 0x200
"""Code flags of ``async def``, with ``yield`` or without; importing `inspect` for them takes 5 ms."""


def _run(per: str, fn: Callable[..., Any], source: Source, into: Any, options: dict[str, Any]) -> Result:
    del fn, source
    options |= {"per": per, "into": None if into is None else os.fspath(into)}
    with _ahead(per, options):
        return _job(options).run()


def _ahead(per: str, options: dict[str, Any]) -> AbstractContextManager[None]:
    """Prestart a worker process or the zygote while the rest of batchflow is loading."""
    task = options["per_task"]
    writes = options.get("into") is not None
    arrow = per == "batch" or writes or not getattr(options["source"], "in_memory", False)
    # Whatever it is: the plan refuses what is no amount.
    executor = "ray" if getattr(task, "needs_ray", False) else options["executor"]
    threads = int(getattr(task, "cpus", None) or 1) or 1
    is_async = getattr(getattr(options["fn"], "__code__", None), "co_flags", 0) & _ASYNC
    waits = bool(options.get("concurrency") or is_async)
    return prestarted_fork_server(
        executor, threads=threads, arrow=arrow, rows=writes and per == "record", waits=waits
    )


def _job(options: dict[str, Any]) -> Job:
    """Return a job; options left at ``None`` take its defaults."""
    from batchflow.jobs.job import Job  # only now that a worker is starting

    optional = {"args", "limits", "per_task", "retry"}
    return Job(**{name: value for name, value in options.items() if value is not None or name not in optional})
