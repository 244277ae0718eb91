"""A job as it is tried out: what it writes goes to a folder that is removed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from batchflow.errors import DestinationError
from batchflow.plan import JobSpec
from batchflow.stores import Place, is_uri


@contextmanager
def room(spec: JobSpec) -> Iterator[tuple[JobSpec, list[str]]]:
    """Give a job that writes beside its output, on the same disk, and what is to be known of that.

    Raises
    ------
    DestinationError
        If nothing can be written there.
    """
    if spec.into is None:
        yield replace(spec, fresh=False), []
        return
    into = os.fspath(spec.into)
    folder = _made(into)
    notes = [f"written to a temporary folder of this machine, and not to {into}"] if is_uri(into) else []
    try:
        name = into.rstrip("/").rpartition("/")[2] + ("/" if into.endswith("/") else "")
        yield replace(spec, into=f"{folder}/{name}", fresh=True), notes
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def output_of(spec: JobSpec) -> Place | None:
    """Return the output of a job, whatever is there."""
    if spec.into is None:
        return None
    from batchflow.destinations import canonical_place

    return canonical_place(os.fspath(spec.into))


def _made(into: str) -> str:
    """Return a new folder beside an output, or below the nearest folder above it that there is."""
    if is_uri(into):
        return tempfile.mkdtemp(prefix="bf-try-")
    parents = Path(into).expanduser().absolute().parents
    parent = next(one for one in parents if one.exists())
    try:
        return tempfile.mkdtemp(prefix=".bf-try-", dir=parent)
    except OSError as error:
        message = f"cannot write to {into}: {error.strerror} in {parent}"
        raise DestinationError(message) from error
