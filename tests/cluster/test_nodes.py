"""Nodes that come, go and have this or that: slots follow them, nothing is lost and nothing is done twice."""

import os
import subprocess
import sys
import textwrap
import threading
import time

import pyarrow as pa
import pytest
from head import head
from nodes import Gate, nodes, wait_until

import batchflow as bf
from batchflow import errors
from batchflow.executors.ray.cluster import SETTINGS

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster():
    with nodes() as made:
        yield made


@pytest.fixture
def ray(cluster):
    with bf.Ray(cluster.address, wait_for_nodes=60) as joined:
        yield joined


@pytest.fixture
def gate(tmp_path):
    (tmp_path / "gate").mkdir()
    return Gate(tmp_path / "gate")


class Aside:
    """Runs something in a thread, and gives what it came to."""

    def __init__(self, run):
        self._thread = threading.Thread(target=self._run, args=(run,))
        self._thread.start()

    def _run(self, run):
        try:
            self._value, self._error = run(), None
        except BaseException as error:
            self._error = error

    def result(self):
        self._thread.join(100)
        if self._error is not None:
            raise self._error
        return self._value


def at_the_gate(gate, count):
    """Wait until so many functions wait at a gate."""
    wait_until(lambda: len(gate.entered()) >= count)
    return gate.entered()


@pytest.mark.parametrize("into", [None, "out/"])
def test_a_node_that_goes_costs_a_try_and_no_record(cluster, ray, gate, tmp_path, into):
    stays, goes = cluster.add(), cluster.add()

    def wait(n):
        gate.enter(n)
        return {"n": n}

    try:
        options = {"into": tmp_path / into} if into else {}
        job = Aside(lambda: bf.map_records(wait, bf.records(range(12)), chunk=1, executor=ray, **options))
        entered = at_the_gate(gate, 4)
        lost = [n for n, _, node in entered if node == goes.node_id]
        assert len(lost) == 2
        cluster.kill(goes)
        gate.open()
        result = job.result()
    finally:
        cluster.kill(stays)
    assert result.table.to_pylist() == [{"n": n} for n in range(12)]
    assert result.errors.num_rows == 0
    assert result.report.retries >= 2
    assert {node for n, _, node in gate.entered() if n in lost} >= {stays.node_id}
    if into:
        from batchflow.cli import main

        assert main(["verify", str(tmp_path / into)]) == 0


def test_record_that_kills_its_worker_takes_three_on_several_nodes(cluster, ray):
    fn = lambda n: os._exit(3) if n == 647 else n
    added = [cluster.add(cpus=1) for _ in range(2)]
    try:
        result = bf.map_records(fn, bf.records(range(2000)), executor=ray, chunk=2000)
    finally:
        for node in added:
            cluster.kill(node)
    assert result.values == [n for n in range(2000) if n != 647]
    assert result.errors.select(["record", "attempts"]).to_pylist() == [{"record": 648, "attempts": 3}]


def test_rows_do_not_go_with_the_node_that_made_them(cluster, ray, gate):
    """The first chunk, which is slow, holds back those that are done; their node goes meanwhile."""
    stays, goes = cluster.add(1, resources={"stays": 1}), cluster.add(1)
    done = pa.array(range(100_000))

    def make(n):
        gate.enter(n)
        return {"n": n, "more": done.to_pylist()}

    def merge(table):
        return pa.table({"n": [sum(table["n"].to_pylist())], "more": [table["more"][0].as_py()]})

    try:
        job = Aside(lambda: bf.map_records(make, bf.records(range(6)), chunk=1, executor=ray, combine=merge))
        at_the_gate(gate, 2)
        (kept,) = (n for n, _, node in gate.entered() if node == stays.node_id)
        gate.open()
        wait_until(lambda: len(gate.entered()) >= 6)
        cluster.kill(goes)
        result = job.result()
    finally:
        cluster.kill(stays)
    assert kept is not None
    assert (result.table["n"].to_pylist(), result.errors.num_rows) == ([15], 0)


def test_a_node_that_comes_later_is_used(cluster, ray, gate):
    first = cluster.add()

    def wait(n):
        gate.enter(n)
        return n

    job = Aside(lambda: bf.map_records(wait, bf.records(range(10)), chunk=1, executor=ray))
    assert {node for _, _, node in at_the_gate(gate, 2)} == {first.node_id}
    second = cluster.add()
    try:
        entered = at_the_gate(gate, 4)
        assert {node for _, _, node in entered} == {first.node_id, second.node_id}
        gate.open()
        result = job.result()
    finally:
        cluster.kill(first)
        cluster.kill(second)
    assert result.values == list(range(10))
    assert result.report.slots == 4


