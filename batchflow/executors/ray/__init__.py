"""Plain remote tasks on a local Ray or a cluster."""

from batchflow.executors.ray.executor import Ray

__all__ = ["Ray"]
