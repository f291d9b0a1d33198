"""What placement means for one plan: gangs and refusals put together with what the roles' decisions are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from swarm_agents.config import Role
from swarm_operator.actions import Action
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.gang import GangPlan, decide_gang
from swarm_operator.placement import NO_EXTRAS, Extras
from swarm_operator.rejections import Rejections, rejections
from swarm_operator.rollout import Agent, Decision, Target, leave
from swarm_operator.snapshot import Snapshot

__all__ = ["Placing", "remembered", "settle"]


@dataclass(frozen=True)
class Placing:
    """The outcome, for the plan and for the status."""

    actions: tuple[Action, ...] = ()
    #: By role, what new pods get beyond their spec.
    extras: Mapping[Role, Extras] = field(default_factory=dict)
    refused: Rejections = field(default_factory=Rejections)
    #: Why the agents' common start has not come about, in one word and for people; empty when it has.
    reason: str = ""
    waiting: str = ""
    requeue: float | None = None

    def of(self, role: Role) -> Extras:
        """What a new pod of a role gets."""
        return self.extras.get(role, NO_EXTRAS)


def remembered(by_role: Mapping[Role, Iterable[Agent]], running: bool, now: float) -> Rejections:
    """What the refused pods say; of a swarm that runs nothing none is kept."""
    pods = [agent.pod for role in (Role.COMPUTE, Role.STANDBY) for agent in by_role[role]]
    return rejections(pods, now) if running else Rejections()


def settle(
    snapshot: Snapshot,
    spec: SwarmSpec,
    revision: str,
    by_role: Mapping[Role, list[Agent]],
    targets: Mapping[Role, Target],
    decisions: Mapping[Role, Decision],
    refused: Rejections,
    now: float,
) -> Placing:
    """Changes the decisions for compute and standby agents as their placement asks for, and says what else to do."""
    avoid = refused.nodes
    for role in (Role.COMPUTE, Role.STANDBY):
        for agent in by_role[role]:
            if agent.alive and not agent.pod.node and not set(agent.pod.avoids) <= set(avoid):
                _withdraw(agent, "a node that it was kept from may be tried again", targets[role], decisions[role], now)
    compute, decision = targets[Role.COMPUTE], decisions[Role.COMPUTE]
    gang: GangPlan = decide_gang(
        snapshot.swarm, spec, by_role[Role.COMPUTE], compute.count, revision, snapshot.gang, now
    )
    for agent, why in gang.withdraw:
        _withdraw(agent, why, compute, decision, now)
    if gang.hold:
        decision.create.clear()
    waits = [wait for wait in (gang.requeue, refused.again_in) if wait is not None]
    return Placing(
        actions=tuple(gang.actions),
        extras={Role.COMPUTE: replace(gang.extras, avoid=avoid), Role.STANDBY: Extras(avoid=avoid)},
        refused=refused,
        reason=gang.reason,
        waiting=gang.waiting,
        requeue=min(waits, default=None),
    )


def _withdraw(agent: Agent, why: str, target: Target, decision: Decision, now: float) -> None:
    going = {a.pod.uid for a in decision.drain} | {a.pod.uid for a, _ in decision.delete}
    if agent.pod.uid not in going:
        leave(agent, why, now, target.drain_timeout, decision)
    decision.resume = [a for a in decision.resume if a.pod.uid != agent.pod.uid]