def test_a_flow_uses_a_node_that_comes_later(cluster, ray, gate):
    first = cluster.add(1)
    flow = bf.Flow("grows")
    steps = [flow.step(gate.enter, n, name=f"step {n}") for n in range(4)]
    job = Aside(lambda: flow.run(executor=ray))
    at_the_gate(gate, 1)
    second = cluster.add(3)
    try:
        assert len(at_the_gate(gate, 4)) == 4
        gate.open()
        run = job.result()
    finally:
        cluster.kill(first)
        cluster.kill(second)
    assert [run[step].state for step in steps] == ["succeeded"] * 4


def test_a_node_that_drains_is_left_in_time(cluster, ray, gate):
    """Its workers are kept for some seconds, so short chunks go on to it for as long, and not until it goes."""
    stays, drains = cluster.add(), cluster.add()

    def work(n):
        import ray

        began = time.time()
        gate.enter(n)
        time.sleep(0.05)
        return {"n": n, "node": ray.get_runtime_context().get_node_id(), "began": began}

    count = 800  # 10 s on four cores, 20 s on the two that are left
    gate.open()
    try:
        job = Aside(lambda: bf.map_records(work, bf.records(range(count)), chunk=1, executor=ray))
        wait_until(lambda: {node for *_, node in gate.entered()} >= {stays.node_id, drains.node_id})
        drained = time.time()
        _drain(cluster.address, drains.node_id)
        result = job.result()
    finally:
        cluster.kill(stays)
        cluster.kill(drains)
    assert result.errors.num_rows == 0
    rows = result.table.to_pylist()
    assert [row["n"] for row in rows] == list(range(count))
    kept = int(SETTINGS["RAY_worker_lease_timeout_milliseconds"]) / 1000
    there = [row["began"] - drained for row in rows if row["node"] == drains.node_id]
    assert max(there, default=0.0) < kept + 3  # of the 60 s that it has
    assert max(row["began"] for row in rows) - drained > kept + 3  # the job went on long after that, elsewhere


def _drain(address, node):
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = GcsClient(address=address).drain_node(
        node, reason, "a spot node", int(time.time() + 60) * 1000
    )
    assert accepted, why


def test_what_no_node_has_is_refused_at_once_with_what_there_is(cluster):
    node = cluster.add(2, labels={"zone": "b"})
    try:
        with bf.Ray(cluster.address) as ray:
            with pytest.raises(errors.ResourceError) as told:
                bf.map_records(str, bf.records([1]), per_task=bf.Resources(cpus=3), executor=ray)
            assert "one task asks for 3 cpus, which no node of the Ray cluster has; there is: 1 with " in str(
                told.value
            )
            assert "1 with 2 cpus and " in str(told.value)
            for more in (bf.Resources(gpus=1), bf.Resources(accelerator="A100"), bf.Resources(custom={"tpu": 1})):
                with pytest.raises(errors.ResourceError, match="which no node of the Ray cluster has"):
                    bf.map_records(str, bf.records([1]), per_task=more, executor=ray)
        none = r"no node of the Ray cluster labelled zone=a has; there is: no node"
        with (
            bf.Ray(cluster.address, options={"label_selector": {"zone": "a"}}) as ray,
            pytest.raises(errors.ResourceError, match=none),
        ):
            bf.map_records(str, bf.records([1]), executor=ray)
        with bf.Ray(cluster.address, options={"label_selector": {"zone": "b"}}) as ray:
            assert bf.map_records(str, bf.records([1]), executor=ray).values == ["1"]
    finally:
        cluster.kill(node)


def test_a_node_is_waited_for_where_that_was_asked(cluster, caplog):
    with bf.Ray(cluster.address, wait_for_nodes=60) as ray:
        job = Aside(
            lambda: bf.map_records(
                str, bf.records([1, 2]), per_task=bf.Resources(cpus=2, custom={"late": 1}), executor=ray
            )
        )
        wait_until(lambda: "waiting for one with 2 cpus and 1 late" in caplog.text)
        node = cluster.add(2, resources={"late": 1})
        try:
            assert job.result().values == ["1", "2"]
        finally:
            cluster.kill(node)
    with (
        bf.Ray(cluster.address, wait_for_nodes=0.1) as ray,
        pytest.raises(errors.ResourceError, match=r"waited 0\.1 s for another"),
    ):
        bf.map_records(str, bf.records([1]), executor=ray)


