"""No job starts itself again: not while user code is imported, not inside of too many others."""

import os
import subprocess
import sys
import textwrap

import pytest

GUARD = """
    import os
    depth = int(os.environ.get("TEST_DEPTH", "0"))
    if depth >= 3:
        raise SystemExit("guard of the test")
    os.environ["TEST_DEPTH"] = str(depth + 1)
"""
"""Ends a chain of processes that should not exist."""
JOB = f"""{GUARD}
    import batchflow as bf

    def size(x):
        return len(str(x))

    print(bf.map_records(size, bf.records([1, 22]), progress=False, executor=os.environ["EXECUTOR"]).values)
"""
COMMAND = [sys.executable, "-c", "from batchflow.cli import main; raise SystemExit(main())"]
REFUSED = "starts a job while it is imported"


@pytest.fixture
def run(tmp_path):
    """Run Python with arguments in a folder of modules."""

    def run(modules, *arguments, executor="processes", command=(sys.executable,)):
        for name, code in modules.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(textwrap.dedent(code))
        return subprocess.run(
            [*command, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "EXECUTOR": executor},
        )

    return run


def test_job_at_top_of_imported_module_is_refused_in_workers(run):
    done = run({"jobs.py": JOB}, "-c", "import jobs")
    assert REFUSED in done.stderr
    assert 'if __name__ == "__main__":' in done.stderr
    assert "jobs.py:13" in done.stderr
    assert "guard of the test" not in done.stderr


def test_job_at_top_of_imported_module_runs_on_serial(run):
    assert run({"jobs.py": JOB}, "-c", "import jobs", executor="serial").stdout == "[1, 2]\n"


@pytest.mark.parametrize("arguments", [["script.py"], ["-m", "script"]])
def test_job_of_script_without_main_guard_runs(run, arguments):
    done = run({"script.py": JOB}, *arguments)
    assert (done.stdout, done.stderr) == ("[1, 2]\n", "")


@pytest.mark.parametrize("executor", ["serial", "processes"])
@pytest.mark.parametrize("name", ["jobs.py:size", "jobs:size"])
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_command_line_refuses_file_that_starts_a_job(run, executor, name, verb):
    done = run({"jobs.py": JOB, "in.txt": "a\n"}, verb, name, "in.txt", executor=executor, command=COMMAND)
    assert done.returncode == 2
    assert REFUSED in done.stderr
    assert done.stdout == ""


def test_flow_at_top_of_module_is_refused_while_it_is_imported(run):
    code = f"""{GUARD}
    import batchflow as bf

    def size(x):
        return len(str(x))

    flow = bf.Flow("f")
    flow.step(size, 22)
    print(flow.run(progress=False, executor=os.environ["EXECUTOR"]).steps[0].state)
    """
    done = run({"flows.py": code}, "flow", "flows.py:flow", command=COMMAND)
    assert done.returncode == 2
    assert REFUSED in done.stderr
    assert "guard of the test" not in run({"flows.py": code}, "-c", "import flows").stderr


def test_job_in_thread_of_imported_module_is_refused(run):
    code = (
        JOB.replace("    print(", "    work = lambda: print(")
        + "\n    import threading\n    t = threading.Thread(target=work)\n    t.start()\n    t.join()\n"
    )
    done = run({"jobs.py": code, "in.txt": "a\n"}, "run", "jobs.py:size", "in.txt", command=COMMAND)
    assert REFUSED in done.stderr


def test_spawned_process_of_multiprocessing_refuses_job_of_main(run):
    code = (
        JOB
        + "\n    import multiprocessing as mp\n    if __name__ == '__main__':\n        child = mp.get_context('spawn').Process(target=print)\n        child.start()\n        child.join()\n"
    )
    done = run({"script.py": code}, "script.py")
    assert done.stdout == "[1, 2]\n"
    assert REFUSED in done.stderr


def test_job_inside_a_function_runs_and_nesting_is_bounded(run):
    code = """
    import os
    import batchflow as bf

    def nested(depth):
        if depth > 6:
            raise SystemExit("guard of the test")
        inner = bf.map_records(nested, bf.records([depth + 1]), progress=False, executor="processes")
        return [depth, inner.values, inner.errors["message"].to_pylist()]

    if __name__ == "__main__":
        print(bf.map_records(nested, bf.records([1]), progress=False, executor="processes").values)
    """
    done = run({"script.py": code}, "script.py")
    assert done.stdout.startswith("[[1, [[2, [], ['3 jobs are nested in each other"), done.stdout
    assert "guard" not in done.stdout


def test_job_that_starts_with_each_python_is_refused_in_workers(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = run({"sitecustomize.py": JOB}, "-c", "print('main')")
    assert done.stdout == "main\n"
    assert REFUSED in done.stderr
    assert "guard of the test" not in done.stderr
