import pickle
from array import array

import pyarrow as pa
import pytest

from batchflow.combiner.error_table import ErrorTable
from batchflow.combiner.result import Result
from batchflow.errors import FailedRecordsError, SchemaError, StoppedError
from batchflow.io.arrow.rows import Rows, as_numbers
from batchflow.reporting.report import Report


class Thing:
    def __init__(self, name):
        self.name = name

    def __eq__(self, other):
        return self.name == other.name

    __hash__ = None


def across(rows):
    """Return rows as another process gets them, their buffers apart from the pickle."""
    buffers = []
    data = pickle.dumps(rows, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([1, -2, 2**63 - 1], "q"),
        ([1.5, float("inf")], "d"),
        ([1, 2.0], None),
        ([True], None),
        ([2**63], None),
        (["x"], None),
        ([None], None),
        ([], None),
    ],
)
def test_plain_numbers(values, code):
    numbers = as_numbers(values)
    assert (numbers.typecode if numbers is not None else None) == code
    assert numbers is None or numbers.tolist() == values


def test_all_kinds_of_segments_cross_and_stay_in_order():
    table = pa.table({"a": [1, None, 3]})
    rows = Rows([array("q", [1, 2]), table, [Thing("x"), {1}], array("d", [0.5])])
    assert across(rows).values() == [1, 2, {"a": 1}, {"a": None}, {"a": 3}, Thing("x"), {1}, 0.5]


def test_a_slice_takes_no_more_room_than_its_rows():
    table = pa.table({"a": range(1_000_000)})
    buffers = []
    pickle.dumps(Rows([table.slice(5, 10)]), protocol=5, buffer_callback=buffers.append)
    assert sum(buffer.raw().nbytes for buffer in buffers) < 1000


def test_numbers_become_the_column_value():
    tables = across(Rows([array("q", [1, 2]), array("d", [0.5])])).tables
    assert [table.to_pydict() for table in tables] == [{"value": [1, 2]}, {"value": [0.5]}]
    assert [table.schema.field("value").type for table in tables] == [pa.int64(), pa.float64()]


def test_objects_are_no_table():
    with pytest.raises(
        SchemaError, match=r"row 1: .* a Thing, which is neither .* take the values from result\.values"
    ):
        _ = Rows([[Thing("x")]]).tables


@pytest.mark.parametrize("code", ["q", "d"])
def test_numbers_are_made_again_from_buffers_of_any_kind(code):
    """Shared memory gives bytes; Ray gives the buffers as they were, with items of eight bytes."""
    rows = Rows([array(code, range(1000))])
    buffers = []
    data = pickle.dumps(rows, protocol=5, buffer_callback=buffers.append)
    assert pickle.loads(data, buffers=buffers).segments == rows.segments
    assert pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers]).segments == rows.segments


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickle_takes_rows_results_and_errors(protocol):
    def there_and_back(value):
        return pickle.loads(pickle.dumps(value, protocol))

    table = pa.table({"a": [1, None]})
    rows = Rows([array("q", [1, 2]), table, [Thing("x")]])
    assert there_and_back(rows).values() == rows.values()
    assert there_and_back(Result(ErrorTable(), Report(rows_in=7), [rows])).values == rows.values()
    stopped = there_and_back(StoppedError("too many", table, Report(failed=7)))
    assert (str(stopped), stopped.errors, stopped.report) == ("too many", table, Report(failed=7))
    failed = there_and_back(FailedRecordsError("some", table))
    assert (str(failed), failed.errors) == ("some", table)
