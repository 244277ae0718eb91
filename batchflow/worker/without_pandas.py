"""Keeps Arrow from loading pandas in a worker that has no other use for it.

Where pandas is installed Arrow loads it for the first array that it makes of a list, to see whether the list
is a series: 0.25 s and 40 MB of each process. Who has no pandas has no series, so Arrow is shown a Python
without pandas once, and told of pandas when anybody loads it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def postpone_pandas() -> None:
    """Have Arrow, whenever it is loaded in this process, do without pandas until somebody loads that."""
    if not {"pyarrow", "pandas"} & sys.modules.keys():
        sys.meta_path.insert(0, _Watch())  # its base is in `importlib.abc`, 20 ms


class _Watch:
    """Stands before those that find modules, and acts when one of the two is loaded."""

    def __init__(self) -> None:
        self._hidden_from: int | None = None
        """Thread that finds no pandas."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the others find, with something to do once it is loaded."""
        if fullname == "pandas" and self._hidden_from == get_ident():
            message = "hidden from Arrow"
            raise ModuleNotFoundError(message, name=fullname)
        if fullname not in ("pyarrow", "pandas"):
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module
            then = self._look_for_pandas if fullname == "pyarrow" else _tell_of_pandas
            spec.loader.exec_module = _followed(load, then)  # type: ignore[method-assign,assignment]
        return spec

    def _look_for_pandas(self) -> None:
        """Have Arrow look for pandas, once for all, and find none."""
        import pyarrow as pa

        if "pandas" in sys.modules or not hasattr(pa.lib, "_pandas_api"):
            return
        self._hidden_from = get_ident()
        try:
            pa.array([0])
        finally:
            self._hidden_from = None


def _tell_of_pandas() -> None:
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and hasattr(arrow, "lib"):
        arrow.lib._pandas_api.pd  # noqa: B018 - looks for it anew; nothing public does


def _followed(load: Callable[[ModuleType], None], then: Callable[[], None]) -> Callable[[ModuleType], None]:
    """Return what loads a module and then does something."""

    def exec_module(module: ModuleType) -> None:
        load(module)
        then()

    return exec_module
