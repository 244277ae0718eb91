"""What steps that allow failures are told of jobs, where the error table has not a row for each record."""

import pytest

import batchflow as bf


def refuse(value, *_):
    if value in (2, "c"):
        raise ValueError(value)
    return value


def told(partial):
    return partial.succeeded, partial.failed, partial.errors.num_rows


def run(executor, source, **options):
    """Return what a step is told of a job."""
    flow = bf.Flow()
    job = flow.map_records(refuse, source, **options)
    step = flow.step(told, flow.allow_failed(job))
    return flow.run(executor=executor)[step].value


def test_each_record_that_failed_is_one(executor):
    assert run(executor, range(6), chunk=3) == (5, 1, 1)


@pytest.mark.parametrize(("share", "came"), [(0.5, (3, 3, 1)), (0.6, None)])
def test_all_records_of_a_chunk_that_failed_as_a_whole_failed(executor, share, came):
    def first(table):
        if 2 in table["value"].to_pylist():
            raise ValueError("no")
        return table

    flow = bf.Flow()
    job = flow.map_batches(first, range(6), chunk=3, isolate=False)
    step = flow.step(told, flow.allow_failed(job, share), name="told")
    run = flow.run(executor=executor, on_error="continue")
    assert (run[step].value if run[step].state == "succeeded" else None) == came
