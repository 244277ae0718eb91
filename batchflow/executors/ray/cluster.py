"""Connection to the Ray cluster of an executor, and the resources of its nodes."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from batchflow.core.resources import WAITING, Resources, available_cpus, count_slots, format_bytes, total_memory
from batchflow.errors import ExecutorError, ResourceError
from batchflow.executors.processes.launcher import has_rays_parent, is_ray_running
from batchflow.executors.ray.logs import RayLogs

SETTINGS = {
    "RAY_LOG_TO_DRIVER": "0",
    "RAY_LOG_TO_DRIVER_EVENT_LEVEL": "ERROR",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # the rows of a task that died, which nobody asks for
    "RAY_USAGE_STATS_ENABLED": "0",
    # What became of a task is told in the error table, and what became of a node by its tasks.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed|Raylet is terminated|has been marked dead"
    "|worker processes have been started",
    "RAY_verbose_spill_logs": "0",
    "RAY_enable_output_error_log_if_still_retry": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning on machines without a GPU
    "RAY_worker_niceness": "0",  # by default workers run at nice 15, behind everything else on the machine
    # A driver gives a worker back after this time even where more waits for it, and asks for one anew: with
    # several nodes that takes 90 ms, since what they have free is told each 100 ms. By default it is 0.5 s. No
    # longer than this, for so long short chunks go on to a node that drains, which has 30 s and more.
    "RAY_worker_lease_timeout_milliseconds": "5000",
}
"""Environment variables set before Ray is started or joined, unless the user set them."""

_DEBUGGER = "PYTHONBREAKPOINT"
_HASH_SEED = "PYTHONHASHSEED"
_LONGEST = 40
"""Maximum length of the folder: its sockets have names of 65 more characters, and the kernel allows 107."""
PATIENCE = 60.0
"""Minimum seconds that a running job waits for a node after all suitable ones were lost."""
_ATTEMPTS = 3
_POLL_SECONDS = 1.0
_HINT = 0.001
"""Amount requested of an accelerator type, which is a resource of a node in Ray; the same as Ray's own."""

_log = logging.getLogger("batchflow")


class ClusterNode(NamedTuple):
    """Live node."""

    id: str
    has: Mapping[str, float]
    """Amounts of its resources, by Ray's names."""
    labels: Mapping[str, str]

    def fits(self, need: Mapping[str, float]) -> int:
        """Return how many tasks of a need have room side by side; of those that need no core, a few for each."""
        asked = {name: amount for name, amount in need.items() if amount}
        if not asked.keys() - {"memory"}:
            asked["CPU"] = 1 / WAITING
        return min(math.floor(self.has.get(name, 0) / amount + 1e-9) for name, amount in asked.items())


