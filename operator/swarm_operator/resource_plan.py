"""The resource agents: one a matching node. Pure.

A resource agent is replaced where it stands: it leaves first and its successor comes after, since two hubs on one node
would both carry its tasks. At most `unavailable` nodes are without one on our account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from swarm_agents.config import Role
from swarm_operator.names import PodName
from swarm_operator.nodes import may_start
from swarm_operator.rollout import Agent, Decision, Target, leave, next_incarnation, replacement_delay
from swarm_operator.views import NodeView

__all__ = ["decide_resource"]


def decide_resource(
    target: Target, agents: Iterable[Agent], nodes: Mapping[str, NodeView], now: float
) -> tuple[Decision, dict[str, str]]:
    """What to do for the resource agents, and the node of each pod to create, by its name.

    `target.count` is not read: there is one a node of `nodes`, none when it is empty.
    """
    decision = Decision()
    agents = sorted(agents, key=lambda agent: agent.name)
    on_node: dict[str, list[Agent]] = {}
    for agent in agents:
        on_node.setdefault(agent.pod.target_node or agent.pod.node, []).append(agent)
    leaving, kept = _leavers(target, on_node, nodes)
    for agent, why in leaving:
        leave(agent, why, now, target.drain_timeout, decision)
    decision.resume = [agent for agent in kept if agent.draining and agent.running]
    missing = _missing(on_node, nodes, now, decision)
    pinned: dict[str, str] = {}
    used = {agent.name.ordinal for agent in agents}
    for node in missing:
        if len(decision.create) >= target.batch:
            decision.again_in(0.0)
            break
        earlier = on_node.get(node, [])
        ordinal = earlier[0].name.ordinal if earlier else _lowest_free(used)
        used.add(ordinal)
        name = PodName(target.swarm, Role.RESOURCE, ordinal, next_incarnation(agents, ordinal))
        decision.create.append(name)
        pinned[str(name)] = node
    decision.instead = dict(zip(decision.create, target.foreseen.bereft, strict=False))
    return decision, pinned


def _lowest_free(used: set[int]) -> int:
    ordinal = 0
    while ordinal in used:
        ordinal += 1
    return ordinal


def _leavers(
    target: Target, on_node: Mapping[str, Sequence[Agent]], nodes: Mapping[str, NodeView]
) -> tuple[list[tuple[Agent, str]], list[Agent]]:
    leaving: list[tuple[Agent, str]] = []
    keepers: list[Agent] = []
    for node, agents in on_node.items():
        alive = [agent for agent in agents if agent.alive]
        if node not in nodes:
            leaving += [(agent, f"node {node or '?'} does not match or is gone") for agent in alive]
            continue
        alive.sort(key=lambda a: (a.pod.revision != target.revision, a.draining, not a.pod.ready, a.name))
        keepers += alive[:1]
        leaving += [(agent, f"node {node} has another") for agent in alive[1:]]
    # Nodes that lack an agent already use up what may be unavailable; those that can't have one now don't.
    down = 0
    for node, view in nodes.items():
        here = [agent for agent in on_node.get(node, ()) if agent.alive]
        down += (bool(here) or may_start(view)) and not any(agent.available for agent in here)
    kept = []
    for agent in keepers:
        foreseen = target.foreseen.failing.get(agent.pod.uid, "")
        replaceable = (agent.pod.revision != target.revision and not target.paused) or bool(foreseen)
        if replaceable and (not agent.available or down < target.unavailable):
            down += agent.available
            leaving.append((agent, foreseen or f"revision {agent.pod.revision or '?'} is replaced"))
        else:
            kept.append(agent)
    return leaving, kept


def _missing(
    on_node: Mapping[str, Sequence[Agent]], nodes: Mapping[str, NodeView], now: float, decision: Decision
) -> list[str]:
    """Nodes that should get an agent now; what has ended there is deleted, or waited for."""
    missing = []
    for node, agents in on_node.items():
        if node not in nodes:
            dead = [agent for agent in agents if not agent.pod.deleting and not agent.alive]
            decision.delete += [(agent, f"it {agent.pod.phase.lower()}") for agent in dead]
    for node, view in nodes.items():
        here = on_node.get(node, ())
        dead = [agent for agent in here if not agent.pod.deleting and not agent.alive]
        if any(agent.alive for agent in here):
            decision.delete += [(agent, f"it {agent.pod.phase.lower()}") for agent in dead]
            continue
        wait = max(
            ((agent.pod.ended or agent.pod.created) + replacement_delay(agent) - now for agent in dead), default=0.0
        )
        if wait > 0:
            decision.again_in(wait)
            decision.blocked.append(f"the resource agent of node {node} failed; it is replaced after a delay")
            continue
        decision.delete += [(agent, f"it {agent.pod.phase.lower()}") for agent in dead]
        if may_start(view):
            missing.append(node)
    return missing
