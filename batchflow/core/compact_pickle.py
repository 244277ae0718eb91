"""Compact pickles of named tuples: a number replaces the class name, whose lookup takes half of the time."""

from collections.abc import Callable
from typing import Any, TypeVar

_Kind = TypeVar("_Kind", bound=type)


class CompactPickle:
    """Class decorator that pickles the named tuples of one module by their number in it.

    The numbers are those of one module, because processes may import modules in different orders.

    Parameters
    ----------
    rebuild
        Function of that module which returns an object from the number of its class and its fields. Pickle
        finds it by name, and imports the module for that.
    """

    def __init__(self, rebuild: Callable[..., Any]) -> None:
        self.classes: list[Any] = []
        """Decorated classes by number."""
        self._rebuild = rebuild

    def __call__(self, kind: _Kind) -> _Kind:
        """Register a class, whose objects are then pickled by its number."""
        number, rebuild = len(self.classes), self._rebuild
        self.classes.append(kind)

        def reduce(self: tuple[Any, ...]) -> tuple[Any, ...]:
            return rebuild, (number, *self)

        kind.__reduce__ = reduce  # type: ignore[method-assign,assignment]
        return kind
