"""Jobs at a Ray cluster: begun, listed, followed and stopped through its job server.

The only importer of `ray.job_submission`. Nothing is pickled between here and there, so the versions of
Ray and Python on both sides may differ; the job runs with those of the cluster.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import Any, NamedTuple, TypeVar

from batchflow.errors import ExecutorError, UsageError

_Answer = TypeVar("_Answer")

ADDRESS = "RAY_API_SERVER_ADDRESS"
"""Ray's own variable for the address of the job server."""

PREFIX = "batchflow-"
"""Of the ids of our jobs."""

PATIENCE = 60.0
"""Seconds for which a lost connection is tried again, and a cluster that is starting is waited for."""

_INTERRUPTED = 130

_ANSWER = 20.0
"""Seconds for the first answer; a host behind a firewall gives none."""

_LOUD = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)
"""What of Ray tells of each package that it sends."""

_STARTING = re.compile(
    r"(?i)Connection refused|[^.:\"]*\btry again\b[^.\"]*|No available agent[^.\"]*"
    r"|status code 50[234]|50[234] Server Error"
)
"""In what a cluster says, or its proxy, that cannot run jobs yet."""

_LONGEST_PAUSE = 5.0
"""Seconds between two questions to a cluster that is starting."""

_SILENCE = 60.0
"""Seconds without a word in a log, after which it is asked for anew."""

_TURN = 0.2
"""Seconds between two looks at what a job does, and the first pause for a cluster that is starting."""


class JobInfo(NamedTuple):
    """What the cluster tells of a job."""

    id: str
    status: str
    begun: float | None
    """Seconds since the epoch."""
    ended: float | None
    what: str
    into: str | None
    exit_code: int | None
    message: str

    @property
    def ours(self) -> bool:
        """Whether `batchflow submit` began it."""
        return self.id.startswith(PREFIX)

    @property
    def over(self) -> bool:
        """Whether nothing of it will change any more."""
        return self.status in {"STOPPED", "SUCCEEDED", "FAILED"}

    @property
    def seconds(self) -> float | None:
        """How long it has run."""
        return None if self.begun is None else (self.ended or time.time()) - self.begun

    @property
    def exit_status(self) -> int:
        """That of its process: 130 if it was stopped, 1 if nobody knows."""
        if self.status == "STOPPED":
            return _INTERRUPTED
        code = 0 if self.status == "SUCCEEDED" and self.exit_code is None else self.exit_code
        return code if code is not None and 0 <= code < 256 else 1


