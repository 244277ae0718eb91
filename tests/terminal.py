"""A real pseudo-terminal with a program in it, and what its screen shows."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pyte


class Terminal:
    """A terminal of so many columns and lines in which a program runs.

    Parameters
    ----------
    command
        The program and its arguments; text is a script in Python.
    typed
        Whether its standard input is the terminal too.
    """

    def __init__(self, command, columns=100, lines=24, *, typed=True, out=None, **environment):
        self.screen = pyte.HistoryScreen(columns, lines, history=10_000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", command] if isinstance(command, str) else command,
            stdin=slave if typed else subprocess.DEVNULL,
            stdout=slave if out is None else out,
            stderr=slave,
            env={**_plain(), **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0 if typed else 2, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.hang_up()

    @property
    def text(self):
        """What the screen shows, and above it what has left it; without what is empty at the end."""
        above = [
            "".join(row[at].data for at in range(self.screen.columns)).rstrip() for row in self.screen.history.top
        ]
        return "\n".join([*above, *(line.rstrip() for line in self.screen.display)]).rstrip()

    def until(self, shows, seconds=30):
        """Read until the screen shows something, as a function of its text tells; return the text."""
        end = time.monotonic() + seconds
        while not shows(self.text):
            assert time.monotonic() < end, self.text
            assert self._read(end), self.text
        return self.text

    def end(self, seconds=60):
        """Read to the end of the program, and return its exit status."""
        end = time.monotonic() + seconds
        while self._read(end):
            assert time.monotonic() < end, self.text
        return self.process.wait()

    def _read(self, end):
        if not select.select([self._master], [], [], max(0, end - time.monotonic()))[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # its end: nobody has the other side any more
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def type(self, text):
        """Type something."""
        os.write(self._master, text.encode())

    def hang_up(self):
        """Take the terminal away."""
        if self._master is not None:
            os.close(self._master)
            self._master = None

    def interrupt(self):
        """Press Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)


def _plain():
    """Return this process's environment without what a Ray in it has left there: its debugger."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONBREAKPOINT"}
