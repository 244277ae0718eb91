"""What is tried again, how often, and how long to wait before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from batchflow.errors import RetryAfter, UsageError

LONGEST_DELAY = 60.0
"""Seconds to wait before another try, at most."""

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
"""What will happen again however often it is tried: mistakes in code or data, and too little memory."""


class _Retry(NamedTuple):
    attempts: int
    """Tries at most, the first one included."""
    on: tuple[type[BaseException], ...] | type[BaseException] | None
    """Errors that another try may help; ``None``: all but mistakes in code or data, like `TypeError`."""
    backoff: float
    """Seconds before the second try; doubled for each one after it, up to a minute."""
    jitter: float
    """Share of each delay that is left to chance, so that those who wait do not all come back at once."""


class Retry(_Retry):
    """How often something that failed is tried, and after how long.

    A record for which the function raises is tried again by its worker, beside the others of its
    block; a chunk that fails as a whole is tried again by the scheduler. Whatever kills a worker or
    takes too long is halved instead, until the record at fault is alone.

    Raises
    ------
    UsageError
        If ``attempts`` is less than 1, or a time negative.
    """

    __slots__ = ()

    def __new__(
        cls,
        attempts: int = 3,
        on: tuple[type[BaseException], ...] | type[BaseException] | None = None,
        backoff: float = 0.1,
        jitter: float = 0.5,
    ) -> Self:
        """Return it, once it is checked."""
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
        return cls(*iterable)  # what `_replace` gives is checked, too

    def __reduce__(self) -> tuple[Any, ...]:
        return Retry, tuple(self)  # it goes along with each step

    def helps(self, error: BaseException | type[BaseException]) -> bool:
        """Whether another try may help where this was raised."""
        kind = error if isinstance(error, type) else type(error)
        if self.on is not None:
            return issubclass(kind, self.on)
        hopeless = issubclass(kind, _HOPELESS) or getattr(kind, "hopeless", False)
        return issubclass(kind, Exception) and not hopeless

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after an attempt, counted from 1, before the next one."""
        import random  # only where something failed

        longest = min(LONGEST_DELAY, self.backoff * 2.0 ** min(attempt - 1, 60))
        return longest * (1 - self.jitter * random.random())

    def again(self, error: BaseException, attempt: int) -> bool:
        """Whether a record is tried again, for which the function raised this the so many-th time, from 1."""
        asked = isinstance(error, RetryAfter)
        return attempt < self.tries(asked=asked) and (asked or self.helps(error))

    def tries(self, *, asked: bool) -> int:
        """Return how often something is tried at most; the function may have asked for another try."""
        return ASKED_FOR if asked and self == NEVER else self.attempts

    def after(self, errors: Iterable[BaseException], attempt: int) -> float:
        """Return the seconds to wait after an attempt for which these were raised, as they may ask for."""
        return max([self.delay(attempt), *(error.seconds for error in errors if isinstance(error, RetryAfter))])


NEVER = Retry(attempts=1, on=())
"""Of a job that says nothing of it; unlike one that says ``Retry(attempts=1)``, it heeds `RetryAfter`."""
ASKED_FOR = 3
"""Tries at most of a record whose function asks for another one, in such a job."""
