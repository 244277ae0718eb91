"""Scripted failures, for tests of whatever runs in workers: what happens on attempt 1, 2, ... of an input.

::

    script = Script(tmp_path / "attempts", {13: ["raise", "ok"], 7: ValueError("x"), 9: "SIGKILL"})
    result = batchflow.map_records(script, batchflow.records(range(20)))
    script.attempts(13)
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, NoReturn, TypeAlias

from batchflow.errors import UsageError

EXIT_STATUS: Final = 7
"""Exit status of a process that a script ended by ``sys.exit`` or ``os._exit``."""
_GULP = 16 << 20

Manner: TypeAlias = str | BaseException | type[BaseException]
"""Exception to raise, or one of the names in `MANNERS`."""


class ScriptedError(RuntimeError):
    """Default exception of a script; retryable."""


class UnpicklableError(ScriptedError):
    """Exception that cannot be pickled, so it cannot reach the driver unchanged."""

    def __reduce__(self) -> NoReturn:
        message = "this error cannot be pickled"
        raise TypeError(message)


class Script:
    """A function that fails as a table says: input to what happens on its attempt 1, 2, ...

    Attempts are counted in files, a byte for each, so they are counted across processes, whatever
    ends those: a script can be pickled, and each of its copies counts on.

    Parameters
    ----------
    folder
        For the counts, which must be on a disk that all workers share; made if it is not there. A
        folder used before counts on.
    table
        For an input one manner, which is that of all its attempts, or a list of them, of which the
        last one is also that of all later attempts. Inputs that are not in the table succeed.
    fn
        What is called where nothing happens, with all arguments; by default the input is given back.
    key
        What of an input is looked up and counted, where it is not the input itself: it can be hashed,
        and its ``repr`` is the same in all processes.

    Raises
    ------
    UsageError
        If the table has a manner that nobody knows, or none for an input.

    Examples
    --------
    >>> import tempfile
    >>> script = Script(tempfile.mkdtemp(), {13: ["raise", "ok"]})
    >>> script(12), script.attempts(12), script.attempts(13)
    (12, 1, 0)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        table: Mapping[Any, Manner | Sequence[Manner]],
        fn: Callable[..., Any] | None = None,
        *,
        key: Callable[[Any], Any] | None = None,
    ) -> None:
        self._folder = os.path.abspath(folder)
        self._table = {name: _listed(name, manners) for name, manners in table.items()}
        self._names = {name: name for name in table}
        self._fn = fn
        self._key = key
        os.makedirs(self._folder, exist_ok=True)

    def __call__(self, item: Any, *args: Any, **options: Any) -> Any:
        """Count an attempt, apply the scripted failure, or else call the function."""
        self.play(item if self._key is None else self._key(item))
        return item if self._fn is None else self._fn(item, *args, **options)

    def play(self, name: Any) -> None:
        """Count an attempt and let happen what the table says: for what is not a function of the input.

        Parameters
        ----------
        name
            The input, or what ``key`` gives for it.
        """
        attempt = self._count(name)
        manners = self._table.get(name)
        if manners is not None:
            _behave(manners[min(attempt, len(manners)) - 1], f"{name!r}, attempt {attempt}")

    def attempts(self, name: Any) -> int:
        """Return the number of attempts in all processes.

        Parameters
        ----------
        name
            The input, or what ``key`` gives for it.
        """
        try:
            return os.stat(self._file(name)).st_size
        except FileNotFoundError:
            return 0

    def _count(self, name: Any) -> int:
        """Add an attempt and return its number; durable even if the process then dies."""
        file = os.open(self._file(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.write(file, b".")
            return os.lseek(file, 0, os.SEEK_CUR)  # behind our own byte, whoever else writes
        finally:
            os.close(file)

    def _file(self, name: Any) -> str:
        same = self._names.get(name, name)  # 13.0 is 13
        return f"{self._folder}/{hashlib.sha256(repr(same).encode()).hexdigest()[:32]}"


def _listed(name: Any, manners: Manner | Sequence[Manner]) -> tuple[Manner, ...]:
    listed = (manners,) if isinstance(manners, str | BaseException | type) else tuple(manners)
    for manner in listed:
        if isinstance(manner, str) and manner not in MANNERS:
            message = f"{name!r}: unknown manner {manner!r}: use an exception or one of {', '.join(MANNERS)}"
            raise UsageError(message)
    if not listed:
        message = f"{name!r} has no manner: leave it out of the table if nothing is to happen"
        raise UsageError(message)
    return listed


def _behave(manner: Manner, what: str) -> None:
    if isinstance(manner, str):
        MANNERS[manner](what)
    else:
        raise manner


def _nothing(_: str) -> None:
    pass


def _raise(what: str) -> NoReturn:
    raise ScriptedError(what)


def _raise_unpicklable(what: str) -> NoReturn:
    raise UnpicklableError(what)


def _exit(_: str) -> NoReturn:
    sys.exit(EXIT_STATUS)


def _leave(_: str) -> NoReturn:
    os._exit(EXIT_STATUS)


def _kill(_: str) -> None:
    signal.raise_signal(signal.SIGKILL)


def _crash(_: str) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signal.raise_signal(signal.SIGSEGV)


def _hang(_: str) -> NoReturn:
    while True:
        time.sleep(60)


def _hang_in_c(_: str) -> None:
    deque(repeat(None), maxlen=0)  # one call that never ends, and looks at no signal (`re` does)


def _take_memory(_: str) -> NoReturn:
    held = []
    while True:
        held.append(bytearray(_GULP))


MANNERS: Final[Mapping[str, Callable[[str], None]]] = {
    "ok": _nothing,
    "raise": _raise,
    "unpicklable raise": _raise_unpicklable,
    "sys.exit": _exit,
    "os._exit": _leave,
    "SIGKILL": _kill,
    "SIGSEGV": _crash,
    "hang": _hang,
    "hang in C": _hang_in_c,
    "memory": _take_memory,
}
"""What can happen, by name: ``"hang"`` can be interrupted, ``"hang in C"`` hears no signal and keeps the
interpreter for itself, ``"memory"`` takes ever more, so it should be run under a cap only."""