class JobServer:
    """The job server of a Ray cluster.

    Parameters
    ----------
    address
        Like ``http://head:8265``; ``None``: that of ``RAY_API_SERVER_ADDRESS``.
    patience
        Seconds to wait for a cluster that is starting.
    announce
        Called with a line that says so, before it is waited for.

    Raises
    ------
    UsageError
        If there is none, it cannot be reached, or it lets us not in.
    """

    _patience = 0.0

    where: str = ""
    """Option by which a command finds the same cluster."""

    def __init__(
        self, address: str | None = None, *, patience: float = 0.0, announce: Callable[[str], None] | None = None
    ) -> None:
        self._patience = patience
        self._announce = announce
        self.where = f" --address {shlex.quote(address)}" if address else ""
        address = address or os.environ.get(ADDRESS)
        if not address:
            message = f"name the job server of the cluster: --address http://head:8265, or set {ADDRESS}"
            raise UsageError(message)
        scheme, sign, _ = address.partition("://")
        if scheme == "ray" or address == "auto":
            message = f"{address!r} is not the address of a job server: name it like http://head:8265"
            raise UsageError(message)
        self.address: str = address.rstrip("/") if sign else f"http://{address.rstrip('/')}"
        self._client = self._connect()

    def _connect(self) -> Any:
        _client_class()  # not in the thread, where nobody would hear of a package that is missing
        os.environ[ADDRESS] = self.address  # which wins over the argument, and over RAY_ADDRESS
        with self._asking():
            return self._patiently(self._client_of_server)

    def _client_of_server(self) -> Any:
        """Return Ray's client, once the server has answered."""
        made: list[Any] = []

        def connect() -> None:
            try:
                made.append(_client_class()(self.address))
            except Exception as error:
                made.append(error)

        thread = Thread(target=connect, daemon=True)
        thread.start()
        thread.join(_ANSWER)
        if not made:
            raise ConnectionError
        if isinstance(made[0], Exception):
            raise made[0]
        return made[0]

    def _patiently(self, ask: Callable[[], _Answer]) -> _Answer:
        """Return what the server answers; ask again, more and more rarely, while it says that it is starting."""
        pause, announced = _TURN, False
        end = time.monotonic() + self._patience
        while True:
            try:
                return ask()
            except (OSError, RuntimeError) as error:  # those of requests are OSErrors
                why = _why_starting(error)
                left = end - time.monotonic()
                if why is None or left <= 0:
                    raise
            if not announced and self._announce is not None:
                self._announce(f"{self.address} is not ready ({why}): waiting up to {self._patience:.0f} s for it")
            announced = True
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)

    @contextmanager
    def _asking(self, job_id: str = "") -> Iterator[None]:
        """Tell in one sentence what went wrong while the server was asked."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            message = (
                f"{self.address} refuses us, as its RAY_AUTH_MODE is token: set RAY_AUTH_MODE=token and "
                "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the token of the cluster"
            )
            raise UsageError(message) from error
        except (requests.RequestException, OSError, KeyError) as error:
            message = (
                f"no job server of Ray answers at {self.address}: name that of the dashboard, port 8265 by "
                "default, which runs where the head node has ray[default]"
            )
            raise UsageError(message) from error
        except RuntimeError as error:
            raise UsageError(self._refusal(str(error), job_id)) from error

    def _refusal(self, text: str, job_id: str) -> str:
        if job_id and "status code 404" in text:
            return f"{self.address} knows no job {job_id!r}: batchflow jobs lists those it knows"
        if "404" in text:
            return f"{self.address} is no job server of Ray, which listens on port 8265 by default"
        return f"{self.address} answers: {text.strip().splitlines()[0]}"

    def jobs(self) -> list[JobInfo]:
        """Return all jobs, the newest first."""
        with self._asking():
            found = [_info(details) for details in self._patiently(self._client.list_jobs)]
        return sorted(found, key=lambda job: job.begun or time.time(), reverse=True)

    def job(self, job_id: str) -> JobInfo:
        """Return what there is to know of a job.

        Raises
        ------
        UsageError
            If there is none of that id.
        """
        with self._asking(job_id):
            return _info(self._client.get_job_info(job_id))

    def find(self, name: str, into: str | None) -> tuple[str, bool]:
        """Return the id for a job of this name, and whether it runs already.

        Parameters
        ----------
        name
            Its id, if it has never run; later ones have a number behind it.
        into
            What it writes.

        Raises
        ------
        UsageError
            If another job that runs writes the same.
        """
        jobs = self.jobs()
        tried = {job.id: job for job in jobs if re.fullmatch(rf"{re.escape(name)}(-\d+)?", job.id)}
        for job in tried.values():
            if not job.over:
                return job.id, True
        for job in jobs:
            if job.into is not None and job.into == into and not job.over:
                message = f"{job.id} is writing {into}: let it end, or batchflow stop {job.id}{self.where}"
                raise UsageError(message)
        number = max((int(one.removeprefix(name)[1:] or 1) for one in tried), default=0) + 1
        return (name if number == 1 else f"{name}-{number}"), False

    def begin(self, job_id: str, entrypoint: str, environment: Mapping[str, Any], what: Mapping[str, str]) -> bool:
        """Begin a job; returns ``False`` if somebody else did at this moment.

        Parameters
        ----------
        environment
            Ray's ``runtime_env``.
        what
            What is written beside it, for those who list jobs.
        """

        def ask() -> bool:
            try:
                self._client.submit_job(
                    entrypoint=entrypoint,
                    runtime_env=dict(environment),
                    submission_id=job_id,
                    metadata=dict(what),
                )
            except RuntimeError as error:
                if "already exists" in str(error):
                    return False
                raise
            return True

        with self._asking():
            return self._patiently(ask)

    def logs(self, job_id: str) -> str:
        """Return what a job has printed."""
        self.job(job_id)
        with self._asking(job_id):
            text: str = self._client.get_job_logs(job_id)
        return text

    def follow(self, job_id: str, hear: Callable[[str], None]) -> JobInfo:
        """Hand on what a job prints until it ends; returns what became of it.

        Raises
        ------
        ExecutorError
            If the connection is lost, and cannot be had again for a minute.
        """
        self.job(job_id)
        heard = 0
        lost: float | None = None
        while True:
            try:
                heard = asyncio.run(self._tail(job_id, heard, hear))
                job = self.job(job_id)
                if job.over:
                    self._rest(job_id, heard, hear)
                    return job
                lost = None
            except _Broken as error:
                heard = error.heard
                lost = self._still(lost, job_id)
            except UsageError:
                lost = self._still(lost, job_id)
            time.sleep(_TURN)  # Ray closes the log of a job that has not begun, too

    async def _tail(self, job_id: str, heard: int, hear: Callable[[str], None]) -> int:
        """Hand on what is new; the server begins at the beginning each time."""
        import aiohttp

        seen = 0
        pieces = self._client.tail_job_logs(job_id)
        try:
            while (text := await _next(pieces)) is not None:
                seen += len(text)
                if seen > heard:
                    hear(text[len(text) - (seen - heard) :])
                    heard = seen
        except (aiohttp.ClientError, RuntimeError, OSError) as error:
            raise _Broken(heard) from error
        return heard

    def _rest(self, job_id: str, heard: int, hear: Callable[[str], None]) -> None:
        try:
            text = self.logs(job_id)
        except UsageError:
            return  # the log went with its node
        if text[heard:]:
            hear(text[heard:])

    def _still(self, lost: float | None, job_id: str) -> float:
        """Return since when the connection is lost, unless that is too long."""
        now = time.monotonic()
        if lost is not None and now - lost > PATIENCE:
            message = (
                f"lost the connection to {self.address}; the job may go on: "
                f"batchflow logs {job_id} --follow{self.where}"
            )
            raise ExecutorError(message)
        return now if lost is None else lost

    def stop(self, job_id: str, patience: float) -> JobInfo:
        """Stop a job and return what it came to; one that has ended stays as it is.

        Parameters
        ----------
        patience
            Seconds to wait for its end.
        """
        job = self.job(job_id)
        if not job.over:
            with self._asking(job_id):
                self._client.stop_job(job_id)
        end = time.monotonic() + patience
        while not (job := self.job(job_id)).over and time.monotonic() < end:
            time.sleep(_TURN)
        return job


def _why_starting(error: BaseException) -> str | None:
    """Return in a few words why a cluster cannot run jobs yet; ``None`` if waiting would not help."""
    cause: BaseException | None = error
    while cause is not None:
        found = _STARTING.search(str(cause))
        if found:
            return found[0].strip()
        cause = cause.__cause__ or cause.__context__
    return None


class _Broken(Exception):  # noqa: N818 - says what happened
    """The connection broke after so many characters."""

    def __init__(self, heard: int) -> None:
        super().__init__(heard)
        self.heard = heard


async def _next(pieces: Any) -> str | None:
    """Return the next piece of a log; ``None`` at its end, and where it is silent for long.

    A connection can be gone without a word, after a sleep of this machine, say: so the job is asked about.
    """
    try:
        text: str = await asyncio.wait_for(anext(pieces), _SILENCE)
    except (StopAsyncIteration, TimeoutError):
        return None
    return text


def _client_class() -> Any:
    """Return Ray's client, if all that it needs is there."""
    import logging

    try:
        import aiohttp  # noqa: F401 - Ray itself goes on without it, and fails later
        import pydantic  # noqa: F401
        import requests  # noqa: F401
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        message = f"the job server of a cluster needs ray[default]: pip install 'batchflow[cluster]' ({error})"
        raise UsageError(message) from error
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    return JobSubmissionClient


def _info(details: Any) -> JobInfo:
    metadata = details.metadata or {}
    return JobInfo(
        id=details.submission_id or details.job_id or "",
        status=str(details.status),
        begun=None if details.start_time is None else details.start_time / 1000,
        ended=details.end_time / 1000 if details.end_time else None,
        what=metadata.get("batchflow", details.entrypoint),
        into=metadata.get("batchflow_into"),
        exit_code=details.driver_exit_code,
        message=details.message or "",
    )
