"""Ctrl-C handling: the first lets running tasks finish, the second stops at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from batchflow.errors import InterruptedRun

DRAIN_SECONDS = 10.0
"""Time that running tasks have to finish after the first Ctrl-C."""


class InterruptHandler:
    """Context manager that handles Ctrl-C in the main thread, unless another handler is installed."""

    def __init__(self) -> None:
        self._deadline: float | None = None
        self._before: Any = None

    def __enter__(self) -> InterruptHandler:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        if self._deadline is not None:
            signal.default_int_handler(number, frame)
        self._deadline = time.monotonic() + DRAIN_SECONDS
        exit_as_interrupted()
        grace = f"{DRAIN_SECONDS:.0f} s at most (Ctrl-C again stops at once)"
        below = "\x1b[J" if os.isatty(2) else ""  # erases progress lines, which are drawn again
        # Not through `sys.stderr`, which may be in the middle of a write.
        os.write(2, f"\n{below}batchflow: finishing what is running, {grace}\n".encode())

    @property
    def pressed(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._deadline is not None

    def stopping(self) -> bool:
        """Return whether to start nothing new; raises `InterruptedRun` once the time of running tasks is over."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise InterruptedRun
        return self.pressed


def exit_as_interrupted() -> None:
    """Make a script ended by `InterruptedRun` exit with 130, as for a plain `KeyboardInterrupt`.

    Python does so only for that exact class, and the script would exit with 1 otherwise. An interactive session
    is not ended.
    """
    before: Any = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        before(kind, error, trace)
        at_prompt = hasattr(sys, "ps1") or sys.flags.interactive
        if issubclass(kind, InterruptedRun) and not at_prompt:
            raise SystemExit(_INTERRUPTED)

    if getattr(before, "__qualname__", "") != hook.__qualname__:
        sys.excepthook = hook


_INTERRUPTED = 130
