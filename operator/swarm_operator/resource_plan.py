"""The resource agents: one a matching node. Pure.

A node has one hub at work: two would both carry its tasks. Within `surge` the successor of an agent of an old revision
is made beside it, on the same node. It starts, finds the other at work, and waits (`ResourceAgent`); once it has
started the old one is drained and deleted, and the successor begins in that moment. Where there is no room for two, or
without surge, the old one leaves first and the node has no hub until a new pod has started. At most `unavailable` nodes
are without one on our account. An agent that is expected to fail leaves first, for it may do so at any moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from swarm_agents.config import Role
from swarm_operator.names import PodName
from swarm_operator.nodes import may_start
from swarm_operator.rollout import Agent, Decision, Target, leave, next_incarnation, replacement_delay
from swarm_operator.views import NodeView

__all__ = ["decide_resource"]

#: Seconds that a successor may be without a node before the old agent makes room for it.
_NO_ROOM: Final = 10.0


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
    leaving, kept, followed = _leavers(target, on_node, nodes, now, decision)
    for agent, why in leaving:
        leave(agent, why, now, target.drain_timeout, decision)
    decision.resume = [agent for agent in kept if agent.draining and agent.running]
    missing = [*_missing(target, on_node, nodes, now, decision), *followed]
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
    lacking = [name for name in decision.create if pinned[str(name)] not in followed]
    decision.instead = dict(zip(lacking, target.foreseen.bereft, strict=False))
    return decision, pinned


def _lowest_free(used: set[int]) -> int:
    ordinal = 0
    while ordinal in used:
        ordinal += 1
    return ordinal


def _leavers(
    target: Target,
    on_node: Mapping[str, Sequence[Agent]],
    nodes: Mapping[str, NodeView],
    now: float,
    decision: Decision,
) -> tuple[list[tuple[Agent, str]], list[Agent], list[str]]:
    """Who leaves and why, who stays, and the nodes on which a successor is to be made beside the one that is there."""
    leaving: list[tuple[Agent, str]] = []
    kept: list[Agent] = []
    keepers: list[Agent] = []
    #: Those whose successor is there, and has started.
    relieved: list[Agent] = []
    surging = 0
    for node, agents in on_node.items():
        alive = [agent for agent in agents if agent.alive]
        if node not in nodes:
            leaving += [(agent, f"node {node or '?'} does not match or is gone") for agent in alive]
            continue
        alive.sort(key=lambda a: (a.pod.revision != target.revision, a.draining, not a.pod.ready, a.name))
        one, others = alive[:1], alive[1:]
        serving = next((agent for agent in others if agent.pod.ready), None)
        if one and serving and not one[0].pod.ready:
            surging += 1
            may_go = not target.paused and _is_due(one[0], now, decision)
            (relieved if may_go else kept).append(serving)
            others.remove(serving)
        (kept if len(alive) > 1 else keepers).extend(one)
        leaving += [(agent, f"node {node} has another") for agent in others]
    # Nodes that lack an agent already use up what may be unavailable; those that can't have one now don't.
    down = 0
    for node, view in nodes.items():
        here = [agent for agent in on_node.get(node, ()) if agent.alive]
        down += (bool(here) or may_start(view)) and not any(agent.available for agent in here)
    followed: list[str] = []
    for agent in [*relieved, *keepers]:
        foreseen = target.foreseen.failing.get(agent.pod.uid, "")
        outdated = agent.pod.revision != target.revision and not target.paused
        if agent not in relieved and not foreseen and outdated and agent.available and target.surge:
            node = agent.pod.target_node or agent.pod.node
            if not _was_refused(on_node[node], target) and may_start(nodes[node]):
                if surging < target.surge:
                    surging += 1
                    followed.append(node)
                kept.append(agent)
                continue
        if (agent in relieved or outdated or foreseen) and (not agent.available or down < target.unavailable):
            down += agent.available
            leaving.append((agent, foreseen or f"revision {agent.pod.revision or '?'} is replaced"))
        else:
            kept.append(agent)
    return leaving, kept, followed


def _is_due(successor: Agent, now: float, decision: Decision) -> bool:
    """Whether the old agent is to leave: its successor has started and waits for that, or finds no room beside it."""
    pod = successor.pod
    if pod.started:
        return True
    if pod.bound or pod.node:
        return False
    wait = pod.created + _NO_ROOM - now
    if wait > 0:
        decision.again_in(wait)
    return wait <= 0


def _was_refused(here: Sequence[Agent], target: Target) -> bool:
    """Whether a successor has ended on this node: it can't be there beside the old agent, as far as anybody knows."""
    return any(agent.pod.revision == target.revision and not agent.alive and not agent.pod.deleting for agent in here)


def _missing(
    target: Target,
    on_node: Mapping[str, Sequence[Agent]],
    nodes: Mapping[str, NodeView],
    now: float,
    decision: Decision,
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
        if alive := [agent for agent in here if agent.alive]:
            followed = any(agent.pod.revision == target.revision for agent in alive)
            # a successor that could not be beside the old one is kept to know it, until the old one has left
            of_no_use = [agent for agent in dead if followed or agent.pod.revision != target.revision]
            decision.delete += [(agent, f"it {agent.pod.phase.lower()}") for agent in of_no_use]
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
