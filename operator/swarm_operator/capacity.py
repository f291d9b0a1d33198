"""Whether a number of equal pods have room in the cluster at once. Pure: nodes and what their pods ask for, in.

It says yes only where the scheduler would place all of them by the rules that it knows: what nodes offer and what is
asked of them, readiness, cordons, taints, selectors, avoided nodes, and the placement that the Swarm requires. Rules
that others set (quotas, anti-affinity of other pods, volumes, further plugins) it does not know; a start that fails for
one of those is found out afterwards (see `gang`).

Pods that wait for a node already come first, each where it fits: the scheduler would take them first, too. One that
fits nowhere takes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from swarm_operator.api.v1alpha1 import Toleration
from swarm_operator.views import NodeView, Taint

__all__ = ["Claim", "Demand", "Usage", "biggest_lack", "candidates", "room_for", "tolerates"]


@dataclass(frozen=True)
class Demand:
    """A number of equal pods. `key` is the domain of a required placement; `spread` its largest skew, 0 for packing."""

    count: int
    request: Mapping[str, int]
    key: str = ""
    spread: int = 0


@dataclass(frozen=True)
class Claim:
    """A pod that waits for a node; `node` when only one will do."""

    request: Mapping[str, int]
    node: str = ""


@dataclass
class Usage:
    """What pods ask of the nodes that they are bound to, and what those that wait will ask of some node."""

    bound: dict[str, dict[str, int]] = field(default_factory=dict)
    waiting: list[Claim] = field(default_factory=list)

    def add(self, node: str, request: Mapping[str, int]) -> None:
        """A pod that is bound to a node."""
        held = self.bound.setdefault(node, {})
        for name, amount in request.items():
            held[name] = held.get(name, 0) + amount


def tolerates(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    """Whether a compute agent may be placed on a node in spite of a taint."""
    if taint.effect not in ("NoSchedule", "NoExecute"):
        return True
    for toleration in tolerations:
        if toleration.effect not in ("", taint.effect) or toleration.key not in ("", taint.key):
            continue
        if toleration.operator == "Exists" or (toleration.key and toleration.value == taint.value):
            return True
    return False


def candidates(
    nodes: Iterable[NodeView],
    selector: Mapping[str, str],
    tolerations: Iterable[Toleration],
    avoid: Iterable[str] = (),
) -> list[NodeView]:
    """The nodes that the scheduler would look at for a compute agent, whatever room they have."""
    tolerations, avoid = list(tolerations), frozenset(avoid)
    cordon = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")
    return [
        node
        for node in sorted(nodes, key=lambda node: node.name)
        if node.ready
        and node.name not in avoid
        and all(node.labels.get(key) == value for key, value in selector.items())
        and all(tolerates(taint, tolerations) for taint in node.taints)
        and (not node.unschedulable or tolerates(cordon, tolerations))
    ]


def biggest_lack(nodes: Iterable[NodeView], request: Mapping[str, int]) -> dict[str, int]:
    """Resources of which no node offers enough for one pod even when it is empty -> the most that one offers.

    Empty also when each is offered, but nowhere together.
    """
    most: dict[str, int] = dict.fromkeys(request, 0)
    for node in nodes:
        for name in request:
            most[name] = max(most[name], node.allocatable.get(name, 0))
    return {name: most[name] for name, amount in request.items() if most[name] < amount}


def _fits(free: Mapping[str, int], request: Mapping[str, int]) -> int:
    """How many pods of this kind a node has room for."""
    counts = [free.get(name, 0) // amount for name, amount in request.items() if amount > 0]
    return max(0, min(counts, default=0))


def _free(nodes: Iterable[NodeView], usage: Usage) -> dict[str, dict[str, int]]:
    free: dict[str, dict[str, int]] = {}
    for node in nodes:
        held = usage.bound.get(node.name, {})
        free[node.name] = {name: amount - held.get(name, 0) for name, amount in node.allocatable.items()}
    for claim in usage.waiting:
        names = [claim.node] if claim.node else sorted(free)
        for name in names:
            if name in free and _fits(free[name], claim.request) >= 1:
                for resource, amount in claim.request.items():
                    free[name][resource] = free[name].get(resource, 0) - amount
                break
    return free


def room_for(demand: Demand, nodes: Iterable[NodeView], usage: Usage) -> int:
    """How many of the pods would find a place, `demand.count` at most. `nodes` are the `candidates`."""
    nodes = list(nodes)
    free = _free(nodes, usage)
    if not demand.key:
        return min(demand.count, sum(_fits(free[node.name], demand.request) for node in nodes))
    domains: dict[str, int] = {}
    for node in nodes:
        if demand.key in node.labels:
            domain = node.labels[demand.key]
            domains[domain] = domains.get(domain, 0) + _fits(free[node.name], demand.request)
    if not domains:
        return 0
    if not demand.spread:
        return min(demand.count, max(domains.values()))
    # no domain may be ahead of the emptiest by more than the skew, and the emptiest can't get beyond its own room
    least = min(domains.values())
    return min(demand.count, sum(min(room, least + demand.spread) for room in domains.values()))
