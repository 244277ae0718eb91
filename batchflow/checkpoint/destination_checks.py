"""Checks of an output location: what exists there already or cannot be written is refused."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from batchflow.checkpoint.ledger_reader import has_ledger
from batchflow.core.text import printable
from batchflow.errors import DestinationError
from batchflow.io.formats.base import format_of, name_of
from batchflow.io.stores import Place, Uri, is_uri, meta_of, place_of, store_of, why_refused

if TYPE_CHECKING:
    from batchflow.io.stores import Place

from batchflow.checkpoint.destination import Destination


def destination_of(into: str | os.PathLike[str], format_name: str | None) -> Destination:
    """Return the destination that a user named; raises `DestinationError`."""
    into = os.fspath(into)
    if is_uri(into):
        _refuse_uri(into)
    if into.startswith("~") and os.path.expanduser(into) == into:
        message = f"{into} begins with the home of a user who is not known here; a folder of that name is ./{into}"
        raise DestinationError(message)
    name, one_file = name_of(into, format_name)
    format_of(name)
    destination = Destination(canonical_place(into), name, one_file)
    try:
        _refuse_topmost(destination.path)
        if isinstance(destination.path, Uri):
            _refuse_unreachable(destination.path)
        else:
            _refuse_forbidden(destination.path)
        _refuse_foreign(destination)
    except OSError as error:  # a name that is too long, or a loop of links
        if isinstance(error, DestinationError):
            raise
        message = f"cannot write to {destination.path}: {error.strerror or error}"
        raise DestinationError(message) from error
    return destination


def canonical_place(text: str | os.PathLike[str]) -> Place:
    """Return the place that a path or URI names, without symbolic links: metadata is next to the real output.

    The path is absolute, as a function may change the working directory.
    """
    place = place_of(os.fspath(text))
    return place if isinstance(place, Uri) else Path(os.path.realpath(place))


def _folders_above(path: Place) -> Iterable[Place]:
    """Return the folders that hold a place; none at a store, where looking into each takes requests."""
    return () if isinstance(path, Uri) else path.parents[:-1]


def _refuse_topmost(path: Place) -> None:
    """Refuse a bucket, the root folder or a mount point: its metadata would have no place next to it."""
    topmost = "/" not in path.text.partition("://")[2] if isinstance(path, Uri) else os.path.ismount(path)
    if topmost:
        end = str(path).rstrip("/")
        message = f"cannot write to {path} itself, as metadata is stored next to an output: use {end}/output/"
        raise DestinationError(message)


def _refuse_uri(into: str) -> None:
    """Refuse a URI that holds what is no part of a name."""
    refused = why_refused(into)
    if refused is None and "?" in into:
        refused = f"into={into!r}: no options are taken behind '?': set AWS_ENDPOINT_URL, AWS_REGION and the like"
    if refused is not None:
        raise DestinationError(refused)


def _refuse_unreachable(path: Uri) -> None:
    """Refuse a bucket that is not there, or does not let itself be asked."""
    scheme, _, rest = path.text.partition("://")
    bucket = Uri(f"{scheme}://{rest.partition('/')[0]}")
    try:
        known = store_of(path).sizes(path) or scheme != "s3" or store_of(bucket).kind(bucket)
    except (OSError, ValueError) as error:
        message = f"cannot reach {path}: {printable(str(error))}"
        raise DestinationError(message) from error
    if not known:
        message = f"cannot write to {path}: there is no bucket {bucket}"
        raise DestinationError(message)


def _refuse_forbidden(path: Path) -> None:
    """Refuse an output that cannot be written, or whose metadata cannot be."""
    parent = next(above for above in path.parents if above.exists())
    if not parent.is_dir():
        message = f"cannot write to {path}: {parent} is a file"
        raise DestinationError(message)
    for folder in (parent, path):
        if folder.exists() and not os.access(folder, os.W_OK):
            message = f"cannot write to {path}: no permission for {folder}"
            raise DestinationError(message)


def _refuse_foreign(destination: Destination) -> None:
    path, store = destination.path, destination.store
    kind = store.kind(path)
    if kind == "folder" and destination.one_file:
        message = f"{path} is a folder: end the name of a dataset with '/'"
        raise DestinationError(message)
    if kind == "file" and not destination.one_file:
        message = f"{path} is a file, but the output is a folder of parts: choose another name"
        raise DestinationError(message)
    if outer := next((above for above in _folders_above(path) if has_ledger(meta_of(above))), None):
        message = f"cannot write to {path}: it is in {outer}, the output of another job; choose another output"
        raise DestinationError(message)
    taken = kind == "file" or store.sizes(path)
    if taken and not has_ledger(destination.meta):
        message = f"{path} exists and was not made by batchflow: choose another destination or remove it"
        raise DestinationError(message)
