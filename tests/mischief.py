"""What misbehaves in each phase of a job, as a script has it; workers import this, so it imports little."""

import dataclasses
import os
import resource
from collections.abc import Mapping

from batchflow.io.sources.text import LineSource

GUILTY = 5
"""The record that misbehaves."""


def row(x, *_):
    return {"x": int(x)}


class Unruly:
    """Misbehaves when it is made again in another process, which then has another object in its place."""

    def __init__(self, script, name, result):
        self.parts = script, name, result

    def __call__(self, *_):
        """Look like a function."""

    def __repr__(self):
        return repr(self.parts[1])

    def __reduce__(self):
        return _made_again, (*self.parts, os.getpid())


def _made_again(script, name, result, driver):
    if os.getpid() != driver:
        script.play(name)
    return result


@dataclasses.dataclass(frozen=True)
class UnrulyLines(LineSource):
    """Lines of which the guilty one misbehaves when it is decoded."""

    kind = "unruly"
    skips_blank = False
    script: object = None
    driver: int = dataclasses.field(default_factory=os.getpid)

    def decoders(self):
        return self._decode, self._decode

    def _decode(self, line):
        if int(line) == GUILTY and os.getpid() != self.driver:  # which reads a little to weigh it
            self.script.play(GUILTY)
        return int(line)


class UnrulyRow(Mapping):
    """Misbehaves when somebody looks into it."""

    def __init__(self, script):
        self.script = script

    def __getitem__(self, name):
        self.script.play(GUILTY)
        return GUILTY

    def __iter__(self):
        return iter(["x"])

    def __len__(self):
        return 1


class Calling:
    def __init__(self, script):
        self.script = script

    def __call__(self, x):
        if x == GUILTY:
            self.script.play(x)
        return row(x)


class Converting(Calling):
    def __call__(self, x):
        return UnrulyRow(self.script) if x == GUILTY else row(x)


class Writing(Calling):
    """Has the writing of the chunk that holds the guilty record go wrong, once its rows stand there."""

    def __call__(self, x):
        if x == GUILTY:
            _spoil("write_piece", self.script, x)
        return row(x)


class UnrulyPath(str):
    """A path of a part that has the putting together of it go wrong, in whichever worker gets it."""

    script = None

    def __reduce__(self):
        return _spoilt_path, (str(self), self.script)


def _spoilt_path(path, script):
    _spoil("assemble", _Short(script), "commit")
    return path


class _Short:
    """Plays on a machine that has 300 MB left: a part has no cap of its own, since it is no task."""

    def __init__(self, script):
        self.script = script

    def play(self, name):
        with open("/proc/self/status") as status:
            data = next(line.split()[1] for line in status if line.startswith("VmData:"))
        before = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (int(data) * 1024 + 300_000_000, before[1]))
        try:
            self.script.play(name)
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)


def _spoil(method, script, name):
    """Replace a method of the output format until it is called."""
    from batchflow.io.formats.parquet import ParquetFormat

    sound = getattr(ParquetFormat, method)

    def spoilt(*args):
        setattr(ParquetFormat, method, sound)
        sound(*args)
        script.play(name)

    setattr(ParquetFormat, method, spoilt)
