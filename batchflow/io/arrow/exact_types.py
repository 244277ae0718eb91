"""Python values for two Arrow types that Python has none for: maps, and times of day in nanoseconds."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import time, tzinfo
from typing import Any


class MapItems(list[tuple[Any, Any]]):
    """Keys and values of a cell of an Arrow map column; a list of pairs, which becomes a map again.

    Parameters
    ----------
    kind
        The Arrow type, for a map without entries.
    """

    __slots__ = ("kind",)

    def __init__(self, items: Iterable[tuple[Any, Any]] = (), kind: Any = None) -> None:
        super().__init__(items)
        self.kind: Any = kind

    def __reduce__(self) -> tuple[Any, ...]:
        return MapItems, (list(self), self.kind)


class NanoTime(time):
    """A time of day with nanoseconds, as `pandas.Timestamp` is a datetime with nanoseconds."""

    nanosecond: int

    def __new__(
        cls,
        hour: int = 0,
        minute: int = 0,
        second: int = 0,
        microsecond: int = 0,
        tzinfo: tzinfo | None = None,
        *,
        fold: int = 0,
        nanosecond: int = 0,
    ) -> NanoTime:
        """Return a time of day; ``nanosecond`` is below 1,000."""
        made = super().__new__(cls, hour, minute, second, microsecond, tzinfo, fold=fold)
        made.nanosecond = nanosecond
        return made

    @classmethod
    def of(cls, ticks: int) -> NanoTime:
        """Return the time of day so many nanoseconds after midnight."""
        microseconds, nanosecond = divmod(ticks, 1000)
        seconds, microsecond = divmod(microseconds, 1_000_000)
        minutes, second = divmod(seconds, 60)
        return cls(*divmod(minutes, 60), second, microsecond, nanosecond=nanosecond)

    @property
    def ticks(self) -> int:
        """Nanoseconds since midnight."""
        seconds = (self.hour * 60 + self.minute) * 60 + self.second
        return (seconds * 1_000_000 + self.microsecond) * 1000 + self.nanosecond

    def isoformat(self, timespec: str = "auto") -> str:
        """Return the time in ISO 8601, with nine digits if it needs them."""
        if timespec != "auto" or not self.nanosecond:
            return super().isoformat(timespec)
        return f"{super().isoformat('microseconds')}{self.nanosecond:03}"

    def replace(self, *args: Any, **changes: Any) -> NanoTime:
        """Return the time with other fields; nanoseconds stay unless microseconds change."""
        plain = time(self.hour, self.minute, self.second, self.microsecond, self.tzinfo, fold=self.fold)
        nano = changes.pop("nanosecond", 0 if "microsecond" in changes or len(args) > 3 else self.nanosecond)
        made = plain.replace(*args, **changes)
        fields = made.hour, made.minute, made.second, made.microsecond, made.tzinfo
        return NanoTime(*fields, fold=made.fold, nanosecond=nano)

    def __str__(self) -> str:
        return self.isoformat()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.isoformat()!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, time):
            return NotImplemented
        return super().__eq__(other) and self.nanosecond == getattr(other, "nanosecond", 0)

    def __hash__(self) -> int:
        return hash((super().__hash__(), self.nanosecond)) if self.nanosecond else super().__hash__()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        del protocol
        return NanoTime.of, (self.ticks,)
