"""Which nodes get a resource agent. Pure, and the DaemonSet controller's rules: selector, then taints.

A node that is cordoned or not ready keeps the agent that it has and gets none anew; a taint that is not tolerated, or
a label that is gone, ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from swarm_operator.api.v1alpha1 import SwarmSpec, Toleration
from swarm_operator.pods import BOUND_TO_NODE
from swarm_operator.views import NodeView, Taint

__all__ = ["matching_nodes", "may_start", "tolerated"]

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


def may_start(node: NodeView) -> bool:
    """Whether an agent should be started on it now."""
    return node.ready and not node.unschedulable
