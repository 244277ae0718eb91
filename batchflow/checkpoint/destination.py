"""Location of an output, with its metadata folder and error table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchflow.io.stores import Place

if TYPE_CHECKING:
    from batchflow.io.stores import Place, Store


ERRORS = "errors.pq"
"""Name of the error table: Parquet, with a suffix that no ``**/*.parquet`` matches."""


@dataclass(frozen=True)
class Destination:
    """Destination of an output."""

    path: Place
    format: str
    one_file: bool

    @property
    def store(self) -> Store:
        """Store that holds the output."""
        from batchflow.io.stores import store_of  # only where there is an output

        return store_of(self.path)

    @property
    def meta(self) -> Place:
        """Metadata folder, next to the output: Polars reads every file in the folder of a dataset."""
        from batchflow.io.stores import meta_of

        return meta_of(self.path)

    @property
    def pieces(self) -> Place:
        """Folder for rows that are not yet in a part."""
        return self.meta / "pieces"
