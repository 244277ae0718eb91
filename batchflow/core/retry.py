"""Retry policy: errors to retry, number of attempts and delays between them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from batchflow.errors import RetryAfter, UsageError

LONGEST_DELAY = 60.0
"""Maximum delay before another attempt, in seconds."""

_HOPELESS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    FileNotFoundError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""Errors that would recur on every attempt: mistakes in code or data, and insufficient memory."""


class _Retry(NamedTuple):
    attempts: int
    """Maximum number of attempts, including the first."""
    on: tuple[type[BaseException], ...] | type[BaseException] | None
    """Errors worth a retry; ``None``: all except mistakes in code or data, like `TypeError`."""
    backoff: float
    """Seconds before the second attempt; doubled for each later one, up to a minute."""
    jitter: float
    """Random share of each delay, so that waiting attempts do not all start at once."""


class Retry(_Retry):
    """Number of attempts after failures, and the delays between them.

    A record for which the function raises is retried by its worker, together with other records of its block. A
    chunk that fails as a whole is retried by the scheduler. Work that kills a worker or takes too long is halved
    instead, until the record at fault is alone.

    Raises
    ------
    UsageError
        If ``attempts`` is less than 1, or a time is negative.
    """

    __slots__ = ()

    def __new__(
        cls,
        attempts: int = 3,
        on: tuple[type[BaseException], ...] | type[BaseException] | None = None,
        backoff: float = 0.1,
        jitter: float = 0.5,
    ) -> Self:
        """Create a validated policy."""
        self = super().__new__(cls, attempts, on, backoff, jitter)
        if self.attempts < 1 or self.backoff < 0 or not 0 <= self.jitter <= 1:
            message = f"{self}: attempts are 1 or more, backoff 0 or more, jitter from 0 to 1"
            raise UsageError(message)
        kinds: Any = () if self.on is None else self.on if isinstance(self.on, tuple) else (self.on,)
        if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
            message = f"Retry(on={self.on!r}): name exception classes, like on=(OSError, TimeoutError)"
            raise UsageError(message)
        return self

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self:  # type: ignore[override]
        return cls(*iterable)  # validates the result of `_replace`, too

    def __reduce__(self) -> tuple[Any, ...]:
        return Retry, tuple(self)  # every step of a flow carries its policy

    def helps(self, error: BaseException | type[BaseException]) -> bool:
        """Whether a retry may help after this error."""
        kind = error if isinstance(error, type) else type(error)
        if self.on is not None:
            return issubclass(kind, self.on)
        hopeless = issubclass(kind, _HOPELESS) or getattr(kind, "hopeless", False)
        return issubclass(kind, Exception) and not hopeless

    def delay(self, attempt: int) -> float:
        """Return the delay in seconds after an attempt, counted from 1."""
        import random  # only needed after a failure

        longest = min(LONGEST_DELAY, self.backoff * 2.0 ** min(attempt - 1, 60))
        return longest * (1 - self.jitter * random.random())

    def again(self, error: BaseException, attempt: int) -> bool:
        """Whether to retry a record after an attempt, counted from 1, that raised this error."""
        asked = isinstance(error, RetryAfter)
        return attempt < self.tries(asked=asked) and (asked or self.helps(error))

    def tries(self, *, asked: bool) -> int:
        """Return the maximum number of attempts, given whether the function asked for a retry."""
        return ASKED_FOR if asked and self == NEVER else self.attempts

    def after(self, errors: Iterable[BaseException], attempt: int) -> float:
        """Return the delay in seconds after an attempt with these errors, as long as any of them asks for."""
        return max([self.delay(attempt), *(error.seconds for error in errors if isinstance(error, RetryAfter))])


NEVER = Retry(attempts=1, on=())
"""Default policy: no retries, except that `RetryAfter` is honoured."""
ASKED_FOR = 3
"""Maximum attempts under the default policy for a record whose function raises `RetryAfter`."""
