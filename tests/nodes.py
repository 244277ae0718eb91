"""Real Ray clusters on this machine: nodes that come and go, and nodes that do not see a folder."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import psutil

from batchflow.executors.ray.cluster import SETTINGS

for _name, _value in {"RAY_AUTH_MODE": "disabled", **SETTINGS}.items():
    os.environ.setdefault(_name, _value)

_STARTS = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
_SOON = {"health_check_period_ms": 200, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}
"""So that a node which is gone is known to be before long."""


class Nodes:
    """A cluster with this process as its driver; its head has no core, so that all tasks run on other nodes."""

    def __init__(self, head_cpus=0):
        from ray.cluster_utils import Cluster

        head = {"num_cpus": head_cpus, "include_dashboard": False, "object_store_memory": 200_000_000}
        self._cluster = Cluster(initialize_head=True, head_node_args={**head, "_system_config": _SOON})
        self._blind = []

    @property
    def address(self):
        return self._cluster.address

    def add(self, cpus=2, **more):
        """Add a node; returns once it is there."""
        for last in (False, True):  # Ray's own start of a node sometimes times out
            try:
                return self._cluster.add_node(num_cpus=cpus, object_store_memory=150_000_000, **more)
            except Exception:
                if last:
                    raise
        return None

    def add_blind(self, folder, cpus=2):
        """Begin to add a node for which a folder is empty, as on a machine with another disk."""
        start = f"start --address={self.address} --num-cpus={cpus} --block --object-store-memory=150000000"
        script = f"mount -t tmpfs none '{folder}' && exec '{sys.executable}' -c '{_STARTS}' {start}"
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
        self._blind.append(
            subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/"
            )
        )

    def kill(self, node):
        """End a node at once, with all that runs on it; returns once the cluster knows."""
        self._cluster.remove_node(node, allow_graceful=False)
        wait_until(lambda: node.node_id not in self.alive())

    def alive(self):
        """Return the nodes that are not known to be gone."""
        from ray._raylet import GcsClient

        found = GcsClient(address=self.address).get_all_node_info()
        return {key.hex() for key, node in found.items() if node.state == 0}

    def close(self):
        for process in self._blind:
            own = psutil.Process(process.pid)
            for one in [*own.children(recursive=True), own]:
                with suppress(psutil.NoSuchProcess):
                    one.send_signal(signal.SIGKILL)
            process.wait()
        self._cluster.shutdown()


def wait_until(condition, seconds=60):
    """Return once a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@contextmanager
def nodes(**options):
    """Give a cluster and shut it down."""
    made = Nodes(**options)
    try:
        yield made
    finally:
        made.close()


class Gate:
    """What functions on nodes tell of themselves, and wait for, by files that all nodes see."""

    def __init__(self, folder):
        self.folder = str(folder)

    def enter(self, name):
        """Tell that a function is there, on which node, and wait until the gate opens."""
        import ray

        with open(f"{self.folder}/{name}.{os.getpid()}.{ray.get_runtime_context().get_node_id()}", "w"):
            pass
        wait_until(lambda: os.path.exists(f"{self.folder}/open"), 100)

    def entered(self):
        """Return (name, process, node) of those that came."""
        return [tuple(name.split(".")) for name in os.listdir(self.folder) if name != "open"]

    def open(self):
        with open(f"{self.folder}/open", "w"):
            pass
