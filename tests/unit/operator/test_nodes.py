"""Which nodes get a resource agent: the DaemonSet controller's rules."""

from __future__ import annotations

from typing import Any

import pytest

from support.operatorkit import make_node, make_pod, make_snapshot, make_spec
from swarm_agents.config import Role
from swarm_operator.actions import CreatePod, DrainPod
from swarm_operator.nodes import matching_nodes
from swarm_operator.plan import plan
from swarm_operator.revision import revision_of

GPU = ("gpu", "yes", "NoSchedule")


@pytest.mark.parametrize(
    ("spec", "node", "matches"),
    [
        ({}, {}, True),
        ({"scheduling": {"nodeSelector": {"a": "1"}}}, {"labels": {"a": "1"}}, True),
        ({"scheduling": {"nodeSelector": {"a": "1"}}}, {"labels": {"a": "2"}}, False),
        ({"resource": {"nodeSelector": {"a": "1"}}}, {"labels": {}}, False),
        (
            {"scheduling": {"nodeSelector": {"a": "1"}}, "resource": {"nodeSelector": {"a": "2"}}},
            {"labels": {"a": "2"}},
            False,
        ),
        ({}, {"taints": [GPU]}, False),
        ({}, {"taints": [("gpu", "yes", "NoExecute")]}, False),
        ({}, {"taints": [("gpu", "yes", "PreferNoSchedule")]}, True),
        ({}, {"taints": [("node.kubernetes.io/not-ready", "", "NoExecute")]}, True),
        ({}, {"taints": [("node-role.kubernetes.io/control-plane", "", "NoSchedule")]}, False),
        ({"scheduling": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}}, {"taints": [GPU]}, True),
        ({"scheduling": {"tolerations": [{"key": "gpu", "value": "yes"}]}}, {"taints": [GPU]}, True),
        ({"scheduling": {"tolerations": [{"key": "gpu", "value": "no"}]}}, {"taints": [GPU]}, False),
        ({"scheduling": {"tolerations": [{"operator": "Exists"}]}}, {"taints": [GPU]}, True),
        (
            {"scheduling": {"tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}]}},
            {"taints": [GPU]},
            False,
        ),
    ],
)
def test_selector_and_taints_decide(spec: dict[str, Any], node: dict[str, Any], matches: bool) -> None:
    assert bool(matching_nodes(make_spec(**spec), [make_node("n", **node)])) is matches


def resource_actions(nodes: list[Any], pods: list[Any]) -> dict[str, list[str]]:
    planned = plan(make_snapshot({"compute": {"replicas": 0}}, pods, nodes), 1000.0)
    found: dict[str, list[str]] = {}
    for action in planned.actions:
        if isinstance(action, CreatePod | DrainPod):
            found.setdefault(type(action).__name__, []).append(action.name)
    return found


REVISION = revision_of(make_spec())


def test_each_node_gets_one_under_a_number_of_its_own() -> None:
    nodes = [make_node(f"n{i}") for i in range(3)]
    there = make_pod(Role.RESOURCE, 1, revision=REVISION, node="n0", target_node="n0")
    assert resource_actions(nodes, [there]) == {"CreatePod": ["risk-resource-0-0", "risk-resource-2-0"]}


@pytest.mark.parametrize("state", [{"unschedulable": True}, {"ready": False}])
def test_a_cordoned_or_broken_node_keeps_its_agent_and_gets_none_anew(state: dict[str, Any]) -> None:
    there = make_pod(Role.RESOURCE, 0, revision=REVISION, node="n0", target_node="n0")
    assert resource_actions([make_node("n0", **state), make_node("n1", **state)], [there]) == {}


def test_the_agent_of_a_node_that_no_longer_matches_leaves_by_drain() -> None:
    there = make_pod(Role.RESOURCE, 0, revision=REVISION, node="n0", target_node="n0")
    assert resource_actions([make_node("n0", taints=[GPU])], [there]) == {"DrainPod": ["risk-resource-0-0"]}


def test_the_successor_on_a_node_has_the_same_number_and_the_next_incarnation() -> None:
    gone = make_pod(Role.RESOURCE, 4, 2, revision=REVISION, node="n0", target_node="n0", deleting=True)
    assert resource_actions([make_node("n0")], [gone]) == {"CreatePod": ["risk-resource-4-3"]}


def test_of_two_on_one_node_one_leaves() -> None:
    pods = [make_pod(Role.RESOURCE, n, revision=REVISION, node="n0", target_node="n0") for n in range(2)]
    assert resource_actions([make_node("n0")], pods) == {"DrainPod": ["risk-resource-1-0"]}
