"""Whose cores the agents run on: whom to ask, and the condition `Pinned` of what they said. Pure.

Only the agent can tell: it reads the cpuset that its kubelet has written (`swarm_agents.runtime.cores`). The operator
asks each agent anyway when it hands it its settings, and again when it reports that its cores have changed; one that is
not ready, where placement is required, is asked why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from swarm_agents.config import Role
from swarm_operator.actions import Action, AskAgent
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.placement import whole_cpus
from swarm_operator.rollout import Agent

__all__ = ["CORES_LISTED", "PINNED", "asks", "cores_listed", "cpu_list", "pinned"]

PINNED: Final = "Pinned"

#: Agents that the status lists; those without cores of their own come first.
CORES_LISTED: Final = 32
#: Agents that the condition names for one reason.
_NAMED: Final = 3
#: How often an agent that starts, and one that is unfit, is asked again.
_STARTING: Final = 3.0
_UNFIT: Final = 20.0

#: What an agent's word means, and what to do.
_WORDS: Final = {
    "NoStaticPolicy": "the node's kubelet has no static CPU Manager (cpuManagerPolicy: static)",
    "SharedPool": "they share what the static CPU Manager leaves; whole compute.cpus are needed",
    "Overlapping": "the embedded cluster's nodes have more CPUs than this machine",
    "NotAsAssigned": "the kernel allows other CPUs than the kubelet assigned",
    "Simulated": "no other pod of the embedded cluster has them, other programs of the machine may",
    "Unknown": "the cpuset can be read either way",
}


def cpu_list(cpus: Iterable[int]) -> str:
    """`0-2,5` for {0, 1, 2, 5}."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1][1:] = [cpu]
        else:
            parts.append([cpu])
    return ",".join("-".join(map(str, part)) for part in parts)


def _required(spec: SwarmSpec) -> bool:
    return spec.scheduling.cpu_pinning == "Required" or spec.scheduling.topology.numa == "Required"


def asks(spec: SwarmSpec, agents: Iterable[Agent], going: set[str], now: float) -> tuple[list[Action], float | None]:
    """Agents that have to be asked how they are, and in how many seconds the next one will have to be."""
    actions: list[Action] = []
    waits: list[float] = []
    if not _required(spec):
        return [], None
    for agent in agents:
        pod, report = agent.pod, agent.report
        if agent.name.role is Role.RESOURCE or agent.lost or not agent.alive or not agent.running or pod.uid in going:
            continue
        if pod.ready and not (report and report.unfit):
            continue
        wait = 0.0
        if report:
            pause = 1.0 if pod.ready else _UNFIT if report.unfit else _STARTING
            wait = report.checked + pause * 2.0 ** min(report.failures, 4) - now
        if wait > 0:
            waits.append(wait)
        else:
            actions.append(AskAgent("Pod", pod.name, pod.uid, pod.ip, pod.restarts, pod.ports))
    return actions, min(waits, default=None)


def _working(agents: Iterable[Agent]) -> list[Agent]:
    return [agent for agent in agents if agent.alive and agent.name.role is not Role.RESOURCE]


def pinned(spec: SwarmSpec, agents: Sequence[Agent]) -> tuple[str, str, str]:
    """Status, reason and message of the condition."""
    if spec.scheduling.cpu_pinning == "None":
        return "False", "NotWanted", "scheduling.cpuPinning is None: agents run on any core that they are allowed."
    working = _working(agents)
    unfit = [agent for agent in working if agent.report and agent.report.unfit]
    if unfit:
        return "False", "Unfit", _grouped([(agent.pod.name, agent.report.unfit) for agent in unfit if agent.report])
    if not working:
        return "Unknown", "NoAgents", "There is no agent that could say."
    heard = [agent for agent in working if agent.report and agent.report.cores_code]
    shared = [a for a in heard if a.report and a.report.exclusive is False]
    if shared:
        whole = (
            "" if whole_cpus(spec) else f" compute.cpus is {spec.compute.cpus}: only whole CPUs can be an agent's own."
        )
        return "False", "CoresShared", f"{_because(shared, len(working))}.{whole}"
    unclear = [a for a in heard if a.report and a.report.exclusive is None]
    if unclear:
        return (
            "Unknown",
            unclear[0].report.cores_code if unclear[0].report else "",
            f"{_because(unclear, len(working))}.",
        )
    if len(heard) < len(working):
        return "Unknown", "NotHeard", f"{len(working) - len(heard)} of {len(working)} agents have not said yet."
    return "True", "CoresExclusive", f"All {len(working)} agents have cores of their own."


def _because(agents: Sequence[Agent], total: int) -> str:
    by_code = [(a.pod.name, _WORDS.get(a.report.cores_code, a.report.cores_reason)) for a in agents if a.report]
    return f"{len(agents)} of {total} agents have no cores that are known to be theirs alone: {_grouped(by_code)}"


def _grouped(reasons: Iterable[tuple[str, str]]) -> str:
    """`reason (a, b, c and 5 more); other reason (d)`, bounded."""
    by_reason: dict[str, list[str]] = {}
    for name, why in sorted(reasons):
        by_reason.setdefault(why, []).append(name)
    parts = []
    for why, names in sorted(by_reason.items(), key=lambda entry: -len(entry[1]))[:_NAMED]:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        parts.append(f"{why} ({', '.join(names[:_NAMED])}{more})")
    more = f"; and {len(by_reason) - _NAMED} more reasons" if len(by_reason) > _NAMED else ""
    return "; ".join(parts) + more


def cores_listed(agents: Iterable[Agent]) -> list[dict[str, Any]]:
    """For the status: each agent's cores and whether they are its own; at most `CORES_LISTED`."""
    worth = {False: 0, None: 1, True: 2}
    words = {False: "False", None: "Unknown", True: "True"}
    heard = [(agent.pod, agent.report) for agent in _working(agents) if agent.report and agent.report.cores_code]
    heard.sort(key=lambda entry: (not entry[1].unfit, worth[entry[1].exclusive], entry[0].name))
    return [
        {
            "agent": pod.name,
            "node": pod.node,
            "cpus": report.cores[:64],
            "exclusive": words[report.exclusive],
            "numa": "" if report.numa is None else cpu_list(report.numa),
            "reason": report.unfit or report.cores_reason,
        }
        for pod, report in heard[:CORES_LISTED]
    ]
