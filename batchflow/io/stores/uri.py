"""URIs: what they may hold, and the file system of `pyarrow.fs` behind them."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_URI = r"(?i)[a-z][a-z0-9+.-]+://"  # compiled by who needs it first: each process that starts loads this
_SECRET_OPTION = r"(?i)[?&][^=&/]*(key|secret|token|password|credential|signature)[^=&/]*="
_OBJECTS = frozenset({"s3", "gs", "gcs", "abfs", "mock"})
"""Schemes whose host is the first part of a path."""


def is_uri(path: str) -> bool:
    """Whether a path is a URI, to be reached through `pyarrow.fs`."""
    return re.match(_URI, path) is not None


def plain_path(path: str) -> str:
    """Return a path with ``~`` expanded, a ``file://`` URI as the path that it is, any other URI as it is."""
    if path[:6].lower() == "file:/":
        from urllib.parse import unquote  # takes 5 ms

        named = path[7:].removeprefix("localhost") if path[6:7] == "/" else path[5:]  # RFC 8089: both forms
        return unquote(named, errors="surrogateescape")
    return path if is_uri(path) else os.path.expanduser(path)


def why_refused(uri: str) -> str | None:
    """Return why a URI is not taken: it holds credentials, which would get into logs and ledgers; never which."""
    scheme, _, rest = uri.partition("://")
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if not (at and (":" in user or scheme in _OBJECTS)) and not re.search(_SECRET_OPTION, rest):
        return None
    return (
        f"a URI ({scheme}://...) must not hold credentials, which would stand in plans and logs: "
        "leave them to the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, ...), a profile or the machine's role"
    )


class Uri(NamedTuple):
    """A place behind a URI, as `pathlib.Path` is one on a disk; its names are what they are, nothing is quoted."""

    text: str
    """Without a slash at the end."""

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> Uri:
        return Uri(f"{self.text}/{name}")

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self.text.rpartition("/")[2]

    @property
    def parent(self) -> Uri:
        """The place that holds this one."""
        return Uri(self.text.rpartition("/")[0])

    def with_name(self, name: str) -> Uri:
        """Return the place beside this one that has a name."""
        return self.parent / name


def filesystem(uri: str) -> tuple[FileSystem, str]:
    """Return the `pyarrow.fs` file system of a URI, kept per process, and the path inside it."""
    scheme, _, rest = uri.partition("://")
    host, _, _ = rest.partition("/")
    # Objects that fit into one part go up in one request and not three.
    system = _system(f"{scheme}://{host}{'?allow_delayed_open=true' if scheme == 's3' else ''}", _endpoint())
    return system, rest if scheme in _OBJECTS else rest[len(host) :]


def _endpoint() -> str | None:
    """Return what the AWS SDK is told of its server, which a program may set late."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@lru_cache(maxsize=64)
def _system(root: str, endpoint: str | None = None) -> FileSystem:
    del endpoint  # another one is another file system; Arrow takes it from the environment
    from pyarrow.fs import FileSystem

    return FileSystem.from_uri(root)[0]
