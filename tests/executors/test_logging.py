"""Logging that the driver has configured works in workers: levels, records, handlers, alike on every executor."""

import logging
import os
import warnings

import pytest

import batchflow as bf
from batchflow.events import Printed
from batchflow.worker.log_records import LARGEST_TEXT, MARK, encoded, handle_records, log_settings
from batchflow.worker.stdio_capture import RECORDS_LIMIT, LineBuffer

log = logging.getLogger("app.part")


class Kept(logging.Handler):
    """Keeps records."""

    def __init__(self, level=logging.NOTSET):
        super().__init__(level)
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def heard():
    """Listen to what is printed."""

    class Heard(list):
        def __call__(self, event):
            if isinstance(event, Printed):
                self.append((event.place, event.lines))

    return Heard()


@pytest.fixture
def handler(monkeypatch):
    """Configure logging: one handler of the root logger, whose level is INFO."""
    kept = Kept()
    monkeypatch.setattr(logging.root, "handlers", [kept])
    before = logging.root.level
    logging.root.setLevel(logging.INFO)
    yield kept
    logging.root.setLevel(before)


def run(fn, values=(1,), **options):
    return bf.Job(fn, bf.records(list(values)), progress=False, **options).run()


def _logs(x):
    log.debug("debug %d", x)
    log.info("info %d", x, extra={"tenant": "a", "tags": {1}})
    try:
        int("a")
    except ValueError:
        log.exception("error %d", x)
    return x


def test_records_reach_the_handlers_of_the_driver(executor, handler):
    assert run(_logs, (1, 2), executor=executor, chunk=1).values == [1, 2]
    records = sorted(
        handler.records, key=lambda record: record.msg if executor != "serial" else record.getMessage()
    )
    assert [record.getMessage() for record in records] == ["error 1", "error 2", "info 1", "info 2"]
    assert [record.levelname for record in records] == ["ERROR", "ERROR", "INFO", "INFO"]
    assert {(record.name, record.funcName, record.tenant) for record in records[2:]} == {
        ("app.part", "_logs", "a")
    }
    assert "ValueError: invalid literal" in logging.Formatter().format(records[0])
    assert all(os.path.basename(record.pathname) == "test_logging.py" for record in records)


def test_file_of_the_driver_has_each_record_once(executor, monkeypatch, tmp_path):
    monkeypatch.setattr(logging.root, "handlers", [])
    handler = logging.FileHandler(tmp_path / "app.log")
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logging.root.addHandler(handler)
    run(lambda x: log.warning("seen %d", x), range(50), executor=executor, chunk=7)
    handler.close()
    expected = {f"WARNING app.part seen {x}" for x in range(50)}
    written = (tmp_path / "app.log").read_text().splitlines()
    assert len(written) == 50
    assert set(written) == expected


def test_records_of_a_stream_handler_are_lines_with_a_place(executor, heard, monkeypatch):
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s|%(message)s"))
    monkeypatch.setattr(logging.root, "handlers", [handler])

    def fn(x):
        print("before")
        log.warning("logged")
        print("after")

    run(fn, executor=executor, listeners=[heard])
    assert heard == [("records", ("before", "WARNING|logged", "after"))]


def test_levels_and_filters_of_loggers_hold(executor, handler):
    log.setLevel(logging.DEBUG)
    logging.getLogger("app.off").disabled = True
    drop = logging.Filter("app.part")
    handler.addFilter(drop)
    try:

        def fn(x):
            _logs(x)
            logging.getLogger("app.off").error("no")
            logging.getLogger("other").error("no")

        run(fn, executor=executor)
    finally:
        log.setLevel(logging.NOTSET)
        logging.getLogger("app.off").disabled = False
    assert [record.levelname for record in handler.records] == ["DEBUG", "INFO", "ERROR"]


def test_warnings_go_to_logging_if_they_are_captured(executor, handler):
    logging.captureWarnings(capture=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            run(lambda x: warnings.warn(f"beware {x}", UserWarning, stacklevel=1), executor=executor)
    finally:
        logging.captureWarnings(capture=False)
    (record,) = handler.records
    assert (record.name, record.levelname) == ("py.warnings", "WARNING")
    assert "UserWarning: beware 1" in record.getMessage()


def test_settings_of_one_job_do_not_outlive_it(remote, handler, heard, monkeypatch):
    run(_logs, executor=remote)
    assert len(handler.records) == 2
    monkeypatch.setattr(logging.root, "handlers", [])
    run(_logs, executor=remote, listeners=[heard])
    assert [lines[0] for _, lines in heard] == ["error 1"]


def test_steps_of_a_flow_log_too(executor, handler):
    flow = bf.Flow()
    flow.step(_logs, 3)
    assert flow.run(executor=executor, progress=False).ok
    assert [record.getMessage() for record in handler.records] == ["info 3", "error 3"]


def test_handler_that_only_the_worker_has_is_called(remote, handler, tmp_path):
    path = tmp_path / "worker.log"

    def setup():
        if not any(getattr(one, "baseFilename", "") == str(path) for one in log.handlers):
            log.addHandler(logging.FileHandler(path))

    run(lambda x, _: _logs(x), executor=remote, setup=setup)
    assert path.read_text().splitlines()[:2] == ["info 1", "error 1"]
    assert len(handler.records) == 2


def test_module_that_configures_logging_doubles_nothing(handler, heard, tmp_path, monkeypatch):
    (tmp_path / "configures.py").write_text(
        "import logging\nlogging.basicConfig(level=logging.INFO)\n"
        "def fn(x):\n    logging.getLogger('configures').info('once %d', x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import configures

    run(configures.fn, executor="processes", listeners=[heard])
    assert [record.getMessage() for record in handler.records] == ["once 1"]
    assert heard == []


def test_record_that_cannot_be_formatted_ends_nothing(remote, handler):
    def fn(x):
        log.warning("%d", "text")
        log.warning("next")
        return x

    result = run(fn, executor=remote)
    assert result.values == [1]
    assert handler.records[-1].getMessage() == "next"


def test_records_of_a_worker_that_dies_are_handled(handler):
    def fn(x):
        log.warning("last words")
        os.kill(os.getpid(), 9)

    result = run(fn, executor="processes")
    assert result.report.failed == 1
    assert "last words" in {record.getMessage() for record in handler.records}


def test_settings_are_none_without_handlers(monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [logging.NullHandler()])
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            monkeypatch.setattr(logger, "handlers", [])
    assert log_settings() is None


def test_large_records_are_cut_and_many_are_counted():
    prints = LineBuffer()
    record = logging.makeLogRecord({"msg": "x" * 100_000, "name": "a", "levelname": "INFO"})
    line = encoded(record).encode()
    assert len(line) < LARGEST_TEXT + 1000
    count = RECORDS_LIMIT // len(line) + 10
    for _ in range(count):
        prints.add_record(line)
    lines = prints.take()
    kept = sum(line.startswith(MARK) for line in lines)
    assert lines[-1] == f"(and {count - kept:,} log records more, which are too much)"
    assert prints.take() == ()


def test_lines_without_records_stay_the_same():
    lines = ("a", "b")
    assert handle_records(lines) is lines
