"""The journal of an output on an object store, where nothing can be appended to.

::

    .clean_batchflow/ledger.log                  all lines up to byte 52,113, as on a disk
    .clean_batchflow/ledger/000000000052113.log  the lines from there on that came between two syncs
    .clean_batchflow/ledger/000000000058002.log  and so on; each begins where the one before ends

A segment is named by where it begins, so a gap shows, and one that is in ``ledger.log`` already, since a
driver died before it removed it, counts no more. When a job ends, and when segments have become many, all
lines are written as one object.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from batchflow.errors import LedgerError
from batchflow.ledger.history import LEDGER
from batchflow.stores import Uri, store_of

FOLDER = "ledger"
"""Of the segments, beside the whole ledger."""
_THREADS = 16
"""Segments read at once."""
_LOOKS = 3
"""Times that lines are read which a run is just moving."""
_NAME = re.compile(r"(\d{15})\.log")


def read_all(meta: Uri) -> bytes:
    """Return all lines.

    Raises
    ------
    LedgerError
        If some in their midst are gone.
    """
    for _ in range(_LOOKS):
        try:
            found = _look(meta)
        except FileNotFoundError:
            continue  # a run has just made one object of them
        if found is not None:
            return found
    message = f"lines of {meta / LEDGER} are gone: a segment of it in {meta / 'ledger'} was removed"
    raise LedgerError(message)


def _look(meta: Uri) -> bytes | None:
    """Return all lines, ``None`` if some are missing."""
    store = store_of(meta)
    names = map(_NAME.fullmatch, store.sizes(meta / FOLDER))  # before what they may just become part of
    starts = sorted(int(name[1]) for name in names if name)
    data = store.read(meta / LEDGER) if store.size(meta / LEDGER) is not None else b""
    starts = [start for start in starts if start >= len(data)]
    with ThreadPoolExecutor(_THREADS) as pool:
        segments = list(pool.map(lambda start: store.read(segment(meta, start)), starts))
    ends = [len(data)]
    for lines in segments:
        ends.append(ends[-1] + len(lines))
    return b"".join([data, *segments]) if starts == ends[:-1] else None


def segment(meta: Uri, start: int) -> Uri:
    """Return the name of the segment that begins at a byte."""
    return meta / FOLDER / f"{start:015d}.log"
