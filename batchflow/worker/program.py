"""Job program: everything a worker needs to know about a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from batchflow.core.retry import NEVER, Retry
from batchflow.io.sources.base import Source

if TYPE_CHECKING:
    from batchflow.core.rate import Rate, RateLimiter


class Limits(NamedTuple):
    """Limits of one task, as plain values that are known before any user code is unpickled."""

    seconds: float | None = None
    memory: int | None = None
    """Memory in bytes."""


class Program(NamedTuple):
    """Job definition that is sent to each worker once."""

    fn: Callable[..., Any]
    source: Source
    per: Literal["record", "batch"] = "record"
    setup: Callable[[], Any] | None = None
    args: Mapping[str, Any] = {}
    combine: Callable[[Any], Any] | None = None
    format: str | None = None
    """Output format; ``None``: rows are returned to the driver."""
    pieces: str = ""
    """Folder for pieces."""
    tables: bool = False
    """Whether each chunk returns one table whose schema must match those of other chunks."""
    retry: Retry = NEVER
    timeout: float | None = None
    """Time limit of one task, in seconds."""
    memory: int | None = None
    """Memory limit of one task, in bytes."""
    folder: str = ""
    """Working directory of the driver, which relative input paths start from."""
    concurrency: int | None = None
    """Concurrent calls in one worker; ``None``: sequential calls at full speed."""
    rate: Rate | None = None
    """Rate limit of all calls of the job together."""
    bucket: RateLimiter | None = None
    """Shared rate limiter, created by the executor."""
    isolates: bool = True
    """Whether a failing batch is halved until the records at fault are alone."""

    @property
    def side_by_side(self) -> int | None:
        """Concurrent calls in one worker; 1 if calls are sequential but rate-limited."""
        return self.concurrency or (1 if self.bucket and self.per == "record" else None)

    @property
    def waits(self) -> bool:
        """Whether calls are concurrent or rate-limited."""
        return self.side_by_side is not None or self.bucket is not None

    @property
    def limits(self) -> Limits:
        """Limits of one task."""
        return Limits(self.timeout, self.memory)
