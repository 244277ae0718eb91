"""How seldom Python looks for garbage while a flow runs."""

import gc

import batchflow as bf
from batchflow.core.garbage_collection import relaxed_gc


def test_what_was_set_is_set_again_in_whatever_order_flows_end():
    before = gc.get_threshold()
    one, other = relaxed_gc(), relaxed_gc()
    one.__enter__()
    asked = gc.get_threshold()
    other.__enter__()
    one.__exit__(None, None, None)
    assert gc.get_threshold() == asked > before
    other.__exit__(None, None, None)
    assert gc.get_threshold() == before


def test_a_program_that_switched_it_off_keeps_that():
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with relaxed_gc():
            assert gc.get_threshold()[0] == 0
        assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)


def test_a_flow_leaves_it_as_it_was():
    before = gc.get_threshold()
    flow = bf.Flow()
    seen = flow.step(gc.get_threshold)
    run = flow.run(executor=bf.Serial(), progress=False)
    assert run[seen].value > before
    assert gc.get_threshold() == before
