"""Timeline of a run: the tasks of each worker and sums over time, in bounded memory."""

from __future__ import annotations

import heapq
import math
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from batchflow.events import Event, JobStarted, SlotsChanged, TaskEnded

BINS = 240
"""At most; at least half as many are in use once time has run for a while."""
_FIRST_WIDTH = 0.001


class Bins:
    """Amounts by time: memory and cost do not grow with how many are added, or over how long.

    Parameters
    ----------
    fields
        Amounts that are added at a time.

    Attributes
    ----------
    width : float
        Of a bin, in seconds.
    """

    def __init__(self, fields: int) -> None:
        self._fields = fields
        self.width: float = _FIRST_WIDTH
        self._sums: dict[int, array[float]] = {}

    @property
    def tracks(self) -> list[int]:
        """What was added to, in ascending order."""
        return sorted(self._sums)

    def add(self, track: int, start: float, seconds: float, amounts: Sequence[float]) -> None:
        """Spread amounts evenly over the time from a start on."""
        end = start + seconds
        first, last = int(start / self.width), int(end / self.width)
        while last >= BINS:
            self._widen()
            first, last = first // 2, last // 2
        sums = self._sums.get(track)
        if sums is None:
            sums = self._sums[track] = array("d", bytes(8 * BINS * self._fields))
        if first == last:
            at = first * self._fields
            for amount in amounts:
                sums[at] += amount
                at += 1
            return
        for at in range(first, last + 1):
            share = (min(end, (at + 1) * self.width) - max(start, at * self.width)) / seconds
            for field, amount in enumerate(amounts, at * self._fields):
                sums[field] += share * amount

    def _widen(self) -> None:
        """Make bins twice as wide, two into one."""
        self.width *= 2
        wide = 2 * self._fields
        for track, old in self._sums.items():
            new = array("d", bytes(8 * BINS * self._fields))
            for at in range(BINS // 2):
                pair = old[at * wide : (at + 1) * wide]
                for field in range(self._fields):
                    new[at * self._fields + field] = pair[field] + pair[self._fields + field]
            self._sums[track] = new

    def rows(self, track: int, join: int = 1) -> Iterator[tuple[int, Sequence[float]]]:
        """Yield the number and the sums of each bin of a track that is not empty.

        Parameters
        ----------
        join
            Bins in a row that are taken as one.
        """
        sums = self._sums.get(track, ())
        wide = join * self._fields
        for at in range(-(-len(sums) // wide)):
            row = sums[at * wide : (at + 1) * wide]
            if any(row):
                yield at, [sum(row[field :: self._fields]) for field in range(self._fields)]


TASKS = 4000
"""That are kept one by one: what a screen can show, and a few MB."""
TRACKS = 256
"""Workers that are told apart; those beyond share the last track."""
CELLS = 20_000
"""Bins of all tracks that are told of: where there are many tracks some in a row become one."""
MARKS = 500
"""Tries that failed, deaths and further tries that are told of one by one."""
SLOWEST = 12
CHANGES = 200
"""Of the number of slots, and of the largest memory, that are told of."""
STEPS = 5
"""Of the histogram, in each power of ten."""
STATES = ("ok", "some failed", "failed", "tried again", "died")
_OK, _SOME_FAILED, _FAILED, _AGAIN, _DIED = range(len(STATES))

_RISE = 1.02
"""By which the largest memory must have grown to be told of again."""


class TaskRecord(NamedTuple):
    """One task as it is kept; seconds, from the start of the run on."""

    track: int
    start: float
    seconds: float
    read: float
    call: float
    convert: float
    write: float
    attempt: int
    state: int
    """Place in `STATES`."""
    retries: int
    """Calls with records that were tried before."""
    source: str
    first: int | None
    """Range of the source."""
    last: int | None
    spans: int
    """Inputs, of which the source is the first."""
    records: int
    rows: int
    failed: int
    nbytes: int
    isolating: int
    """1 if it tried records of a task that broke off, or failed as a whole."""


class Timeline:
    """A listener that keeps when each worker did what, in bounded memory.

    Attributes
    ----------
    epoch : float
        When the run began, in seconds since the epoch.
    """

    def __init__(self) -> None:
        self.epoch: float = time.time()
        self._tracks: dict[str, int] = {}
        self._laps: list[TaskRecord] | None = []
        self._bins = Bins(_SUMS)
        self._marks: list[tuple[Any, ...]] = []
        self._unmarked = 0
        self._slots: list[tuple[float, int]] = []
        self._memory: list[tuple[float, int]] = []
        self._slowest: list[tuple[float, int, TaskRecord]] = []
        self._durations: dict[int, int] = {}
        self._tasks = 0

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        if isinstance(event, TaskEnded):
            self._ended(event)
        elif isinstance(event, JobStarted | SlotsChanged) and len(self._slots) < CHANGES:
            self._slots.append((self._now(), event.slots))

    def _now(self) -> float:
        return time.time() - self.epoch

    def _ended(self, event: TaskEnded) -> None:
        now = self._now()
        lap = self._lap(event, now)
        self._tasks += 1
        if lap.state or lap.attempt > 1 or lap.retries:
            self._mark(lap, now)
        if event.died:
            return  # nobody knows when it began
        self._keep(lap)
        seconds = lap.seconds
        if len(self._slowest) < SLOWEST:
            heapq.heappush(self._slowest, (seconds, -self._tasks, lap))
        elif seconds > self._slowest[0][0]:
            heapq.heapreplace(self._slowest, (seconds, -self._tasks, lap))
        step = math.floor(STEPS * math.log10(max(seconds, _SHORTEST)))
        self._durations[step] = self._durations.get(step, 0) + 1
        peak = event.stats.peak_memory
        if (not self._memory or peak > _RISE * self._memory[-1][1]) and len(self._memory) < CHANGES:
            self._memory.append((now, peak))

    def _lap(self, event: TaskEnded, now: float) -> TaskRecord:
        """Return a task as it is kept: it ended before now, whatever the clock of its worker says."""
        stats, failure = event.stats, event.failure
        worker = stats.worker or (failure.worker if failure else "")
        seconds = stats.seconds
        start = max(0.0, min(stats.started - self.epoch, now - seconds)) if stats.started else now
        spans = event.chunk.spans if event.chunk else ()
        source, first, last = (spans[0].input.uri, spans[0].start, spans[0].stop) if spans else ("", None, None)
        told = (0, 0, 0) if event.again else stats.counts
        return TaskRecord(
            self._track(worker),
            start,
            min(seconds, now - start),
            stats.read,
            stats.call,
            stats.convert,
            stats.write,
            event.attempt,
            _state(event, told[2]),
            stats.retries,
            source,
            first,
            last,
            len(spans),
            *told,
            stats.nbytes,
            int(bool(event.isolating)),
        )

    def _track(self, worker: str) -> int:
        track = self._tracks.get(worker)
        if track is None:
            if len(self._tracks) >= TRACKS:
                self._sum_up()  # side by side on one track they would hide each other
                return TRACKS
            track = self._tracks[worker] = len(self._tracks)
        return track

    def _mark(self, lap: TaskRecord, now: float) -> None:
        if len(self._marks) < MARKS:
            self._marks.append((lap, now))
        else:
            self._unmarked += 1

    def _keep(self, lap: TaskRecord) -> None:
        if self._laps is None:
            _add(lap, self._bins)
        elif len(self._laps) < TASKS:
            self._laps.append(lap)
        else:
            self._sum_up()
            _add(lap, self._bins)

    def _sum_up(self) -> None:
        """Keep sums over time in the place of tasks, from now on."""
        for lap in self._laps or ():
            _add(lap, self._bins)
        self._laps = None

    def told(self) -> dict[str, Any]:
        """Return what is kept, as plain values for JSON; seconds from the start of the run on."""
        names = _Names()
        bins, laps = self._bins, self._laps
        if laps is not None:
            bins = Bins(_SUMS)
            for lap in laps:
                _add(lap, bins)
        return {
            "began": self.epoch,
            "workers": list(self._tracks),
            "others": TRACKS in bins.tracks,
            "columns": list(COLUMNS),
            "tasks": None if laps is None else [names.row(lap) for lap in laps],
            "bins": _work(bins) if laps is None else None,
            "flow": _flow(bins),
            "marks": [[round(now, 5), *names.row(lap)] for lap, now in self._marks],
            "unmarked": self._unmarked,
            "slowest": [names.row(lap) for _, _, lap in sorted(self._slowest, reverse=True)],
            "durations": [[10 ** (step / STEPS), count] for step, count in sorted(self._durations.items())],
            "slots": self._slots,
            "memory": self._memory,
            "sources": list(names.numbers),
        }


COLUMNS = TaskRecord._fields
_SHORTEST = 1e-5


class _Names:
    """Names of sources as numbers, so that each stands there once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def row(self, lap: TaskRecord) -> list[Any]:
        """Return a task with its seconds rounded and the number of its source."""
        number = self.numbers.setdefault(lap.source, len(self.numbers))
        return [lap.track, *(round(value, 5) for value in lap[1:7]), *lap[7:10], number, *lap[11:]]


def _state(event: TaskEnded, failed: int) -> int:
    """Return the place in `STATES`, given how many records failed of which no other task tells."""
    if event.ok:
        return _SOME_FAILED if failed else _OK
    return _DIED if event.died else _AGAIN if event.again else _FAILED


_SUMS = 9
"""The four phases, what is beside them, and the number of tasks; records, rows, bytes."""
_FLOW = 6
"""Where the latter begin."""


def _add(lap: TaskRecord, bins: Bins) -> None:
    track, start, seconds, read, call, convert, write = lap[:7]
    beside = max(0.0, seconds - read - call - convert - write)
    amounts = (read, call, convert, write, beside, 1.0, lap.records, lap.rows, lap.nbytes if lap.records else 0)
    bins.add(track, start, seconds, amounts)


def _work(bins: Bins) -> dict[str, Any]:
    """Return what each worker did over time; of many workers some bins in a row as one."""
    join = -(-len(bins.tracks) * BINS // CELLS)
    tracks = {
        str(track): [[at, *(round(amount, 4) for amount in row[:_FLOW])] for at, row in bins.rows(track, join)]
        for track in bins.tracks
    }
    return {"width": join * bins.width, "tracks": tracks}


def _flow(bins: Bins) -> dict[str, Any]:
    """Return what came through over time, of all workers together."""
    sums: dict[int, list[float]] = {}
    for track in bins.tracks:
        for at, row in bins.rows(track):
            into = sums.setdefault(at, [0.0] * (_SUMS - _FLOW))
            into[:] = map(sum, zip(into, row[_FLOW:], strict=True))
    rows = [[at, *(round(amount, 4) for amount in row)] for at, row in sorted(sums.items()) if any(row)]
    return {"width": bins.width, "rows": rows}
