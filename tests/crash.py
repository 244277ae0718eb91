"""Runs that end in the middle of a step that reaches the disk, as if the process were killed there."""

import os

from batchflow.checkpoint import file_journal as ledgers
from batchflow.checkpoint import file_journal as syncing
from batchflow.checkpoint import object_journal as putting
from batchflow.checkpoint.verify import verify
from batchflow.cli.targets import find_output, source_of
from batchflow.combiner import dataset_writer as dataset
from batchflow.io.stores import filesystem
from batchflow.io.stores import object_store as objects


class Crash(BaseException):
    """The process is gone: nothing of it runs any more."""


class Fuse:
    """Lets so many steps that reach the disk happen, and ends the run in the middle of the next one."""

    def __init__(self, left):
        self.left = left

    def burn(self):
        self.left -= 1
        return self.left < 0


def wire(monkeypatch):
    """Return a function that sets how many steps the disk sees; a line may be cut anywhere."""
    fuse = Fuse(10**9)
    write, publish, remove = ledgers.os.write, dataset.publish, dataset._remove

    def cut_write(file, data):
        if fuse.burn():
            write(file, data[: len(data) // 2])
            raise Crash
        return write(file, data)

    def guarded(step):
        def run(*arguments):
            if fuse.burn():
                raise Crash
            return step(*arguments)

        return run

    class Os:
        write = staticmethod(cut_write)

        def __getattr__(self, name):
            return getattr(os, name)

    monkeypatch.setattr(ledgers, "os", Os())
    monkeypatch.setattr(dataset, "publish", guarded(publish))
    monkeypatch.setattr(dataset, "_remove", guarded(remove))
    monkeypatch.setattr(dataset, "publish_plan", guarded(dataset.publish_plan))
    monkeypatch.setattr(dataset.DatasetWriter, "leave", lambda *_: None)
    monkeypatch.setattr(
        dataset.DatasetWriter, "close", lambda self, complete: self._ledger and self._ledger.close()
    )

    def limit(steps):
        fuse.left = steps

    return limit


def wire_store(monkeypatch):
    """Return a function that sets how many steps a store sees; the last one may happen, unknown to the driver."""
    fuse = Fuse(10**9)

    def guarded(step, *, twice=True):
        def run(*arguments, **options):
            if fuse.burn():
                raise Crash
            step(*arguments, **options)
            if twice and fuse.burn():
                raise Crash

        return run

    def move(self, old, new):
        system, path = filesystem(str(old))
        system.copy_file(path, filesystem(str(new))[1])
        if fuse.burn():
            raise Crash
        system.delete_file(path)

    put = putting.ObjectJournal._put
    alive = lambda self, **options: None if fuse.left < 0 else put(self, **options)
    monkeypatch.setattr(syncing, "SYNC_SECONDS", 3600)
    monkeypatch.setattr(putting.ObjectJournal, "_put", alive)
    monkeypatch.setattr(objects.Objects, "put", guarded(objects.Objects.put))
    monkeypatch.setattr(objects.Objects, "move", guarded(move))
    monkeypatch.setattr(objects.Objects, "remove_all", guarded(objects.Objects.remove_all, twice=False))
    monkeypatch.setattr(dataset.DatasetWriter, "leave", lambda *_: None)
    closing = dataset.DatasetWriter.close
    close = lambda self, complete: closing(self, complete=complete and fuse.left >= 0)
    monkeypatch.setattr(dataset.DatasetWriter, "close", close)

    def limit(steps):
        fuse.left = steps

    return limit


def proved(out):
    destination, plan, history = find_output(str(out))
    return list(verify(destination, plan, history, source_of(plan)))
