"""What is wrong with a flow is said when it is written, and the message names the step."""

import functools
import pickle
import threading

import pytest

import batchflow as bf
from batchflow import errors


def add(one, two=0, *, timeout=None):
    return one + two + (timeout or 0)


def flow_of(*steps):
    flow = bf.Flow("sales")
    for name in steps:
        flow.step(add, 1, name=name)
    return flow


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {}, "step 'add': test_building.add cannot be called so: missing a required argument: 'one'"),
        ((1, 2, 3), {}, "step 'add': test_building.add cannot be called so: too many positional arguments"),
        (
            (1,),
            {"tow": 2},
            "step 'add': test_building.add cannot be called so: got an unexpected keyword argument 'tow'",
        ),
        ((1,), {"name": "sum", "tow": 2}, "step 'sum': "),
        (
            (1,),
            {"timeout": 5},
            r"step 'add': timeout= is an option of the step, but test_building.add has a parameter of that name: pass",
        ),
        (
            (1,),
            {"into": "x.pickle"},
            r"step 'add': into='x.pickle' must end with one of \.arrow, \.parquet, \.json",
        ),
        ((1,), {"retry": 3}, "step 'add': retry=3 must be a Retry"),
        ((1,), {"when": True}, "step 'add': when=True is neither a step nor a function"),
        ((1,), {"after": "other"}, "step 'add': after='o' is no step: pass handles of this flow"),
        (
            (threading.Lock(),),
            {},
            "step 'add': its arguments cannot be pickled, so no worker can get them: .*lock",
        ),
        ((1,), {"default": threading.Lock()}, "step 'add': its default= cannot be pickled"),
    ],
)
def test_a_step_that_cannot_work(arguments, options, message):
    flow = bf.Flow()
    with pytest.raises(errors.UsageError, match=f"^{message}"):
        flow.step(add, *arguments, **options)
    assert len(flow) == 0


@pytest.mark.parametrize("timeout", [0, -1, "5"])
def test_a_timeout_that_is_none(timeout):
    with pytest.raises(errors.UsageError, match=r"^step 'len': timeout=.* must be a number of seconds over 0"):
        bf.Flow().step(len, [], timeout=timeout)


@pytest.mark.parametrize("fn", [None, 5, "add"])
def test_what_is_no_function(fn):
    with pytest.raises(errors.FunctionError, match=r"^step 1 of flow 'flow' is a .*: pass a function"):
        bf.Flow().step(fn)


def test_a_function_that_cannot_be_shipped():
    lock = threading.Lock()
    with pytest.raises(errors.FunctionError, match=r"^step '<lambda>': .* cannot be shipped to a worker: .*lock"):
        bf.Flow().step(lambda: lock)


def test_a_handle_of_another_flow():
    flow, other = flow_of("one"), flow_of("two")
    message = r"^step 'x' of flow 'sales' takes step 'two' of flow 'sales': only steps of one flow can depend"
    for options in ({"after": other["two"]}, {"when": other["two"]}):
        with pytest.raises(errors.UsageError, match=message):
            flow.step(add, 1, name="x", **options)
    for argument in (other["two"], [other["two"]], flow.allow_failed(other["two"])):
        with pytest.raises(errors.UsageError, match=message):
            flow.step(add, argument, name="x")
    with pytest.raises(errors.UsageError, match="of flow 'sales': only steps"):
        flow.run(only=other["two"])


def test_two_steps_of_one_name():
    flow = flow_of("one")
    with pytest.raises(
        errors.UsageError, match=r"^flow 'sales' has a step 'one' already: give each a name of its own"
    ):
        flow.step(add, 1, name="one")


def test_names_that_a_flow_gives():
    flow = bf.Flow()
    steps = [flow.step(add, 1), flow.step(add, 1), flow.step(add, 1, name="add 3"), flow.step(add, 1)]
    steps += [flow.step(functools.partial(add, 1)), flow.step(lambda: 1), flow.map_records(abs, [1])]
    assert [step.name for step in steps] == ["add", "add 2", "add 3", "add 4", "add 5", "<lambda>", "abs"]
    assert flow["add 2"] == steps[1] != steps[0]
    with pytest.raises(errors.UsageError, match=r"^flow 'flow' has no step 'sub'; it has add, add 2"):
        _ = flow["sub"]


def test_a_step_after_it_ran():
    flow = flow_of("one")
    flow.run(executor="serial")
    for add_step in (lambda: flow.step(add, 1), lambda: flow.map_records(abs, [1])):
        with pytest.raises(
            errors.UsageError, match=r"^flow 'sales' has run, so no step can be added: write a new Flow"
        ):
            add_step()
    assert flow.run(executor="serial").ok  # again, as it is


@pytest.mark.parametrize(
    "use", [list, bool, lambda step: [*step], lambda step: 1 if step else 2], ids=["list", "bool", "*", "if"]
)
def test_a_handle_is_no_value(use):
    with pytest.raises(
        errors.UsageError, match=r"^<Step 'one' of 'sales'> stands for a value that is not there yet"
    ):
        use(flow_of("one")["one"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeouts": 5}, "step 'abs': a job has no option timeouts"),
        ({"timeout": 0}, "step 'abs': timeout=0 must be a number of seconds over 0"),
        ({"into": "x.parquet", "combine": len}, "step 'abs': combine= gives one small table: leave out into="),
        ({"max_errors": -1}, "step 'abs': max_errors=-1 is negative"),
        ({"args": {"x": 1}}, r"step 'abs': builtins.abs cannot be called with \(record, x\)"),
        ({"setup": 5}, "step 'abs': setup=5 cannot be called"),
        ({"args": {"x": threading.Lock()}}, "step 'abs': "),
    ],
)
def test_a_job_that_cannot_work(options, message):
    with pytest.raises(errors.UsageError, match=f"^{message}"):
        bf.Flow().map_records(abs, [1], **options)


def test_shares_and_lists_that_make_no_sense():
    flow = flow_of("one")
    for steps, share in (([], 0), ("one", 0), ([1], 0), (flow["one"], 2)):
        with pytest.raises(errors.UsageError, match="give one or more steps, and a share from 0 to 1"):
            flow.allow_failed(steps, share)
    with pytest.raises(errors.UsageError, match="on_error='ignore' must be 'abort' or 'continue'"):
        flow.run(on_error="ignore")


def test_a_builtin_without_a_signature():
    flow = bf.Flow()
    step = flow.step(max, 1, 2)
    assert flow.run(executor="serial")[step].value == 2


def test_a_flow_without_steps():
    run = bf.Flow("nothing").run(executor="serial")
    assert (run.steps, run.ok, run.errors.num_rows) == ([], True, 0)
    assert bf.Flow("nothing").explain()
    assert run.explain()


def test_a_flow_travels():
    """A step may return one, so it can be pickled; what it was looked up by in this process stays here."""
    flow = flow_of("one")
    flow.step(add, flow["one"], 2, name="two")
    other = pickle.loads(pickle.dumps(flow))
    assert (other["two"].name, other.run(executor="serial")["two"].value) == ("two", 3)
    other = pickle.loads(pickle.dumps(flow_of("one")))
    assert other.step(add, other["one"], name="more").name == "more"
