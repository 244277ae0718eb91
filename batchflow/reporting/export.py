"""Exported reports of a run: JSON, an HTML page, and a trace."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from batchflow.errors import InputError, OutputError, UsageError
from batchflow.io.stores import Place, Uri, place_of, store_of

if TYPE_CHECKING:
    from pathlib import Path

VALUES, PAGE, TRACE = "report.json", "report.html", "trace.json"


def values(told: Mapping[str, Any]) -> bytes:
    """Return the run record as JSON."""
    return json.dumps(told, default=str).encode()


def page(told: Mapping[str, Any]) -> bytes:
    """Return the run record as one HTML file."""
    from batchflow.reporting.html import page_of  # only for those who look

    return page_of(told).encode()


def trace(told: Mapping[str, Any]) -> bytes:
    """Return the run record as a trace for Chrome and Perfetto."""
    from batchflow.reporting.chrome_trace import trace as trace_of

    return json.dumps(trace_of(told), default=str).encode()


def render_reports(told: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files that a run leaves, by their names; without one that cannot be made, which costs no rows."""
    made: dict[str, bytes] = {}
    for name, make in ((VALUES, values), (PAGE, page), (TRACE, trace)):
        try:
            made[name] = make(told)
        except Exception:  # a mistake of ours in a picture must not fail the work of hours
            import logging  # 4 ms, needed only here

            logging.getLogger("batchflow").exception("cannot make %s, which is left out", name)
    return made


def read(meta: Place) -> dict[str, Any]:
    """Return the record of the last run of an output.

    Raises
    ------
    InputError
        If it has not left that.
    """
    place = meta / VALUES
    try:
        told: dict[str, Any] = json.loads(store_of(meta).read(place))
        told["timeline"], told["environment"]
    except (OSError, ValueError, TypeError, LookupError) as error:
        why = f"there is no {place}" if isinstance(error, FileNotFoundError) else f"{place} is not one: {error!r}"
        message = f"no report: {why}; a job leaves one when its run ends, finished or not"
        raise InputError(message) from error
    return told


def local_copy(place: Place) -> Path:
    """Return a file that a browser can open: of an object, a copy in a temporary folder."""
    if not isinstance(place, Uri):
        return place
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp(prefix="batchflow-report-"), place.name)
    path.write_bytes(store_of(place).read(place))
    return path


def save(told: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a report to a path or a URI, in the format of its suffix.

    Raises
    ------
    UsageError
        If it tells none, or there is no such folder.
    OutputError
        If it cannot be written.
    """
    make = report_renderer(path)
    place = place_of(os.fspath(path))
    try:
        store_of(place).write(place, make(told))
    except OSError as error:
        message = f"cannot write the report {place}: {error.strerror or error}"
        raise OutputError(message) from error


def report_renderer(path: str | os.PathLike[str]) -> Callable[[Mapping[str, Any]], bytes]:
    """Return the renderer for a file name.

    Raises
    ------
    UsageError
        If its suffix tells of none, or it is to lie in a folder that is not there.
    """
    name = os.fspath(path)
    place = place_of(name)
    if not isinstance(place, Uri) and not place.parent.is_dir():
        message = f"cannot save a report as {name}: there is no folder {place.parent}"
        raise UsageError(message)
    makers = {".html": page, ".trace.json": trace, ".json": values}
    for suffix, make in makers.items():
        if name.lower().endswith(suffix):
            return make
    message = f"cannot save a report as {name}: name it .html (a page), .json (values) or .trace.json (a trace)"
    raise UsageError(message)