def test_gpus_are_placed_and_workers_with_one_are_used_again(cluster, ray):
    plain, gpus = cluster.add(), cluster.add(2, num_gpus=2, resources={"accelerator_type:A100": 1})

    def setup():
        return {"device": os.environ["CUDA_VISIBLE_DEVICES"], "process": os.getpid(), "at": time.monotonic_ns()}

    def tell(n, made):
        import ray

        return {
            **made,
            "seen": os.environ["CUDA_VISIBLE_DEVICES"],
            "node": ray.get_runtime_context().get_node_id(),
        }

    try:
        result = bf.map_records(
            tell,
            bf.records(range(40)),
            setup=setup,
            chunk=1,
            executor=ray,
            per_task=bf.Resources(gpus=1, accelerator="A100"),
        )
    finally:
        cluster.kill(plain)
        cluster.kill(gpus)
    rows = result.values
    assert {row["node"] for row in rows} == {gpus.node_id}
    assert {row["seen"] for row in rows} <= {"0", "1"}
    assert len({row["at"] for row in rows}) == len({row["process"] for row in rows})  # set up once in each worker
    assert len({row["process"] for row in rows}) <= 4  # and not one for each of 40 chunks


def test_fractions_of_a_gpu_and_custom_resources_bound_what_runs_at_once(cluster, ray, gate):
    node = cluster.add(8, num_gpus=1, resources={"license": 2})

    def wait(n):
        gate.enter(n)
        return n

    try:
        for per_task, most in ((bf.Resources(gpus=0.25), 4), (bf.Resources(cpus=1, custom={"license": 1}), 2)):
            assert ray.slots(bf.Resources(), per_task) == most
        assert ray.slots(bf.Resources(gpus=0.5), bf.Resources(gpus=0.25)) == 2
        assert ray.slots(bf.Resources(cpus=3), bf.Resources(cpus=1)) == 3
        assert ray.slots(bf.Resources(custom={"license": 1}), bf.Resources(custom={"license": 1})) == 1
        gate.open()
        result = bf.map_records(
            wait, bf.records(range(4)), chunk=1, executor=ray, per_task=bf.Resources(gpus=0.25)
        )
        assert result.values == [0, 1, 2, 3]
    finally:
        cluster.kill(node)


def test_options_of_tasks_are_passed_on(cluster):
    node = cluster.add()
    try:
        environment = {"env_vars": {"GREETING": "hello"}}
        with bf.Ray(cluster.address, options={"runtime_env": environment, "scheduling_strategy": "SPREAD"}) as ray:
            result = bf.map_records(lambda n: os.environ["GREETING"], bf.records([1]), executor=ray)
            assert result.values == ["hello"]
    finally:
        cluster.kill(node)
    with pytest.raises(errors.UsageError, match="is set by batchflow: give amounts as per_task="):
        bf.Ray(options={"num_cpus": 2})


# --- who is connected to what -------------------------------------------------------------------------


def script(code, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "BATCHFLOW_EXECUTOR": "", **environment},
    )
    return done.returncode, done.stdout, done.stderr


def test_a_ray_of_the_program_is_used_and_stays(cluster):
    node = cluster.add()
    try:
        status, out, err = script(
            """
            import sys, ray
            ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
            import batchflow as bf
            result = bf.map_records(str, bf.records(range(3)))
            print(result.values, result.report.executor, ray.is_initialized())
            with bf.Ray("auto") as same:
                print(bf.map_records(str, bf.records(range(3)), executor=same).values, ray.is_initialized())
            print(ray.is_initialized())
            try:
                bf.map_records(str, bf.records([1]), executor=bf.Ray("127.0.0.1:1"))
            except bf.BatchflowError as error:
                print(type(error).__name__, "call ray.shutdown() before" in str(error))
            ray.shutdown()
            """,
            cluster.address,
        )
    finally:
        cluster.kill(node)
    assert (status, err) == (0, "")
    assert out.splitlines() == ["['0', '1', '2'] ray True", "['0', '1', '2'] True", "True", "ExecutorError True"]


