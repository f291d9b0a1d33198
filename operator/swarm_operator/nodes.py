"""Which nodes get a resource agent, and which are lost. Pure.

For resource agents the DaemonSet controller's rules hold: selector, then taints. A node that is cordoned or not ready
keeps the agent that it has and gets none anew; a taint that is not tolerated, or a label that is gone, ends it.

A node is *lost* when it has not been ready, or has been gone from the cluster, for as long as the compute agents
tolerate that. Their pods are then replaced elsewhere at once: the taint manager would delete them, too, but not while
it is slowed down, and a pod that it has deleted stays as terminating for as long as the node is away.

When no node is ready none is held for lost: then it is rather the control plane that is cut off from the nodes, whose
agents work, and nothing could be started elsewhere anyway. (The node controller stops evicting then, too.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from swarm_operator.api.v1alpha1 import SwarmSpec, Toleration
from swarm_operator.pods import BOUND_TO_NODE, tolerated_seconds
from swarm_operator.rollout import Agent
from swarm_operator.views import NodeView, Taint

__all__ = ["Losses", "kept_nodes", "losses", "matching_nodes", "may_start", "tolerated"]

_ALWAYS = frozenset(BOUND_TO_NODE)


def tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    """Whether a resource agent may run in spite of a taint."""
    if taint.effect == "PreferNoSchedule" or (taint.key, taint.effect) in _ALWAYS:
        return True
    for toleration in tolerations:
        if toleration.effect not in ("", taint.effect) or toleration.key not in ("", taint.key):
            continue
        if toleration.operator == "Exists" or (toleration.key and toleration.value == taint.value):
            return True
    return False


def _selected(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def matching_nodes(spec: SwarmSpec, nodes: Iterable[NodeView]) -> dict[str, NodeView]:
    """The nodes that a resource agent belongs to, by name."""
    wanted = {**spec.scheduling.node_selector, **spec.resource.node_selector}
    return {
        node.name: node
        for node in sorted(nodes, key=lambda node: node.name)
        if _selected(node.labels, spec.scheduling.node_selector)
        and _selected(node.labels, wanted)
        and all(tolerated(taint, spec.scheduling.tolerations) for taint in node.taints)
    }


def kept_nodes(agents: Iterable[Agent]) -> dict[str, NodeView]:
    """The nodes of resource agents that there are, where nodes can't be read: these are kept, and no others made."""
    names = sorted({agent.pod.target_node for agent in agents if agent.pod.target_node})
    return {name: NodeView(name=name, resource_version="", labels={}) for name in names}


def may_start(node: NodeView) -> bool:
    """Whether an agent should be started on it now."""
    return node.ready and not node.unschedulable


@dataclass(frozen=True)
class Losses:
    """The nodes that are lost, and in how many seconds the next one will be if nothing changes."""

    lost: frozenset[str] = frozenset()
    again_in: float | None = None


def losses(spec: SwarmSpec, nodes: Iterable[NodeView], gone: Mapping[str, float], now: float) -> Losses:
    """Which nodes are lost. `gone`: nodes that were seen to be removed from the cluster, and when."""
    nodes = list(nodes)
    if not any(node.ready for node in nodes):
        return Losses()
    present = {node.name for node in nodes}
    since = {name: (when, "node.kubernetes.io/unreachable") for name, when in gone.items() if name not in present}
    for node in nodes:
        if not node.ready and node.unready_since:
            taint = "unreachable" if node.unreachable else "not-ready"
            since[node.name] = node.unready_since, f"node.kubernetes.io/{taint}"
    left = {
        name: when + tolerated_seconds(spec.scheduling.tolerations, key) - now for name, (when, key) in since.items()
    }
    waits = [wait for wait in left.values() if 0 < wait < float("inf")]
    return Losses(frozenset(name for name, wait in left.items() if wait <= 0), min(waits, default=None))
