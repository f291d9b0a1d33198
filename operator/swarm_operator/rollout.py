"""Which agents of a role to create, to drain and to delete. Pure.

Invariants, held by property tests:
- pods that are being deleted, have ended, or are on a lost node are not alive; at most `count + surge` are alive;
- no step of ours takes the number of available agents (ready, not draining) below `count - unavailable`;
- a busy agent is never deleted: it is asked to drain, and deleted by name when it says that it is empty, when it has
  had its time, or when it does not answer any more;
- with the same observation comes the same decision, so a stale observation repeats an action and does no other.

Ordinals are names, not ranks: the least busy agent leaves, whichever its number, and the lowest free number is used
next. (Ranks, as in a StatefulSet, would make the highest leave, however long its task.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from swarm_agents.config import Role
from swarm_operator.names import PodName
from swarm_operator.rejections import is_rejection
from swarm_operator.views import AgentReport, PodView

__all__ = [
    "FORESEEN",
    "LOST",
    "NOTHING_FORESEEN",
    "Agent",
    "Decision",
    "Foreseen",
    "Target",
    "budget",
    "decide",
    "leave",
    "next_incarnation",
    "replacement_delay",
]

#: How often a draining agent is asked whether it is empty.
DRAIN_POLL: Final = 0.25
#: How long after its drain timeout an agent that still says it is busy is deleted. It hands its task back then.
DRAIN_GRACE: Final = 5.0
#: After so many unanswered calls an agent is deleted without an answer.
DRAIN_TRIES: Final = 3
#: A pod that ran for so long failed for a reason of its own, and is replaced at once.
_LASTED: Final = 60.0
_DELAY_MAX: Final = 30.0

#: How the reason for a deletion begins when the pod's node is lost, and when the agent itself expects to fail.
LOST: Final = "lost with node"
FORESEEN: Final = "predicted to fail"

_DRAINING: Final = frozenset({"draining", "drained", "stopped"})


@dataclass(frozen=True)
class Agent:
    """A pod of this swarm, with what its name says and what its agent said last."""

    pod: PodView
    name: PodName
    report: AgentReport | None = None
    #: Its node is: it may run or not, nobody can tell.
    lost: bool = False

    @property
    def alive(self) -> bool:
        """Neither ended nor on its way out. On a lost node only a resource agent is: it belongs there."""
        if self.lost and self.name.role is not Role.RESOURCE:
            return False
        return not self.pod.deleting and self.pod.phase not in ("Failed", "Succeeded")

    @property
    def running(self) -> bool:
        """Whether it may hold a task, and could be asked."""
        return self.pod.phase == "Running" and bool(self.pod.ip)

    @property
    def draining(self) -> bool:
        """Whether it was asked to leave."""
        return self.report is not None and (self.report.state in _DRAINING or self.report.drain_since is not None)

    @property
    def available(self) -> bool:
        """Whether it takes tasks."""
        return self.alive and self.pod.ready and not self.draining


@dataclass(frozen=True)
class Foreseen:
    """Agents of a role that are to be replaced because they will fail; see `foresight`."""

    #: By UID, with the reason.
    failing: Mapping[str, str] = field(default_factory=dict)
    #: UIDs of those, and of some that are gone already, for which no successor was made.
    bereft: tuple[str, ...] = ()


NOTHING_FORESEEN: Final = Foreseen()


@dataclass(frozen=True)
class Target:
    """What a role should come to."""

    swarm: str
    role: Role
    count: int
    revision: str
    surge: int = 0
    unavailable: int = 1
    paused: bool = False
    drain_timeout: float = 25.0
    #: Pods created in one plan at most, so that one large swarm does not starve the others.
    batch: int = 200
    #: UIDs of pods that their node refused and that are kept to know it.
    kept: frozenset[str] = frozenset()
    #: What is foreseen of the role's agents.
    foreseen: Foreseen = NOTHING_FORESEEN


@dataclass
class Decision:
    """What to do for a role."""

    create: list[PodName] = field(default_factory=list)
    drain: list[Agent] = field(default_factory=list)
    resume: list[Agent] = field(default_factory=list)
    #: With the reason.
    delete: list[tuple[Agent, str]] = field(default_factory=list)
    #: Why those in `drain` leave, by UID.
    why: dict[str, str] = field(default_factory=dict)
    #: Names in `create`, and the UID of the agent for which they are made because it will fail.
    instead: dict[PodName, str] = field(default_factory=dict)
    requeue: float | None = None
    blocked: list[str] = field(default_factory=list)

    def again_in(self, delay: float) -> None:
        """Ask to be called again, at the latest in `delay` seconds."""
        self.requeue = delay if self.requeue is None else min(self.requeue, delay)


def budget(value: int | str, count: int, *, up: bool) -> int:
    """A count or a percentage of `count`, rounded up or down."""
    if isinstance(value, int):
        return value
    percent = int(value.rstrip("%")) * count
    return -(-percent // 100) if up else percent // 100


def replacement_delay(agent: Agent) -> float:
    """How long after its end a pod that failed is replaced: at once, or later and later if it failed young."""
    ended = agent.pod.ended or agent.pod.created
    if ended - agent.pod.created >= _LASTED:
        return 0.0
    return min(2.0 ** min(agent.name.incarnation, 10) - 1.0, _DELAY_MAX)


def leave(agent: Agent, why: str, now: float, timeout: float, decision: Decision) -> None:
    """Have an agent leave: drain it if it may hold a task, and delete it when it is empty."""
    report = agent.report
    if not agent.running:
        decision.delete.append((agent, why))
    elif report and report.state in ("drained", "stopped"):
        decision.delete.append((agent, f"{why}; drained"))
    elif report and report.drain_since is not None and now - report.drain_since >= timeout + DRAIN_GRACE:
        decision.delete.append((agent, f"{why}; still busy after {timeout:g} s"))
    elif report and report.drain_since is not None and report.failures >= DRAIN_TRIES:
        decision.delete.append((agent, f"{why}; does not answer: {report.error}"))
    else:
        decision.drain.append(agent)
        decision.why[agent.pod.uid] = why
        decision.again_in(DRAIN_POLL)


def decide(target: Target, agents: Iterable[Agent], now: float) -> Decision:
    """What to do so that the role comes to `target`."""
    decision = Decision()
    agents = sorted(agents, key=lambda agent: agent.name)
    alive = [agent for agent in agents if agent.alive]
    failing = target.foreseen.failing
    of_old = [] if target.paused else [agent for agent in alive if agent.pod.revision != target.revision]
    old = {agent.pod.uid for agent in of_old}
    outdated = of_old + [agent for agent in alive if agent.pod.uid in failing and agent.pod.uid not in old]
    going_soon = {agent.pod.uid for agent in outdated}
    current = [agent for agent in alive if agent.pod.uid not in going_soon]
    leaving = _leavers(target, alive, current, outdated, decision)
    for agent, why in leaving:
        leave(agent, why, now, target.drain_timeout, decision)
    going = {agent.pod.uid for agent, _ in leaving}
    decision.resume = [agent for agent in alive if agent.draining and agent.running and agent.pod.uid not in going]

    room = target.count + (target.surge if outdated else 0) - len(alive)
    need = max(0, min(target.count - len(current), room))
    held = _collect_dead(target, agents, need, now, decision)
    decision.create = _new_names(target, agents, held, min(need - len(held), target.batch))
    decision.instead = dict(zip(decision.create, target.foreseen.bereft, strict=False))
    if need - len(held) > len(decision.create):
        decision.again_in(0.0)
    return decision


def _leavers(
    target: Target, alive: Sequence[Agent], current: Sequence[Agent], outdated: Sequence[Agent], decision: Decision
) -> list[tuple[Agent, str]]:
    """Who leaves, within the bounds on unavailability."""

    def rank(agent: Agent) -> tuple[bool, bool, int, int, str]:
        busy = agent.report.running if agent.report else 0
        return (not agent.draining, agent.pod.ready, busy, -agent.name.ordinal, agent.pod.name)

    failing = target.foreseen.failing
    wanted = [
        (agent, failing.get(agent.pod.uid) or f"revision {agent.pod.revision or '?'} is replaced")
        for agent in sorted(outdated, key=rank)
    ]
    surplus = len(current) - target.count
    if surplus > 0:
        wanted += [(agent, f"scaled in to {target.count}") for agent in sorted(current, key=rank)[:surplus]]
    # The least busy leaves, and one that is leaving already is not available: whoever has not said how it is is asked
    # first (by a push of the settings), before any other that works is sent away.
    unknown = any(agent.pod.ready and agent.report is None for agent in alive)
    available = sum(agent.available for agent in alive)
    floor = max(0, target.count - target.unavailable)
    out = []
    for agent, why in wanted:
        if agent.available:
            if unknown:
                decision.again_in(DRAIN_POLL)
                continue
            # one that is only expected to fail leaves when its successor is there, if there may be one before
            if available - 1 < (target.count if target.surge and agent.pod.uid in failing else floor):
                continue
            available -= 1
        out.append((agent, why))
    return out


def _collect_dead(target: Target, agents: Sequence[Agent], need: int, now: float, decision: Decision) -> set[int]:
    """Delete pods that ended; the ordinals of those whose replacement has to wait."""
    held: set[int] = set()
    for agent in agents:
        if agent.pod.deleting or agent.alive:
            continue
        if agent.lost and agent.pod.phase not in ("Failed", "Succeeded"):
            # Deleted, so that it ends when its node comes back; its successor has another name and need not wait.
            decision.delete.append((agent, f"{LOST} {agent.pod.node}"))
            continue
        if is_rejection(agent.pod):
            # its successor is made at once: another node is tried, and the one that refused is avoided for a while
            if agent.pod.uid not in target.kept:
                decision.delete.append((agent, f"node {agent.pod.node} refused it ({agent.pod.reason})"))
            continue
        wait = (agent.pod.ended or agent.pod.created) + replacement_delay(agent) - now
        if wait > 0 and len(held) < need and agent.name.ordinal not in held:
            held.add(agent.name.ordinal)
            decision.again_in(wait)
            decision.blocked.append(
                f"{agent.pod.name} failed ({agent.pod.reason or 'no reason given'}); it is replaced after a delay"
            )
        else:
            decision.delete.append((agent, f"it {agent.pod.phase.lower()} ({agent.pod.reason or 'no reason given'})"))
    return held


def _new_names(target: Target, agents: Sequence[Agent], held: set[int], count: int) -> list[PodName]:
    if count <= 0:
        return []
    used = {agent.name.ordinal for agent in agents if agent.alive} | held
    latest: dict[int, int] = {}
    for agent in agents:
        latest[agent.name.ordinal] = max(agent.name.incarnation, latest.get(agent.name.ordinal, -1))
    names: list[PodName] = []
    ordinal = 0
    while len(names) < count:
        if ordinal not in used:
            names.append(PodName(target.swarm, target.role, ordinal, latest.get(ordinal, -1) + 1))
        ordinal += 1
    return names


def next_incarnation(agents: Iterable[Agent], ordinal: int) -> int:
    """One more than any that is still to be seen."""
    return max((agent.name.incarnation for agent in agents if agent.name.ordinal == ordinal), default=-1) + 1
