"""Flows of any shape, with failures anywhere, in any order of completion: what a reference says comes of them."""

from __future__ import annotations

import hypothesis.strategies as st
import pyarrow as pa
from fake import FakeExecutor
from hypothesis import HealthCheck, given, settings

import batchflow as bf
from batchflow.core.resources import Budget, Resources
from batchflow.core.work import Call, Task
from batchflow.reporting.graph.analysis import GraphNode

STEADY = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck), max_examples=150
)


@st.composite
def graphs(draw):
    """Draw steps: what each takes of earlier ones and how, whether it fails, is wanted, and what it needs."""
    steps = []
    for at in range(draw(st.integers(1, 12))):
        earlier = st.lists(st.integers(0, at - 1), max_size=3, unique=True) if at else st.just([])
        steps.append(
            {
                "takes": draw(earlier),
                "allows": draw(earlier),
                "share": draw(st.sampled_from([0.0, 0.5, 1.0])),
                "after": draw(earlier),
                "fails": draw(st.booleans()) and draw(st.booleans()),
                "wanted": draw(st.sampled_from([True, True, True, False])),
                "default": draw(st.booleans()),
                "job": draw(st.sampled_from([False, False, False, True])),
                "cpus": draw(st.sampled_from([0, 1, 1, 2])),
            }
        )
    for step in steps:
        if step["job"]:  # over what it is given when it is written
            step |= {"takes": [], "allows": []}
    return steps


def record(at, fails):
    if fails:
        raise ValueError(at)
    return at


def call(at, takes, allows, fails):
    if fails:
        raise ValueError(at)
    return [
        at,
        takes,
        []
        if allows is None
        else [allows.value, allows.succeeded, allows.failed, sorted(set(allows.errors["step"].to_pylist()))],
    ]


def reference(steps):
    """Return state and value of each step, and whether something failed for it, as they follow from those before."""
    came = []
    for at, step in enumerate(steps):
        allowed = [came[one] for one in step["allows"]]
        good = [value for _, value, _ in allowed if value is not None]
        bad = sum(broken for _, _, broken in allowed)
        lost = [came[one][2] for one in step["takes"] if came[one][1] is None]
        lost += [True for one in step["after"] if came[one][2]]
        if lost:
            came.append(("skipped", None, any(lost)))
        elif len(good) < step["share"] * (len(good) + bad):
            came.append(("skipped", None, True))
        elif not step["wanted"]:
            came.append(("skipped", "default" if step["default"] else None, False))
        elif step["fails"]:
            came.append(("failed", None, True))
        elif step["job"]:
            came.append(("succeeded", [at], False))
        else:
            failed = sorted(str(one) for one in step["allows"] if came[one][0] == "failed")
            told = [good, len(good), bad, failed] if allowed else []
            came.append(("succeeded", [at, [came[one][1] for one in step["takes"]], told], False))
    return came


def called(at, steps, came):
    """Whether a step was called: also one that its condition did not want, which is asked where it would run."""
    step = steps[at]
    runs = [came[one] for one in step["takes"]]
    if step["job"] or came[at][0] != "skipped":
        return not step["job"]
    good = [came[one][1] for one in step["allows"] if came[one][1] is not None]
    bad = sum(came[one][2] for one in step["allows"])
    enough = len(good) >= step["share"] * (len(good) + bad)
    return (
        all(value is not None for _, value, _ in runs)
        and not any(came[one][2] for one in step["after"])
        and enough
    )


def plain(value):
    """Return a value with tables, which jobs give, as lists; also inside of those of other steps."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value["value"].to_pylist() if isinstance(value, pa.Table) else value


def written(steps):
    flow = bf.Flow()
    handles = []
    for at, step in enumerate(steps):
        options = {"name": str(at), "after": [handles[one] for one in step["after"]]}
        if not step["wanted"]:
            options["when"] = lambda *_: False
            if step["default"]:
                options["default"] = "default"
        if step["job"]:
            job = {"args": {"fails": step["fails"]}, "max_errors": 0, "per_task": Resources(cpus=step["cpus"])}
            handles.append(flow.map_records(record, [at], **job, **options))
            continue
        takes = [handles[one] for one in step["takes"]]
        allows = None
        if step["allows"]:
            # of several, even where it is one: a list of values
            allows = flow.allow_failed([handles[one] for one in step["allows"]], step["share"])
        handles.append(
            flow.step(call, at, takes, allows, step["fails"], per_task=Resources(cpus=step["cpus"]), **options)
        )
    return flow, handles


class Watched(FakeExecutor):
    """Has three cores, and watches that no more are in use."""

    def __init__(self, pick):
        super().__init__(3, pick)
        self.ended = 0

    def budget(self, limits):
        return Budget(Resources(cpus=3))

    def slots(self, limits, per_task):
        return 3

    def submit(self, job, work):
        super().submit(job, work)
        assert len({(number, one.key) for number, one in self.queue}) == len(self.queue)
        assert sum(isinstance(one, Call | Task) for _, one in self.queue) <= 3 + 32


@given(steps=graphs(), data=st.data())
@settings(STEADY)
def test_any_flow_in_any_order(steps, data):
    flow, handles = written(steps)
    executor = Watched(lambda count: data.draw(st.integers(0, count - 1)))
    run = flow.run(executor=executor, on_error="continue", keep=True)
    came = reference(steps)
    assert [step.state for step in run.steps] == [state for state, _, _ in came]
    assert [plain(run[handle].value) if run[handle].opened else None for handle in handles] == [
        value for _, value, _ in came
    ]
    assert sorted(set(run.errors["step"].to_pylist()), key=int) == [
        str(at) for at, (state, _, _) in enumerate(came) if state == "failed"
    ]
    calls = [work.key[0] for work in executor.performed if isinstance(work, Call)]
    assert len(calls) == len(set(calls))  # each step is called once at most
    assert set(calls) == {at for at in range(len(steps)) if called(at, steps, came)}


@given(steps=graphs(), data=st.data())
@settings(STEADY)
def test_an_abort_leaves_every_step_in_a_state(steps, data):
    flow, _ = written(steps)
    try:
        run = flow.run(executor=Watched(lambda count: data.draw(st.integers(0, count - 1))), on_error="abort")
    except bf.errors.FlowError as error:
        run = error.run
        assert any(step.state == "failed" for step in run.steps)
    failed = any(step.state == "failed" for step in run.steps)
    assert all(step.state in ("succeeded", "failed", "skipped", "cancelled") for step in run.steps)
    assert failed or all(step.state != "cancelled" for step in run.steps)
    assert run.ok != failed
    order = {step.name: at for at, step in enumerate(run.steps)}
    assert len(order) == len(steps)
    assert all(isinstance(node, GraphNode) for node in run._nodes)
