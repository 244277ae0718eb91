"""Start of the zygote, the process that workers are forked from.

A fresh interpreter takes 0.1 s to be of use, and so do our own modules: side by side they take half.
So this module imports next to nothing of batchflow, and the verbs call `ahead` first of all.
"""

from __future__ import annotations

import marshal
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from batchflow.core.bootstrap import DEPTH, STARTING, check_start, depth
from batchflow.core.package import PACKAGE_DIR
from batchflow.core.process_state import arguments_of_program, import_path

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
)
"""Variables that set the number of threads of numeric libraries; one worker per core needs one thread."""

REQUEST = struct.Struct("<Q")
CLOSE = 0
"""Reserved worker number that asks the zygote to let its workers end."""

_CODE = """\
import gc
gc.disable()  # until all is loaded: 3 of 50 ms
import marshal, sys
with open({file}, 'rb') as file:
    home, path, sys.argv[:] = marshal.load(file)
# Libraries first: a batchflow.py or queue.py beside the user's script must not hide what workers load.
sys.path[:] = [*filter(None, sys.path), home, *path]
from batchflow.executors.processes.zygote import main
main({control}, {driver}, path, arrow={arrow}, rows={rows}, waits={waits})
"""


class ForkServerHandle(NamedTuple):
    """Driver's handle of a zygote."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    threads: int
    """Threads of numeric libraries in its workers."""
    driver: int
    """Process ID of the driver that started it."""
    environment: dict[str, str]
    """Environment of the driver when the zygote started."""
    argv: list[str]
    """Arguments of the driver's program when the zygote started."""

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a fork of the driver, which must not touch the driver's zygote."""
        return self.driver != os.getpid()

    def close(self) -> None:
        """Let the workers end and wait for the zygote to end; in a fork of the driver only drop the handle."""
        if self.is_inherited:
            self.process.returncode = 0  # `Popen` would warn of a child that it cannot wait for
            self.control.close()
            return
        with suppress(OSError):  # it is gone already
            self.control.sendall(REQUEST.pack(CLOSE))
            self.control.shutdown(socket.SHUT_RDWR)  # a fork of the driver may hold this end open
        self.control.close()
        self.process.wait()


_waiting = threading.local()
"""``zygote``: prestarted zygote of this thread, until an executor takes it."""


def start(threads: int, *, arrow: bool, rows: bool = False, waits: bool = False) -> ForkServerHandle:
    """Start a zygote; returns at once, while it is still loading.

    Parameters
    ----------
    threads
        Threads that numeric libraries in its workers use.
    arrow
        Whether it loads Arrow, once for all workers; otherwise those do that need it.
    rows
        Whether it loads what Arrow needs to make rows of Python's values: pandas, wherever that is installed.
    waits
        Whether it loads what runs calls that wait.

    Raises
    ------
    UsageError
        If the job would start itself again without end.
    """
    check_start()
    ours, theirs = socket.socketpair()
    argv = arguments_of_program()
    file = _startup_file(argv)
    code = _CODE.format(
        file=file, control=theirs.fileno(), driver=os.getpid(), arrow=arrow, rows=rows, waits=waits
    )
    environment = dict(os.environ)
    process = subprocess.Popen(
        [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", code],  # type: ignore[attr-defined]
        pass_fds=[theirs.fileno(), file],
        stdin=subprocess.DEVNULL,
        env={**dict.fromkeys(_THREADS, str(threads)), **environment, DEPTH: f"{depth() + 1}{STARTING}"},
        process_group=0,  # Ctrl-C is for the driver to handle
    )
    os.close(file)
    theirs.close()
    return ForkServerHandle(process, ours, threads, os.getpid(), environment, argv)


def _startup_file(argv: list[str]) -> int:
    """Return the descriptor of a file with path and arguments: a command line holds 128 kB at most."""
    home = os.path.dirname(os.path.dirname(PACKAGE_DIR))
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("batchflow")
    else:
        import tempfile  # only where there is no memfd

        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    with os.fdopen(os.dup(file), "wb") as writer:
        marshal.dump((home, import_path(), argv), writer)
    os.lseek(file, 0, os.SEEK_SET)
    return file


@contextmanager
def prestarted_fork_server(
    executor: object, *, threads: int, arrow: bool, rows: bool = False, waits: bool = False
) -> Iterator[None]:
    """Prestart a zygote for the job inside, if the job will probably need one.

    Parameters
    ----------
    executor
        What the user asked for: ``None`` or a name; an executor of the user's own may be warm already.
    threads, arrow, rows, waits
        As for `start`.
    """
    name = executor or os.environ.get("BATCHFLOW_EXECUTOR") or default_name()
    zygote = None
    if getattr(_waiting, "zygote", None) is None and name == "processes":
        zygote = _waiting.zygote = start(threads, arrow=arrow, rows=rows, waits=waits)
    try:
        yield
    finally:
        if zygote is not None and _waiting.zygote is zygote:  # the job was refused, or ran elsewhere
            _waiting.zygote = None
            zygote.close()


def take(threads: int, *, arrow: bool) -> ForkServerHandle:
    """Return the prestarted zygote if it fits, else a new one."""
    zygote: ForkServerHandle | None = getattr(_waiting, "zygote", None)
    if zygote is None or zygote.threads != threads or zygote.is_inherited:
        return start(threads, arrow=arrow)
    _waiting.zygote = None
    return zygote


_ray_of_parent = False
"""Whether this process is a fork of one that uses Ray."""


def has_rays_parent() -> bool:
    """Whether this process is a fork of one that uses Ray; Ray does not work in a fork."""
    return _ray_of_parent


def _note_fork() -> None:
    global _ray_of_parent
    _ray_of_parent = _ray_of_parent or is_ray_running()


os.register_at_fork(after_in_child=_note_fork)


def default_name() -> str:
    """Return the executor of a job that names none: Ray if it is running, else worker processes."""
    running = is_ray_running() and not _ray_of_parent
    return "ray" if running or os.environ.get("RAY_ADDRESS") else "processes"


def is_ray_running() -> bool:
    """Whether this process uses Ray."""
    ray = sys.modules.get("ray")  # not imported: a Ray that runs in this process was imported by its user
    check = getattr(ray, "is_initialized", None)  # there is none while another thread imports it
    return check is not None and bool(check())
