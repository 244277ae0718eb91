"""A cluster whose nodes do not all see the driver's disk gives what one machine gives."""

import os
import tempfile
from pathlib import Path

import pytest
from nodes import nodes
from parity.test_parity import (  # noqa: F401 - the whole matrix, on other nodes
    folder,
    test_batches,
    test_combine,
    test_output_on_disk,
    test_records,
    test_streams,
)

import batchflow as bf

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", params=["blind", "mixed"])
def remote(request, folder):  # noqa: F811
    """Nodes of which none sees the folder, or only one of two."""
    with nodes() as cluster:
        cluster.add_blind(folder)
        if request.param == "mixed":
            cluster.add()
        with bf.Ray(cluster.address, wait_for_nodes=60) as ray:
            yield ray


@pytest.fixture
def tmp_path(folder):  # noqa: F811
    """A folder that only the driver sees, in the place of one that all do."""
    return Path(tempfile.mkdtemp(dir=folder))


def test_the_nodes_do_not_see_the_folder(folder, remote, request):  # noqa: F811
    """So that the tests above show something; a file is opened by its path too, as a copy."""

    def look(file):
        return [file.uri, os.path.exists(file.uri), open(file.path, "rb").read() == file.read_bytes(), file.path]

    result = bf.map_records(look, bf.files(str(folder / "files/*")), executor=remote, chunk=1)
    blind = [row for row in result.values if not row[1]]
    assert len(result.values) == 12
    assert all(same for _, _, same, _ in result.values)
    assert all(path.startswith(tempfile.gettempdir()) and path != uri for uri, _, _, path in blind)
    assert len(blind) == 12 or request.node.callspec.params["remote"] == "mixed"
    assert not any(os.path.exists(path) for _, _, _, path in blind)  # copies go with their task


def test_a_file_that_changes_under_a_run_is_read_as_the_driver_sees_it(folder, remote, tmp_path):  # noqa: F811
    """Its time tells a worker that it is another one; what the driver cannot read either is an error row."""
    path = tmp_path / "gone.txt"
    path.write_text("1\n2\n")

    source = bf.read_text([str(folder / "a.txt"), str(path)])
    job = bf.Job(str, source, executor=remote, chunk=1, listeners=[lambda _: path.unlink(missing_ok=True)])
    result = job.run()
    assert result.values == [str(n) for n in range(60)]
    (row,) = result.errors.to_pylist()
    assert (row["source"], row["phase"], row["error_type"]) == (str(path), "read", "FileNotFoundError")