class Cluster:
    """Ray cluster: started by batchflow, joined, or of the user's program.

    Parameters
    ----------
    address
        As for `batchflow.Ray`.
    patience
        Seconds to wait for a node that can run a task, where none can; ``None``: that is refused at once.
    labels
        What a node must have to be used: values by the names of labels.
    """

    def __init__(self, address: str | None, patience: float | None, labels: Mapping[str, str]) -> None:
        self._address = address
        self._patience = patience
        self._labels = labels
        self._joined = False
        self._debugger: str | None = None
        """Environment variable for `breakpoint` before Ray set its own, which needs a running Ray."""
        self._temporary: str | None = None
        self._messages = RayLogs()
        self._fitted: dict[str, int] = {}
        """Number of tasks that fitted at the last success, by request."""
        self._unfit: dict[str, float] = {}
        """`time.monotonic` since when a request has not fitted."""
        self._called_for = False
        """Whether an autoscaler was asked for a node."""
        self.environment: dict[str, str] = {}
        """Environment of this process when it connected."""
        self.here: str = ""
        """Identifier of this process's node; empty if it is on no node of the cluster."""

    # --- reached and left ----------------------------------------------------------------------------

    @property
    def starts_its_own(self) -> bool:
        """Whether a local Ray will be started: none is running, and none was named."""
        return not (is_ray_running() or self._address or os.environ.get("RAY_ADDRESS"))

    def connect(self) -> Any:
        """Connect, and return the module `ray`.

        Raises
        ------
        ExecutorError
            If the cluster cannot be reached or does not go with this process, with what to do.
        """
        if has_rays_parent():
            message = (
                "this process was forked from one that uses Ray, and Ray does not work in a fork: "
                'use multiprocessing.get_context("spawn") for it, or executor="processes" in it'
            )
            raise ExecutorError(message)
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)  # some are read when ray is imported
        import ray

        if not ray.is_initialized():
            self._join(ray)
        elif not self._joined:
            self._check_address(ray)
        if not self.environment:
            self.environment = dict(os.environ)
        if not self.here and not is_client(ray):
            self.here = ray.get_runtime_context().get_node_id()
        return ray

    def _join(self, ray: Any) -> None:
        address = self._address or os.environ.get("RAY_ADDRESS")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "address": address}
        if address is None:
            options |= {"address": "local", "include_dashboard": False, "_temp_dir": self._folder()}
            self._messages = RayLogs()
            self._messages.open()
            options["logging_level"] = "INFO" if self._messages.path else "ERROR"
        self._debugger = os.environ.get(_DEBUGGER)
        seed = os.environ.get(_HASH_SEED)
        if address is None and seed is None:  # all workers of a job have to agree on hash(text)
            _put(_HASH_SEED, str(int.from_bytes(os.urandom(4), "big")))
        try:
            _init(ray, options)
        except Exception as error:
            raise ExecutorError(_unreachable(address, error)) from error
        finally:
            _put(_HASH_SEED, seed)
        self._joined = True
        self.here = ""

    def _check_address(self, ray: Any) -> None:
        """Refuse a cluster other than the one that this process is connected to."""
        if self._address in (None, "auto", "local") or self._address.startswith("ray://"):
            return
        present = ray.get_runtime_context().gcs_address
        if _resolved(self._address) != _resolved(present):
            message = (
                f"this process is connected to the Ray at {present}, so Ray(address={self._address!r}) cannot be "
                "used: call ray.shutdown() before, or leave the address out"
            )
            raise ExecutorError(message)

    def _folder(self) -> str | None:
        """Return a folder for the files of a local Ray, which it never removes; ``None``: its default one."""
        import tempfile

        self._temporary = tempfile.mkdtemp(prefix="bf-ray-")
        return self._temporary if len(self._temporary) <= _LONGEST else None

    @property
    def logs(self) -> str:
        """Log file or folder of Ray, on the node of this process.

        Of a Ray of our own it is a file, whole once that has stopped.
        """
        if self._temporary is not None:
            return str(self._messages.path or "")
        return str(_logs()) if self.here else ""  # none of a node that is another machine

    def close(self) -> None:
        """Leave the cluster, or stop it if batchflow started it."""
        if has_rays_parent():
            return  # it belongs to the parent
        self._fitted.clear()
        self._unfit.clear()
        logs = None
        if self._joined:
            import ray

            logs = _logs() if self._temporary is not None else None
            ray.shutdown()
            _put(_DEBUGGER, self._debugger)
            self._joined = False
        self.here = ""
        if self._temporary is not None:
            import shutil

            self._messages.close(logs or Path(self._temporary))
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    # --- what it has ---------------------------------------------------------------------------------

    def resources(self) -> dict[str, float]:
        """Return the total resources of all nodes."""
        total: Any = Counter()  # of fractions too
        for node in self._nodes():
            total.update(node.has)
        return dict(total)

    def node_ids(self) -> list[str]:
        """Return the nodes that tasks may run on."""
        return [node.id for node in self._nodes()]

    def _nodes(self) -> list[ClusterNode]:
        nodes = [
            ClusterNode(node["NodeID"], node["Resources"], node.get("Labels") or {})
            for node in self.connect().nodes()
            if node["Alive"]
        ]
        return [node for node in nodes if self._labels.items() <= node.labels.items()]

    def slots(self, limits: Resources, per_task: Resources) -> int:
        """Return how many tasks run side by side, within the limits of their job.

        Raises
        ------
        ResourceError
            If no node can run one, and none that can came in time.
        """
        if self.starts_its_own and not per_task.needs_ray:
            return count_slots(limits, per_task, available_cpus(), total_memory())  # a plan starts nothing
        asked = repr((limits, per_task))
        need = request_of(per_task)
        while not (slots := self._fitting(limits, per_task, need)):
            before = self._fitted.get(asked, 0)
            self._wait(asked, need, begun=before > 0)
            if before:
                return before  # tasks wait at Ray meanwhile
            time.sleep(_POLL_SECONDS)
        self._unfit.pop(asked, None)
        self._call_off()
        self._fitted[asked] = slots
        return slots

    def _fitting(self, limits: Resources, per_task: Resources, need: Mapping[str, float]) -> int:
        """Return how many tasks run concurrently at present, 0 if no node can run one."""
        fitting = sum(node.fits(need) for node in self._nodes())
        if not fitting:
            return 0
        have = self.resources()
        within = count_slots(limits, per_task, have.get("CPU", 0), int(have.get("memory", 0)))
        for most, amount in [(limits.gpus, per_task.gpus), *_shares(limits, per_task)]:
            if most and amount:
                within = min(within, int(most / amount))
        return max(1, min(within, fitting))

    def _wait(self, asked: str, need: Mapping[str, float], *, begun: bool) -> None:
        """Wait a moment for a suitable node; raises `ResourceError` after the timeout.

        Parameters
        ----------
        begun
            Whether some could, which went in the middle of a job.
        """
        patience = max(PATIENCE, self._patience or 0) if begun else self._patience
        now = time.monotonic()
        if asked not in self._unfit:
            self._unfit[asked] = now
            if patience:
                _log.warning("no node of the Ray cluster can run a task now: waiting for one with %s", _told(need))
                self._call_for(need)
        if now - self._unfit[asked] >= (patience or 0):
            del self._unfit[asked]
            self._call_off()
            raise ResourceError(_refused(need, self._nodes(), self._labels, patience))

    def _call_for(self, need: Mapping[str, float]) -> None:
        """Request a node from an autoscaler, which keeps it until the request is withdrawn."""
        if self.here:
            from ray.autoscaler.sdk import request_resources

            request_resources(bundles=[dict(need)])
            self._called_for = True

    def _call_off(self) -> None:
        if self._called_for:
            from ray.autoscaler.sdk import request_resources

            request_resources(bundles=[])
            self._called_for = False


