"""The conditions that tell of placement: Placed, NumaAligned, TopologyRejected (and Pinned, of `pinning`). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from swarm_agents.config import Role
from swarm_operator.actions import Plan
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.capacity import biggest_lack, candidates
from swarm_operator.pinning import PINNED, pinned
from swarm_operator.placement import requests
from swarm_operator.rejections import Rejections
from swarm_operator.rollout import Agent
from swarm_operator.snapshot import Snapshot

__all__ = ["NUMA_ALIGNED", "PLACED", "TOPOLOGY_REJECTED", "placement_conditions"]

PLACED: Final = "Placed"
NUMA_ALIGNED: Final = "NumaAligned"
TOPOLOGY_REJECTED: Final = "TopologyRejected"

_NAMED: Final = 3
_MESSAGE_MAX: Final = 1000

_Condition = tuple[str, str, str, str]


def placement_conditions(snapshot: Snapshot, plan: Plan, agents: Sequence[Agent]) -> list[_Condition]:
    """All of them, for a Swarm that is carried out."""
    spec = snapshot.spec
    if spec is None or plan.placing is None:
        return []
    found = [
        (PLACED, *_placed(snapshot, spec, plan, agents)),
        (PINNED, *pinned(spec, agents)),
        *([(NUMA_ALIGNED, *_aligned(agents))] if spec.scheduling.topology.numa != "Any" else []),
        (TOPOLOGY_REJECTED, *_rejected(plan.placing.refused)),
    ]
    return [(kind, status, reason, message[:_MESSAGE_MAX]) for kind, status, reason, message in found]


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return ", ".join(items[:_NAMED]) + more


def _placed(snapshot: Snapshot, spec: SwarmSpec, plan: Plan, agents: Sequence[Agent]) -> tuple[str, str, str]:
    if spec.suspend:
        return "True", "Suspended", "spec.suspend is true: there is nothing to place."
    waiting = [agent for agent in agents if agent.alive and not agent.pod.node and agent.name.role is not Role.RESOURCE]
    wanted = plan.compute.desired + plan.standby.desired
    there = plan.compute.current + plan.standby.current
    placing = plan.placing
    assert placing is not None
    if wanted and (waiting or there < wanted):
        lacking = _lacking(snapshot, spec)
        if lacking:
            return "False", *lacking
    if placing.reason:
        return "False", placing.reason, f"{placing.waiting}."
    refused = [agent.pod for agent in waiting if agent.pod.reason == "Unschedulable"]
    if refused:
        message = f"{len(refused)} agents find no node ({_some([pod.name for pod in refused])}): {refused[0].message}"
        return "False", "Unschedulable", message
    if waiting or there < wanted:
        return "False", "Placing", f"{there - len(waiting)} of {wanted} agents have a node."
    return "True", "AllPlaced", "Every agent has a node."


def _lacking(snapshot: Snapshot, spec: SwarmSpec) -> tuple[str, str] | None:
    """No node could ever take an agent, not even an empty one: told at once, and not by the scheduler's leave."""
    request, scheduling = requests(spec), spec.scheduling
    nodes = [node for node in snapshot.nodes if node.allocatable]
    if not nodes:
        return None  # nothing is known of them
    lack = biggest_lack(nodes, request)
    for name, most in sorted(lack.items()):
        if not most:
            return (
                "NoSuchResource",
                f"no node of the cluster offers {name}, of which each agent asks for {request[name]}: install its "
                "device plugin, or change compute.gpus.resource",
            )
    fitting = candidates(nodes, scheduling.node_selector, scheduling.tolerations)
    if not fitting:
        return (
            "NoSuchNode",
            "no node that is ready matches scheduling.nodeSelector and scheduling.tolerations for compute agents.",
        )
    lack = biggest_lack(fitting, request)
    if lack:
        parts = [f"{_shown(n, request[n])} of {n}, the most is {_shown(n, most)}" for n, most in sorted(lack.items())]
        return "NoNodeLargeEnough", f"no node that the agents may use offers enough for one: {'; '.join(parts)}."
    return None


def _shown(name: str, amount: int) -> str:
    if name == "cpu":
        return f"{amount / 1000:g}"
    return f"{amount / (1 << 20):.0f}Mi" if name == "memory" else str(amount)


def _aligned(agents: Sequence[Agent]) -> tuple[str, str, str]:
    working = [agent for agent in agents if agent.alive and agent.name.role is not Role.RESOURCE]
    heard = [(agent.pod.name, agent.report) for agent in working if agent.report and agent.report.cores_code]
    across = sorted(name for name, report in heard if report.numa and len(report.numa) > 1)
    if across:
        text = f"the cores of {len(across)} of {len(working)} agents lie on several NUMA nodes: {_some(across)}"
        hint = (
            "Nodes align them with topologyManagerPolicy single-numa-node (or restricted) and cpuManagerPolicy static"
        )
        return "False", "AcrossNodes", f"{text}. {hint}."
    silent = sorted(name for name, report in heard if report.numa is None)
    if silent:
        return "Unknown", "NotTold", f"the kernel does not say where the cores of {_some(silent)} lie."
    if len(heard) < len(working) or not working:
        return "Unknown", "NotHeard", f"{len(working) - len(heard)} of {len(working)} agents have not said yet."
    return "True", "OneNode", f"the cores of each of {len(working)} agents lie on one NUMA node."


def _rejected(refused: Rejections) -> tuple[str, str, str]:
    if not refused.avoided:
        return "False", "NotRejected", "No node refuses agents."
    parts = [
        f"node {avoided.node} refused agents {avoided.times} times ({avoided.reason}: {avoided.message[:150]}) and is "
        f"avoided until {datetime.fromtimestamp(avoided.until, UTC).strftime('%H:%M:%SZ')}"
        for avoided in refused.avoided[:_NAMED]
    ]
    more = f"; and {len(refused.avoided) - _NAMED} more nodes" if len(refused.avoided) > _NAMED else ""
    return "True", refused.avoided[0].reason or "Rejected", "; ".join(parts) + more + "."
