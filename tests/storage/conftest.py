"""Buckets: one of its own for each test, on the S3 server of the session."""

import itertools

import pytest
import s3

_numbers = itertools.count()


class Bucket:
    """A bucket, looked at behind batchflow's back."""

    def __init__(self, client, name):
        self.client = client
        self.name = name
        self.uri = f"s3://{name}"

    def names(self, prefix=""):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def get(self, key):
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def put(self, key, data):
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def delete(self, key):
        self.client.delete_object(Bucket=self.name, Key=key)

    def etag(self, key):
        return self.client.head_object(Bucket=self.name, Key=key)["ETag"].strip('"')

    def parts(self, folder="out"):
        return [key for key in self.names(f"{folder}/part-") if not key.endswith("/")]


@pytest.fixture(scope="session")
def client():
    """Return a client of the S3 server, which is started now."""
    import boto3

    s3.server.start()
    yield boto3.client("s3")
    s3.server.stop()


@pytest.fixture
def server(client):
    """Return the server, which refuses nothing again afterwards."""
    s3.server.asked.clear()
    yield s3.server
    s3.server.refuses = lambda *_: False


@pytest.fixture
def bucket(client):
    """Return a new bucket."""
    name = f"bucket-{next(_numbers)}"
    client.create_bucket(Bucket=name)
    return Bucket(client, name)
