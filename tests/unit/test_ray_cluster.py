"""What fits on the nodes of a cluster, and how long a node is waited for; the nodes are made up."""

import sys

import pytest

import batchflow as bf
from batchflow.errors import ResourceError
from batchflow.executors.ray import cluster
from batchflow.executors.ray.cluster import Cluster, ClusterNode


class Nodes(Cluster):
    """A cluster of nodes that a test gives and takes, by a clock that a test moves."""

    starts_its_own = False

    def __init__(self, *nodes, patience=None):
        super().__init__("auto", patience, {})
        self.nodes = list(nodes)
        self.asked = 0

    def _nodes(self):
        self.asked += 1
        return self.nodes

    def _call_for(self, need):
        self.called = dict(need)


def node(cpus, **more):
    return ClusterNode("", {"CPU": cpus, "memory": 8e9, **more}, {})


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass where something is waited for, and when somebody says so."""
    now = [0.0]
    monkeypatch.setattr(cluster.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(cluster.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def slots(cluster, limits=None, **per_task):
    return cluster.slots(bf.Resources(**(limits or {})), bf.Resources(**per_task))


def test_each_node_counts_for_itself():
    nodes = Nodes(*(node(4) for _ in range(4)))
    assert [slots(nodes, cpus=cpus) for cpus in (1, 2, 3, 4)] == [16, 8, 4, 4]
    assert [slots(nodes, {"cpus": most}) for most in (1, 5, 100)] == [1, 5, 16]
    assert slots(nodes, cpus=0) == 64
    with pytest.raises(
        ResourceError,
        match="one task asks for 8 cpus, which no node of the Ray cluster has; there is: 4 with 4 cpus",
    ):
        slots(nodes, cpus=8)


def test_what_fitted_before_says_nothing_of_another_request():
    nodes = Nodes(node(8))
    assert slots(nodes) == 8
    for more in ({"gpus": 1}, {"cpus": 16}, {"accelerator": "A100"}):
        with pytest.raises(ResourceError):
            slots(nodes, **more)


def test_nodes_that_all_go_are_waited_for_a_minute_within_the_caps_of_the_job(clock):
    nodes = Nodes(node(8))
    assert slots(nodes, {"cpus": 2}) == 2
    nodes.nodes = []
    assert slots(nodes, {"cpus": 2}) == 2
    clock[0] = 59
    assert slots(nodes, {"cpus": 2}) == 2
    nodes.nodes = [node(1)]
    assert slots(nodes, {"cpus": 2}) == 1
    nodes.nodes = []
    clock[0] = 100
    assert slots(nodes, {"cpus": 2}) == 1
    clock[0] = 161
    with pytest.raises(ResourceError, match="there is: no node"):
        slots(nodes, {"cpus": 2})


def test_another_request_that_fits_does_not_begin_the_minute_anew(clock):
    nodes = Nodes(node(8), node(1, GPU=1))
    assert slots(nodes, gpus=1) == 1
    nodes.nodes = [node(8)]
    assert slots(nodes, gpus=1) == 1
    clock[0] = 61
    assert slots(nodes) == 8
    with pytest.raises(ResourceError):
        slots(nodes, gpus=1)


def test_a_node_may_be_waited_for_long(clock):
    """Longer than Python could call itself."""
    nodes = Nodes(patience=2000)
    with pytest.raises(ResourceError, match="waited 2000 s"):
        slots(nodes)
    assert nodes.asked > sys.getrecursionlimit()
    assert nodes.called == {"CPU": 1}
