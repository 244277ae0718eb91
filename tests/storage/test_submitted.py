"""A job of a cluster that reads from an object store and writes to it; its credentials come by ``--env``."""

import io

import pyarrow.parquet as pq
import pytest
import s3
from head import Commands, head

pytestmark = pytest.mark.cluster


def test_a_submitted_job_from_store_to_store(bucket, tmp_path):
    (tmp_path / "steps.py").write_text('def double(row):\n    return {"n": 2 * row["n"]}\n')
    bucket.put("in/a.csv", b"n\n1\n2\n")
    bucket.put("in/b.csv", b"n\n3\n4\n")
    with head(AWS_ACCESS_KEY_ID="unknown", AWS_SECRET_ACCESS_KEY="unknown") as started:
        batchflow = Commands(tmp_path, started.jobs)
        arguments = (
            "submit",
            "run",
            "steps.py:double",
            f"{bucket.uri}/in/*.csv",
            "--into",
            f"{bucket.uri}/out/",
            "--env",
            "AWS_ACCESS_KEY_ID",
            "--env",
            "AWS_SECRET_ACCESS_KEY",
        )
        out, _ = batchflow(*arguments)
        again, _ = batchflow(*arguments)
    rows = [row for part in bucket.parts() for row in pq.read_table(io.BytesIO(bucket.get(part))).to_pylist()]
    assert "4 records in, 4 rows out, 0 failed" in out
    assert "nothing to do" in again
    assert rows == [{"n": 2}, {"n": 4}, {"n": 6}, {"n": 8}]
    assert not any(s3.SECRET.encode() in bucket.get(key) for key in bucket.names())
