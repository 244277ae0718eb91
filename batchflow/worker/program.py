"""What a worker needs to know of a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from batchflow.core.retry import NEVER, Retry
from batchflow.io.sources.base import Source

if TYPE_CHECKING:
    from batchflow.core.rate import Rate, RateLimiter


class Limits(NamedTuple):
    """What one task is kept to: plain values, known before anything of the user's is made again."""

    seconds: float | None = None
    memory: int | None = None
    """Bytes."""


class Program(NamedTuple):
    """What a worker needs to know of a job; shipped once to each."""

    fn: Callable[..., Any]
    source: Source
    per: Literal["record", "batch"] = "record"
    setup: Callable[[], Any] | None = None
    args: Mapping[str, Any] = {}
    combine: Callable[[Any], Any] | None = None
    format: str | None = None
    """Output format; ``None``: rows go back to the driver."""
    pieces: str = ""
    """Folder for pieces."""
    tables: bool = False
    """Rows that go back are one table for each chunk, which must go with those of other chunks."""
    retry: Retry = NEVER
    timeout: float | None = None
    """Seconds of one task."""
    memory: int | None = None
    """Bytes of one task."""
    folder: str = ""
    """Working directory of the driver: what relative paths of inputs start from."""
    concurrency: int | None = None
    """Calls at once in one worker; ``None``: one after the other, as fast as can be."""
    rate: Rate | None = None
    """Of all calls of the job."""
    bucket: RateLimiter | None = None
    """What keeps to it; made by the executor."""
    isolates: bool = True
    """A batch that the function refuses is halved until the records at fault are alone."""

    @property
    def side_by_side(self) -> int | None:
        """Calls at once in one worker, of which there may be one that waits for its turn."""
        return self.concurrency or (1 if self.bucket and self.per == "record" else None)

    @property
    def waits(self) -> bool:
        """Whether calls wait: side by side, or for their turn."""
        return self.side_by_side is not None or self.bucket is not None

    @property
    def limits(self) -> Limits:
        """What one task is kept to."""
        return Limits(self.timeout, self.memory)
