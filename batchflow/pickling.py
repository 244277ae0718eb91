"""Pickles of what other processes have no definition of: lambdas, closures, what ``__main__`` defines."""

from __future__ import annotations

import io
import sys
from collections import ChainMap
from collections.abc import Callable
from functools import cache
from types import CodeType
from typing import Any, ClassVar

_NAMELESS = "<dynamic-code>"
"""What cloudpickle has put in the place of a function's file since 3.1.3."""


def has_modules_by_value() -> bool:
    """Whether `cloudpickle` was told of a module that other processes may not find."""
    if "cloudpickle" not in sys.modules:
        return False
    import cloudpickle  # waits for another thread that imports it

    return bool(cloudpickle.list_registry_pickle_by_value())


def dumps(value: Any, buffer_callback: Callable[[Any], Any] | None = None) -> bytes:
    """Return an object as a pickle; code keeps the name of its file, which tracebacks show.

    Raises
    ------
    Exception
        Whatever the object raises that cannot be pickled.
    """
    file = io.BytesIO()
    pickler()(file, protocol=5, buffer_callback=buffer_callback).dump(value)
    return file.getvalue()


@cache
def pickler() -> Any:
    """Return the class that pickles what is not defined elsewhere."""
    import cloudpickle  # 20 ms, which most jobs need not wait for in every process

    reduce = cloudpickle.Pickler.dispatch_table[CodeType]

    def reduce_code(code: CodeType) -> tuple[Any, ...]:
        make, arguments, *rest = reduce(code)
        return make, tuple(code.co_filename if one == _NAMELESS else one for one in arguments), *rest

    copy_file = cloudpickle.Pickler.dispatch_table[io.TextIOWrapper]

    def reduce_file(file: Any) -> Any:
        """Refuse an open file, of which cloudpickle would make a copy in memory; standard streams go by name."""
        if file in (sys.stdout, sys.stderr):
            return copy_file(file)
        message = f"an open file ({file.name}) cannot go to another process: give its name or its content"
        raise TypeError(message)

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table: ClassVar[Any] = ChainMap(
            {CodeType: reduce_code, io.TextIOWrapper: reduce_file}, cloudpickle.Pickler.dispatch_table
        )

    return Pickler
