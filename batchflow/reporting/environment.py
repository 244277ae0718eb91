"""Environment of a run: Python, the machine, versions of packages that are loaded already."""

from __future__ import annotations

import os
import sys
from typing import Any

_VERSIONS = ("pyarrow", "ray", "pandas", "polars", "numpy", "torch")
"""Packages whose versions are recorded if they are loaded."""


def environment() -> dict[str, Any]:
    """Return process and machine information as plain values."""
    from batchflow.core.package import __version__
    from batchflow.core.resources import available_cpus, total_memory

    system = os.uname()
    return {
        "batchflow": __version__,
        "python": f"{sys.implementation.name} {sys.version.split()[0]}",
        "platform": f"{system.sysname} {system.release} {system.machine}",
        "host": system.nodename,
        "cpus": available_cpus(),
        "memory": total_memory(),
        "versions": {
            name: str(getattr(sys.modules[name], "__version__", "?")) for name in _VERSIONS if name in sys.modules
        },
    }