def test_a_ray_that_was_joined_is_left(cluster):
    node = cluster.add()
    try:
        status, out, err = script(
            """
            import batchflow as bf
            result = bf.map_records(str, bf.records(range(3)))
            import ray
            print(result.values, result.report.executor, ray.is_initialized())
            print(result.report.logs.endswith("/logs"), result.report.logs in str(result.report))
            """,
            RAY_ADDRESS=cluster.address,
        )
    finally:
        cluster.kill(node)
    assert (status, out.splitlines(), err) == (0, ["['0', '1', '2'] ray False", "True True"], "")


def test_another_version_of_ray_is_told_as_that(cluster):
    status, out, _ = script(
        """
        import sys, ray
        ray.__version__ = "2.0.0"
        import batchflow as bf
        try:
            bf.map_records(str, bf.records([1]), executor=bf.Ray(sys.argv[1]))
        except bf.BatchflowError as error:
            print(error)
        """,
        cluster.address,
    )
    assert status == 0
    assert f"the Ray at {cluster.address} does not go with this process: install the same versions" in out
    assert "Ray: 2.0.0" in out


def test_a_head_that_dies_leaves_what_a_later_run_goes_on_with(tmp_path):
    (tmp_path / "in.txt").write_text("".join(f"{n}\n" for n in range(1000)))
    (tmp_path / "gate").mkdir()
    gate = Gate(tmp_path / "gate")
    code = textwrap.dedent(
        """
        import sys, os
        sys.path.insert(0, sys.argv[3])
        import batchflow as bf
        from nodes import Gate

        def number(line):
            if int(line) == 500:
                if not os.path.exists(sys.argv[2] + "/open"):
                    Gate(sys.argv[2]).enter("500")
            return {"n": int(line)}

        folder = sys.argv[2].rpartition("/")[0]
        print(bf.map_records(number, bf.read_text(folder + "/in.txt"), into=folder + "/out/", chunk=100).report)
        """
    )
    program = tmp_path / "job.py"
    program.write_text(code)
    here = os.path.dirname(os.path.dirname(__file__))
    command = [sys.executable, str(program), "-", gate.folder, here]
    with nodes() as own:
        own.add()
        driver = subprocess.Popen(
            command,
            env={**os.environ, "RAY_ADDRESS": own.address, "BATCHFLOW_EXECUTOR": ""},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            at_the_gate(gate, 1)
            wait_until(lambda: _chunks(tmp_path) >= 5)
            driver.kill()
        finally:
            driver.kill()
            driver.wait()
    gate.open()
    done = subprocess.run(
        command, env={**os.environ, "BATCHFLOW_EXECUTOR": "processes"}, capture_output=True, text=True, check=True
    )
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "out")["n"].to_pylist() == list(range(1000))
    assert "of them done before" in done.stdout


def _chunks(folder):
    try:
        return (folder / ".out_batchflow/ledger.log").read_text().count('{"chunk"')
    except OSError:
        return 0


def test_a_client_on_no_node_gets_the_same(tmp_path):
    """Connected by a ``ray://`` address, so that nothing of the driver's machine is taken for a node's."""
    (tmp_path / "a.txt").write_text("".join(f"{n}\n" for n in range(20_000)))
    with head() as started:
        status, out, err = script(
            """
            import sys
            import batchflow as bf
            from batchflow.cli import main

            source = bf.read_text(sys.argv[2] + "/a.txt")
            with bf.Ray(sys.argv[1]) as ray:
                print(bf.map_records(int, source, executor=ray).values == list(range(20_000)))
                written = bf.map_records(lambda line: {"n": int(line)}, source, executor=ray, into=sys.argv[2] + "/out/")
                print(written.table["n"].to_pylist() == list(range(20_000)), main(["verify", sys.argv[2] + "/out/"]))
                first = bf.map_batches(lambda table: table, source, executor=ray, combine=lambda table: table.slice(0, 1))
                print(first.table.to_pylist())
                flow = bf.Flow("small")
                size = flow.step(len, "abc")
                print(flow.run(executor=ray)[size].value)
            """,
            started.client,
            str(tmp_path),
        )
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "True"
    assert lines[1].endswith("each accounted for once")
    assert lines[2:] == ["True 0", "[{'value': '0'}]", "3"]
