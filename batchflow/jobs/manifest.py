"""Manifest of a job: what its output depends on, as it is stored in ``plan.json``."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchflow.checkpoint.manifest import comparable_digest, input_entry, options_of
from batchflow.core.chunks import InputFile
from batchflow.core.fingerprint import examine
from batchflow.plan import JobSpec

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def manifest(
    spec: JobSpec, source: Mapping[str, Any], inputs: Sequence[InputFile], format_name: str
) -> dict[str, Any]:
    """Return a job as plain values; no function, no value of ``args=``, which may be a secret.

    Parameters
    ----------
    source
        Kind and options of the source.
    """
    functions = examine(spec.fn, spec.setup)
    return {
        "batchflow": 2,
        "function": _place(spec.fn),
        "fingerprint": comparable_digest(functions),
        "packages": functions.packages,
        "python": _PYTHON,
        "version": spec.version,
        "setup": spec.setup and _place(spec.setup),
        "args": {name: comparable_digest(examine(value)) for name, value in sorted(spec.args.items())},
        "per": spec.per,
        "source": dict(source),
        "format": format_name,
        "folder": str(Path.cwd()),
        "options": options_of(spec),
        "inputs": [input_entry(item) for item in inputs],
    }


def _place(fn: Callable[..., Any]) -> dict[str, str | None]:
    """Return the location from which a function can be loaded: module, name and file."""
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    try:
        file = inspect.getsourcefile(inspect.unwrap(fn))
    except (TypeError, ValueError, OSError):
        file = None
    known = file and os.path.isfile(file)
    return {
        "module": getattr(fn, "__module__", None),
        "name": name,
        "file": os.path.abspath(file) if file and known else None,
    }