def _init(ray: Any, options: Mapping[str, Any]) -> None:
    """Connect with retries, since the server of a Ray client sometimes does not start."""
    for _ in range(_ATTEMPTS - 1):
        with suppress(ConnectionAbortedError):
            ray.init(**options)
            return
    ray.init(**options)


def _put(name: str, value: str | None) -> None:
    """Set or unset an environment variable."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _logs() -> Path:
    """Return the log folder of the Ray on this node."""
    import ray

    node: Any = ray._private.worker._global_node  # nothing public tells
    return Path(node.get_session_dir_path(), "logs")


def _resolved(address: str) -> tuple[str, str]:
    """Return host and port of an address, with the host as an IP address if it resolves."""
    host, _, port = address.rpartition(":")
    with suppress(OSError):
        host = socket.gethostbyname(host)
    return host, port


def is_client(ray: Any) -> bool:
    """Whether this process is on no node, but connected by a ``ray://`` address."""
    return bool(ray.util.client.ray.is_connected())


def request_of(per_task: Resources) -> dict[str, float]:
    """Return the resource request of one task, by Ray's names."""
    need = {
        "CPU": 1 if per_task.cpus is None else per_task.cpus,
        "GPU": per_task.gpus,
        "memory": per_task.nbytes or 0,
        **per_task.custom,
    }
    if per_task.accelerator:
        need[f"accelerator_type:{per_task.accelerator}"] = _HINT
    return {name: amount for name, amount in need.items() if amount}


def _shares(limits: Resources, per_task: Resources) -> Iterable[tuple[float, float]]:
    return ((limits.custom.get(name, 0), amount) for name, amount in per_task.custom.items())


def _told(need: Mapping[str, float]) -> str:
    """Describe amounts of resources."""
    words = {"CPU": "cpus", "GPU": "gpus"}
    told = []
    for name, amount in need.items():
        if name.startswith("accelerator_type:"):
            told.append(f"a GPU of type {name.partition(':')[2]}")
        else:
            told.append(f"{format_bytes(amount) if name == 'memory' else f'{amount:g}'} {words.get(name, name)}")
    return " and ".join(told) or "any core"


def _refused(
    need: Mapping[str, float], nodes: list[ClusterNode], labels: Mapping[str, str], patience: float | None
) -> str:
    """Return the reason that no node can run a task, with the available resources."""
    shown = ("CPU", "GPU", "memory", *(name for name in need if name not in ("CPU", "GPU", "memory")))
    kinds = Counter(_told({name: node.has[name] for name in shown if node.has.get(name)}) for node in nodes)
    there = "; ".join(f"{count:,} with {kind}" for kind, count in kinds.most_common(5)) or "no node"
    where = f" labelled {', '.join(f'{name}={value}' for name, value in labels.items())}" if labels else ""
    waited = "wait_for_nodes= waits for others" if patience is None else f"waited {patience:g} s for another"
    return (
        f"one task asks for {_told(need)}, which no node of the Ray cluster{where} has; "
        f"there is: {there} (lower per_task=; {waited})"
    )


def _unreachable(address: str | None, error: Exception) -> str:
    """Return the reason that a cluster cannot be used, with a fix."""
    text = " ".join(str(error).split())
    if address is None:
        return f"cannot start a local Ray: {text}"
    if "ersion mismatch" in text or ("version" in text.lower() and "client" in text.lower()):
        return f"the Ray at {address} does not go with this process: install the same versions. {text}"
    mode = os.environ.get("RAY_AUTH_MODE", "unset")
    return (
        f"cannot reach the Ray at {address}: {text} (is it running there? And are its tokens known here: "
        f"RAY_AUTH_MODE is {mode} and must be the same on both sides)"
    )
