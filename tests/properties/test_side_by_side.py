"""However calls wait side by side, rows, order, failures and tries are those of one call after the other."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

import batchflow as bf

RECORDS = 40


class Plan:
    """What becomes of each record: how often it fails, how many rows it gives, and after how many turns."""

    def __init__(self, records):
        self.records = records
        self.tries = dict.fromkeys(range(RECORDS), 0)

    def give(self, n):
        fails, rows, _ = self.records[n]
        self.tries[n] += 1
        if self.tries[n] <= fails:
            raise OSError(f"{n} failed {self.tries[n]} times")
        return None if rows == 0 else n if rows == 1 else iter([n] * rows)

    async def later(self, n):
        for _ in range(self.records[n][2]):
            await asyncio.sleep(0)
        return self.give(n)

    async def many(self, n):
        for _ in range(self.records[n][2]):
            await asyncio.sleep(0)
        given = self.give(n)
        for value in [given] if isinstance(given, int) else given or []:
            yield value


def told(result):
    columns = ["record", "payload", "phase", "error_type", "message", "attempts"]
    rows = [tuple(row.values()) for row in result.errors.select(columns).to_pylist()]
    return result.values, rows, result.report.retries, result.report.rows_out


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 20)), min_size=RECORDS, max_size=RECORDS
    ),
    st.integers(1, RECORDS),
    st.integers(1, 50),
    st.sampled_from(["threads", "later", "many"]),
)
def test_waiting_changes_nothing(records, chunk, concurrency, kind):
    def run(name, **options):
        fn = getattr(Plan(records), name)
        retry = bf.Retry(attempts=3, backoff=0)
        return told(
            bf.map_records(fn, bf.records(range(RECORDS)), executor="serial", retry=retry, chunk=chunk, **options)
        )

    assert run("give" if kind == "threads" else kind, concurrency=concurrency) == run("give")
