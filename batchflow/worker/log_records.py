"""Forwarding of log records from workers to the driver's loggers, in the stream of printed lines.

Workers apply the levels of the driver's loggers. If the driver has not configured logging, neither do they:
warnings are then printed, as Python does by default.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    import logging

MARK = "\0log "
"""Prefix of a line that encodes a log record."""
LARGEST_TEXT = 16 << 10
"""Maximum number of characters in a message, traceback or attribute."""
_PLAIN = (str, int, float, bool, type(None))
_REPLACED = ("msg", "args", "exc_info", "exc_text", "stack_info", "processName")


class LogSettings(NamedTuple):
    """Logging configuration of the driver as plain values."""

    least: int
    """Lowest level that any handler of the driver accepts."""
    levels: dict[str, tuple[int, bool]]
    """Level and disabled flag of each configured logger; the root logger is ``"root"``."""
    handlers: frozenset[tuple[str, ...]]
    """Handlers of the driver: logger, class and file."""
    disabled: int
    """Level passed to `logging.disable`."""
    warnings: bool
    """Whether `logging.captureWarnings` was called."""


def log_settings() -> LogSettings | None:
    """Return the logging configuration of this process; ``None`` if there is none."""
    logging = sys.modules.get("logging")
    if logging is None:
        return None
    root = logging.root
    loggers = [logger for logger in list(root.manager.loggerDict.values()) if isinstance(logger, logging.Logger)]
    loggers.append(root)
    handlers = [(logger, handler) for logger in loggers for handler in logger.handlers if not _is_silent(handler)]
    if not handlers:
        return None
    return LogSettings(
        least=min(handler.level for _, handler in handlers),
        levels={
            logger.name: (logger.level, logger.disabled) for logger in loggers if logger.level or logger.disabled
        },
        handlers=frozenset(_identity(logger, handler) for logger, handler in handlers),
        disabled=root.manager.disable,
        warnings=logging._warnings_showwarning is not None,
    )


def _is_silent(handler: logging.Handler) -> bool:
    """Whether a handler is not the user's: a `logging.NullHandler`, or one of Ray or the test runner."""
    return type(handler).__name__ == "NullHandler" or type(handler).__module__.startswith(("ray.", "_pytest."))


def _identity(logger: logging.Logger, handler: logging.Handler) -> tuple[str, ...]:
    return logger.name, type(handler).__qualname__, str(getattr(handler, "baseFilename", ""))


_installed: list[Any] = []
"""Settings of this worker, the replaced function of `logging`, the placeholder handler and the process id."""


def install(settings: LogSettings | None) -> None:
    """Send all log records of this worker to the driver, or stop doing so."""
    if settings is None and not _installed:
        return
    import logging

    if not _installed:
        _installed[:] = None, logging.Logger.callHandlers, logging.NullHandler(), os.getpid()
    before, call_handlers, placeholder, _ = _installed
    if settings == before:
        return
    _restore_levels(before)
    logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign]
    _installed[0] = settings
    if settings is not None:
        # A handler of the root logger is not enough: modules may replace it or disable propagation.
        logging.Logger.callHandlers = cast("Any", _call_handlers)  # type: ignore[method-assign]
        _set_levels(settings)
    if settings is not None and any(name == "root" for name, *_ in settings.handlers):
        logging.root.addHandler(placeholder)  # keeps `basicConfig` from adding a handler, as in the driver
    else:
        logging.root.removeHandler(placeholder)


def _restore_levels(settings: LogSettings | None) -> None:
    import logging

    for name in () if settings is None else settings.levels:
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING if logger is logging.root else logging.NOTSET)
        logger.disabled = False
    logging.disable(logging.NOTSET)
    logging.captureWarnings(capture=False)


def _set_levels(settings: LogSettings) -> None:
    import logging

    for name, (level, disabled) in settings.levels.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.disabled = disabled
    logging.disable(settings.disabled)
    logging.captureWarnings(settings.warnings)


def _call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Send a record to the driver and call the handlers that only this worker has."""
    settings: LogSettings = _installed[0]
    if record.levelno >= settings.least:
        _forward(record)
    current: logging.Logger | None = logger
    while current is not None:
        for handler in current.handlers:
            if record.levelno >= handler.level and _identity(current, handler) not in settings.handlers:
                handler.handle(record)
        current = current.parent if current.propagate else None


def _forward(record: logging.LogRecord) -> None:
    from batchflow.worker.stdio_capture import current_prints

    prints = current_prints()
    try:
        line = encoded(record)
    except Exception:
        line = f"{record.levelname}:{record.name}:{record.msg!r} with arguments that it cannot be formatted with"
    if prints is not None:
        prints.add_record(line.encode(errors="backslashreplace"))
    elif sys.stderr is not None and os.getpid() != _installed[3]:  # in a fork that the function started
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{text_of(line)}\n")


def encoded(record: logging.LogRecord) -> str:
    """Encode a record as one line; attributes that are not plain values become text."""
    import json  # most workers do not need it

    message = _cut(record.getMessage())
    trace = record.exc_text
    if record.exc_info and not trace:
        import logging

        trace = logging.Formatter().formatException(record.exc_info)
    fields: dict[str, Any] = {
        name: value if isinstance(value, _PLAIN) else str(value)
        for name, value in vars(record).items()
        if name not in _REPLACED
    }
    fields = {name: _cut(value) if isinstance(value, str) else value for name, value in fields.items()}
    fields |= {"msg": message, "exc_text": _cut(trace), "stack_info": _cut(record.stack_info)}
    return MARK + json.dumps(fields)


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= LARGEST_TEXT else f"{text[: LARGEST_TEXT - 1]}…"


def text_of(line: str) -> str:
    """Return a line as readable text, whether it encodes a log record or not."""
    if not line.startswith(MARK):
        return line
    fields = _decoded(line)
    return "\n".join(filter(None, (f"{fields['levelname']}:{fields['name']}:{fields['msg']}", fields["exc_text"])))


def handle_records(lines: Iterable[str]) -> tuple[str, ...]:
    """Pass the log records among printed lines to the driver's loggers; return the other lines.

    Output of handlers on standard error takes the place of the record's line.
    """
    lines = tuple(lines)
    if not any(line.startswith(MARK) for line in lines):
        return lines
    from batchflow.worker.stdio_capture import DriverCapture

    here = DriverCapture(interactive=False)
    found: list[str] = []
    for line in lines:
        if line.startswith(MARK):
            with here:
                _handle(_decoded(line))
            found += here.prints.take()
        else:
            found.append(line)
    return tuple(found)


def _decoded(line: str) -> dict[str, Any]:
    import json

    fields: dict[str, Any] = json.loads(line.removeprefix(MARK))
    return fields


def _handle(fields: dict[str, Any]) -> None:
    import logging

    record = logging.makeLogRecord(fields)
    logger = logging.getLogger(record.name)
    logger.handle(record)
