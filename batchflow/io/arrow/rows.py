"""Results of tasks in input order: tables, plain numbers, and objects that a table would not give back."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from batchflow.core.pickle_by_value import dumps_by_value
from batchflow.errors import SchemaError
from batchflow.io.arrow.arrays import kinds_of
from batchflow.io.arrow.convert import VALUE, NotTabularError, is_tabular, table_to_values, values_to_table
from batchflow.io.arrow.schema import concat

if TYPE_CHECKING:
    import pyarrow as pa

Numbers: TypeAlias = "array[int] | array[float]"
"""Whole numbers of 64 bits (``"q"``) or floats (``"d"``) side by side: what Arrow would hold, without the
0.1 s that a process takes to load Arrow; and Python makes a list of them 30 times as fast."""

_CODES = {int: "q", float: "d"}


def as_numbers(values: Sequence[Any]) -> Numbers | None:
    """Return values as plain numbers if all are ints of 64 bits, or all are floats; else ``None``."""
    kinds = kinds_of(values)
    if len(kinds) != 1:
        return None
    code = _CODES.get(kinds.pop())
    if code is None:
        return None
    try:
        return array(code, values)
    except OverflowError:
        return None


def is_numbers(segment: Any) -> bool:
    """Whether a segment holds plain numbers."""
    return isinstance(segment, array)


class Rows:
    """What one or many tasks gave back, as segments in input order.

    A segment is an Arrow table, plain numbers, or a list of objects. Pickled, the first two are
    buffers of their own, so they cross to another process with one copy.
    """

    __slots__ = ("segments",)

    def __init__(self, segments: Iterable[Any] = ()) -> None:
        self.segments: list[Any] = list(segments)

    @property
    def nbytes(self) -> int:
        """Bytes in memory; of objects a guess."""
        return sum(_size(segment) for segment in self.segments)

    @property
    def tables(self) -> list[pa.Table]:
        """The segments as tables, which need not go together.

        Raises
        ------
        SchemaError
            If there are objects among them that no table holds.
        """
        return [_as_table(segment) for segment in self.segments]

    def table(self) -> pa.Table:
        """Return all rows as one table, the same wherever the input was cut.

        Raises
        ------
        SchemaError
            If no table holds them; the message names the column and the first row at fault.
        """
        if all(map(is_tabular, self.segments)) or len({_code(segment) for segment in self.segments}) == 1:
            try:
                return concat(self.tables)
            except SchemaError as error:
                reason = error
            _table_of(self.values())
            raise reason
        return _table_of(self.values())

    def values(self) -> list[Any]:
        """Return what the function gave back, one value for each call that gave one."""
        values: list[Any] = []
        for segment in self.segments:
            if is_tabular(segment):
                values += table_to_values(segment)
            else:
                values.extend(segment)  # of numbers it makes objects as it goes: no second list
        return values

    def head(self, count: int) -> list[Any]:
        """Return the first few of these values, without making all of them."""
        values: list[Any] = []
        for segment in self.segments:
            if len(values) < count:
                left = count - len(values)
                first = segment.slice(0, left) if is_tabular(segment) else segment[:left]
                values += Rows([first]).values()
        return values

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        buffer = pickle.PickleBuffer if protocol >= 5 else bytes  # what older protocols know
        return _from_wire, ([_to_wire(segment, buffer) for segment in self.segments],)


_OBJECT = 100
"""Bytes that an object is taken for."""


def _size(segment: Any) -> int:
    if is_tabular(segment):
        return int(segment.nbytes)
    return len(segment) * (segment.itemsize if is_numbers(segment) else _OBJECT)


def _code(segment: Any) -> str:
    return segment.typecode if is_numbers(segment) else ""


def _as_table(segment: Any) -> pa.Table:
    import pyarrow as pa

    if is_tabular(segment):
        table: pa.Table = segment
        return table
    if not is_numbers(segment):
        return _table_of(segment)
    kind = pa.int64() if segment.typecode == "q" else pa.float64()
    return pa.table({VALUE: pa.Array.from_buffers(kind, len(segment), [None, pa.py_buffer(segment)])})


def _table_of(values: Sequence[Any]) -> pa.Table:
    """Return values as a table; raises `SchemaError` with the first row that does not go with those before."""
    try:
        return values_to_table(values)
    except (SchemaError, NotTabularError):
        fits, fails = 0, len(values)
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if _is_table(values[:middle]):
            fits = middle
        else:
            fails = middle
    try:
        return values_to_table(values[:fails])
    except (SchemaError, NotTabularError) as error:
        cure = ": take the values from result.values" if isinstance(error, NotTabularError) else ""
        message = f"row {fails:,}: {error}{cure}"
        raise SchemaError(message) from error


def _is_table(values: Sequence[Any]) -> bool:
    try:
        values_to_table(values)
    except (SchemaError, NotTabularError):
        return False
    return True


def _to_wire(segment: Any, buffer: Callable[[Any], Any]) -> Any:
    """Return a segment as what pickle passes on, without a copy where it can: a buffer, with how to read it."""
    if is_numbers(segment):
        return segment.typecode, buffer(segment)
    if is_tabular(segment):
        return "table", buffer(_to_stream(segment))
    return "objects", _pickled(segment)


def _pickled(objects: list[Any]) -> bytes:
    """Return objects as a pickle; what makes pickles of classes of ``__main__`` loads only for these."""
    try:
        plain = pickle.dumps(objects, protocol=5)
    except Exception:
        plain = b"__main__"
    return dumps_by_value(objects) if b"__main__" in plain else plain


def _from_wire(wire: list[tuple[str, Any]]) -> Rows:
    return Rows(_from_buffer(kind, buffer) for kind, buffer in wire)


def _from_buffer(kind: str, buffer: Any) -> Any:
    if kind == "objects":
        return pickle.loads(buffer)
    if kind == "table":
        import pyarrow as pa

        return pa.ipc.open_stream(buffer).read_all()
    numbers = array(kind)
    numbers.frombytes(memoryview(buffer).cast("B"))
    return numbers


def _to_stream(table: pa.Table) -> pa.Buffer:
    """Return a table as an Arrow stream: a slice takes no more room than its rows, as pickled it would."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()
