"""Conflict check of the files and folders that the steps of a flow read and write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from batchflow.checkpoint.destination_checks import canonical_place
from batchflow.core.text import printable
from batchflow.errors import UsageError
from batchflow.io.sources.listing import place_of_root
from batchflow.io.stores import is_uri

IsBefore: TypeAlias = Callable[[int, int], bool]


class StepPlaces:
    """Paths of the steps of a flow."""

    def __init__(self) -> None:
        self._writers: dict[str, tuple[int, str]] = {}
        self._readers: dict[str, list[tuple[int, str]]] = {}

    def add(self, number: int, name: str, into: str | None, paths: Sequence[str], is_before: IsBefore) -> None:
        """Add the output and input paths of a new step.

        Parameters
        ----------
        is_before
            Tells whether one step, by its number, has ended when another one begins.

        Raises
        ------
        UsageError
            If another step writes the same place, or reads or writes it without an order between the two.
        """
        written = None if into is None else str(canonical_place(into))
        if written is not None:
            self._check_written(number, name, written, is_before)
        for path in paths:
            self._check_read(number, name, path, is_before)
        if written is not None:
            self._writers[written] = number, name

    def _check_written(self, number: int, name: str, written: str, is_before: IsBefore) -> None:
        other = self._writers.get(written)
        if other is not None:
            message = f"steps {other[1]!r} and {name!r} both write {printable(written)}: give each its own into="
            raise UsageError(message)
        for reader, reading in self._readers.get(written, ()):
            if not is_before(reader, number):
                raise _unordered(reading, name, written)

    def _check_read(self, number: int, name: str, path: str, is_before: IsBefore) -> None:
        root = place_of_root(path)
        for place in _with_parents(root):
            writer = self._writers.get(place)
            if writer is not None and not is_before(writer[0], number):
                raise _unordered(name, writer[1], place)
            self._readers.setdefault(place, []).append((number, name))
        if is_uri(path) or os.path.exists(root):
            return
        for place, (writing, other) in self._writers.items():  # what is not there yet is made by steps
            if place.startswith(f"{root}/") and not is_before(writing, number):
                raise _unordered(name, other, place)


def _with_parents(place: str) -> Iterator[str]:
    """Yield a path and its parent folders."""
    top = place.find("/", place.find("://") + 3) if is_uri(place) else 0
    while len(place) > max(top, 1):
        yield place
        place = place.rpartition("/")[0]


def _unordered(reader: str, writer: str, place: str) -> UsageError:
    return UsageError(
        f"step {reader!r} reads {printable(place)}, which step {writer!r} writes, at any time: "
        f"add after=flow[{writer!r}] to {reader!r}"
    )
