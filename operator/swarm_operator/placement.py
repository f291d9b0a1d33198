"""Where a compute agent's pod may go, as parts of its manifest: affinity, spread, gates, and what it asks of its cores.

What can be had of NUMA alignment from a pod: the kubelet's Topology Manager aligns CPUs, memory (with the static Memory
Manager) and devices of one container when the pod is Guaranteed and asks for whole CPUs, and it is the node's policy
that says whether it must (`single-numa-node`: the pod is rejected where it can't). Nothing in a pod can ask for it, no
label tells a node's policy, and the default scheduler does not look at NUMA. So `numa` makes the pod such that it can
be aligned (one container, Guaranteed, whole CPUs: `accept` refuses anything else), has the agent look at what it got
(`swarm_agents.runtime.fitness`: Required and not met is not ready), keeps new pods off nodes that rejected one
(`rejections`), and tells Volcano, whose scheduler does know the nodes' topology, what is wanted. Who has labelled nodes
by their policy selects them by `scheduling.nodeSelector`.

`Spread` over zones spreads over the nodes of each zone, too, softly: a pod that names constraints of its own gets none
of the scheduler's defaults, and all agents of a zone could end on one node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from swarm_agents.config import Role
from swarm_operator.api.fields import milli_cpus
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.names import pod_selector
from swarm_operator.private_board import in_pod
from swarm_operator.quantities import amount
from swarm_operator.views import SwarmView

__all__ = ["NO_EXTRAS", "Extras", "environment", "pinned_to", "requests", "scheduling", "whole_cpus"]

_HOST: Final = "kubernetes.io/hostname"


@dataclass(frozen=True)
class Extras:
    """What a pod gets beyond its spec, from how the swarm is just now: its gang, and nodes that rejected its like."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    gates: tuple[str, ...] = ()
    scheduler: str = ""
    avoid: tuple[str, ...] = ()


NO_EXTRAS: Final = Extras()


def whole_cpus(spec: SwarmSpec) -> int:
    """How many whole CPUs a compute agent asks for; 0 when it asks for parts, which can't be its own."""
    milli = milli_cpus(spec.compute.cpus)
    return 0 if milli % 1000 else milli // 1000


def requests(spec: SwarmSpec) -> dict[str, int]:
    """What one compute agent takes of a node, in the units of `quantities`."""
    out = {"cpu": milli_cpus(spec.compute.cpus), "memory": amount("memory", spec.compute.memory), "pods": 1}
    if in_pod(spec):
        out["cpu"] += milli_cpus(spec.resource.cpus)
        out["memory"] += amount("memory", spec.resource.memory)
    if spec.compute.gpus:
        out[spec.compute.gpus.resource] = spec.compute.gpus.count
    return out


def environment(spec: SwarmSpec) -> dict[str, str]:
    """What a compute agent is told of what is asked of its cores."""
    given = {"SWARM_CPU_PINNING": spec.scheduling.cpu_pinning, "SWARM_NUMA": spec.scheduling.topology.numa}
    return given | ({"SWARM_WHOLE_CPUS": str(whole_cpus(spec))} if whole_cpus(spec) else {})


def pinned_to(node: str) -> dict[str, Any]:
    """By affinity and not by `nodeName`, so that the scheduler still accounts for the pod's resources."""
    return _by_name([{"key": "metadata.name", "operator": "In", "values": [node]}])


def _by_name(fields: list[dict[str, Any]]) -> dict[str, Any]:
    terms = [{"matchFields": fields}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def scheduling(swarm: SwarmView, spec: SwarmSpec, extras: Extras) -> dict[str, Any]:
    """The part of a compute or standby agent's pod spec that says where it may go, and when."""
    out: dict[str, Any] = {}
    scheduler = spec.scheduling.scheduler_name or extras.scheduler
    if scheduler:
        out["schedulerName"] = scheduler
    if extras.gates:
        out["schedulingGates"] = [{"name": gate} for gate in extras.gates]
    affinity: dict[str, Any] = {}
    if extras.avoid:
        # a requirement each: the API server takes a single value in a field's
        fields = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in extras.avoid]
        affinity |= _by_name(fields)
    topology = spec.scheduling.topology
    selector = {"matchLabels": pod_selector(swarm.name, Role.COMPUTE)}
    if topology.placement == "Pack":
        term = {"topologyKey": topology.key, "labelSelector": selector}
        if topology.required:
            affinity["podAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        else:
            preferred = [{"weight": 100, "podAffinityTerm": term}]
            affinity["podAffinity"] = {"preferredDuringSchedulingIgnoredDuringExecution": preferred}
    elif topology.placement == "Spread":
        when = "DoNotSchedule" if topology.required else "ScheduleAnyway"
        out["topologySpreadConstraints"] = [_spread(topology.key, topology.max_skew, when, selector)]
        if topology.key != _HOST:
            out["topologySpreadConstraints"].append(_spread(_HOST, 1, "ScheduleAnyway", selector))
    if affinity:
        out["affinity"] = affinity
    return out


def _spread(key: str, skew: int, when: str, selector: dict[str, Any]) -> dict[str, Any]:
    return {"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": selector}
