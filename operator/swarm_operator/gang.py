"""All compute agents start, or none does (`scheduling.gang`). Pure: what to add to new pods, and what to do, out.

A gang is for the *start*: while no compute agent of the swarm has a node, the wanted ones are one group that starts
whole or not at all. What comes later (a replacement, a scale-out, the pods of a roll) comes singly: agents are workers
of their own, a swarm with one fewer works, and a replacement must not wait for the room of a hundred. After a suspend,
or when all agents were lost, it is a start again.

`Operator`: pods are made with a scheduling gate. When the group is complete, its room is looked for (`capacity`, from
one list of the cluster's pods, read when it is needed and not kept: the operator watches its own pods alone), and if
there is room for all, all gates are lifted; else it is looked for again, every 5 s at first and every minute at last,
and when a node changes. Groups of several Swarms are let start one after the other, and pods that wait for a node count
as placed. Somebody else's pods may still take the room first, or a rule that the operator does not know keep a pod out:
a group of which some have had a node for 30 s and some have none has failed. Those that run are marked, drained and
deleted with the others, the group is made anew behind its gate, and waits 5 s, 10 s and so on, 5 min at most, before
it is tried again. Where the operator may not list the cluster's pods (namespaced mode) it can only try: it lifts the
gates, and what is said above for a group that fails holds.

`Kueue` groups are of a fixed size and delete what exceeds it, so only the start is a group (label pod-group-name,
annotation pod-group-total-count); what comes later has the queue's label alone and is a workload by itself. The pods
bring Kueue's gate with them: should Kueue not manage them, they wait and say so, instead of starting one by one. The
role-hash is given, for Kueue's own covers the affinity, which differs between pods that avoid different nodes. Agents
that leave a group stay as terminating objects, with Kueue's finalizer, until Kueue has settled the group; their quota
is free when they have succeeded. A group is not retriable (annotation retriable-in-group): else Kueue would keep one of
which an agent has failed for ever, waiting for a replacement in the group, and its pods with it.

`Volcano` and `Coscheduling` have a PodGroup; its minMember is the whole group until the first agent has a node, and 1
from then on, for what is said above.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from swarm_operator import names
from swarm_operator.actions import Action, EnsurePodGroup, FailGang, LiftGate, StartGang
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.capacity import Demand
from swarm_operator.objects import metadata
from swarm_operator.placement import NO_EXTRAS, Extras, requests
from swarm_operator.rollout import Agent
from swarm_operator.views import SwarmView

__all__ = ["GATES", "KUEUE_GATE", "GangPlan", "GangView", "GroupState", "Label", "Survey", "decide_gang", "pod_group"]

#: How long some of a group may have a node while others have none.
PATIENCE: Final = 30.0
#: Seconds between two looks for room, at first and at most.
_POLL: Final = (5.0, 60.0)
#: Seconds before the second attempt, and before any at most.
_RETRY: Final = (5.0, 300.0)
#: How soon a PodGroup that could not be written is tried again, and how often one that could is looked at.
_GROUP_RETRY: Final = 15.0
_GROUP_CHECK: Final = 240.0

KUEUE_QUEUE: Final = "kueue.x-k8s.io/queue-name"
KUEUE_GROUP: Final = "kueue.x-k8s.io/pod-group-name"
KUEUE_COUNT: Final = "kueue.x-k8s.io/pod-group-total-count"
KUEUE_ROLE: Final = "kueue.x-k8s.io/role-hash"
KUEUE_RETRIABLE: Final = "kueue.x-k8s.io/retriable-in-group"
KUEUE_MANAGED: Final = "kueue.x-k8s.io/managed"
KUEUE_GATE: Final = "kueue.x-k8s.io/admission"
VOLCANO_GROUP: Final = "scheduling.k8s.io/group-name"
VOLCANO_QUEUE: Final = "scheduling.volcano.sh/queue-name"
VOLCANO_NUMA: Final = "volcano.sh/numa-topology-policy"
COSCHEDULING_GROUP: Final = "scheduling.x-k8s.io/pod-group"
_API: Final = {"Volcano": "scheduling.volcano.sh/v1beta1", "Coscheduling": "scheduling.x-k8s.io/v1alpha1"}
_NUMA: Final = {"Preferred": "best-effort", "Required": "single-numa-node"}

#: Gates whose pods have not started, whoever lifts them.
GATES: Final = frozenset({names.GANG_GATE, KUEUE_GATE})


class Label(NamedTuple):
    """What a pod's annotation says of its group."""

    group: str
    size: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.group}/{self.size}/{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> Label | None:
        """None when it is no such label."""
        parts = text.split("/")
        if len(parts) != 3 or not parts[1].isdecimal() or not parts[2].isdecimal():
            return None
        return cls(parts[0], int(parts[1]), int(parts[2]))


@dataclass(frozen=True)
class Survey:
    """The last look for a group's room. `error`: it could not be looked for, and why."""

    group: str
    at: float
    room: int = 0
    error: str = ""


@dataclass(frozen=True)
class GroupState:
    """The PodGroup as it was written or found last: a hash of its manifest, or why it could not be."""

    digest: str
    at: float
    error: str = ""


@dataclass(frozen=True)
class GangView:
    """What was observed for one Swarm's gang."""

    survey: Survey | None = None
    group: GroupState | None = None


@dataclass
class GangPlan:
    """What the gang means for the compute agents."""

    extras: Extras = NO_EXTRAS
    actions: list[Action] = field(default_factory=list)
    #: To be drained or deleted, with the reason.
    withdraw: list[tuple[Agent, str]] = field(default_factory=list)
    #: No compute pod is to be made now.
    hold: bool = False
    #: Why it has not started, for people, and in one word.
    waiting: str = ""
    reason: str = ""
    requeue: float | None = None

    def wait(self, reason: str, text: str, again_in: float | None = None) -> None:
        self.reason, self.waiting = reason, text
        if again_in is not None:
            self.requeue = again_in if self.requeue is None else min(self.requeue, again_in)


def decide_gang(
    swarm: SwarmView, spec: SwarmSpec, agents: Iterable[Agent], count: int, revision: str, seen: GangView, now: float
) -> GangPlan:
    """`agents` are the compute agents, `count` how many are wanted, `seen` what was observed of the gang before."""
    kind = spec.scheduling.gang
    agents = list(agents)
    alive = [agent for agent in agents if agent.alive]
    if kind == "None":
        return _ungated(alive)
    if count == 0:
        return GangPlan()
    if kind == "Operator":
        return _operator(swarm, spec, agents, alive, count, revision, seen, now)
    if kind == "Kueue":
        return _kueue(swarm, spec, agents, alive, count, revision)
    return _pod_group(swarm, spec, alive, count, seen, now)


def _started(alive: Iterable[Agent]) -> bool:
    return any(agent.pod.node for agent in alive)


def _ungated(alive: Iterable[Agent]) -> GangPlan:
    """Pods that wait behind our gate although no gang is wanted any more."""
    return GangPlan(actions=[_lift(agent) for agent in alive if names.GANG_GATE in agent.pod.gates])


def _lift(agent: Agent) -> LiftGate:
    return LiftGate("Pod", agent.pod.name, agent.pod.uid)


def _new_group(swarm: SwarmView, agents: Iterable[Agent]) -> str:
    """A name that no earlier group of this swarm has had: another start has another generation, or later pods."""
    latest = max((agent.name.incarnation for agent in agents), default=-1)
    text = f"{swarm.uid}/{swarm.generation}/{latest}".encode()
    return f"{swarm.name[:50].rstrip('-.')}-{hashlib.blake2b(text, digest_size=4).hexdigest()}"


def _group_of(
    swarm: SwarmView, agents: Sequence[Agent], alive: Sequence[Agent], size: int, revision: str, attempt: int
) -> tuple[Label, list[tuple[Agent, str]]]:
    """The group that new pods join, and the pods that wait in another one: they are made anew."""
    fitting: dict[Label, int] = {}
    for agent in alive:
        label = Label.parse(agent.pod.gang)
        if label and label.size == size and agent.pod.revision == revision:
            fitting[label] = fitting.get(label, 0) + 1
    if fitting:
        chosen = min(fitting, key=lambda label: (-fitting[label], label))
    else:
        chosen = Label(_new_group(swarm, agents), size, attempt)
    others = [
        (agent, f"it waits in a group of another size than {size}")
        for agent in alive
        if not agent.pod.node and Label.parse(agent.pod.gang) != chosen
    ]
    return chosen, others


# -- the operator's own gate -----------------------------------------------------------------------------------------


def _operator(
    swarm: SwarmView,
    spec: SwarmSpec,
    agents: Sequence[Agent],
    alive: Sequence[Agent],
    count: int,
    revision: str,
    seen: GangView,
    now: float,
) -> GangPlan:
    found = GangPlan()
    failed = {agent.pod.gang for agent in alive if agent.pod.gang_failed}
    if failed:
        # All of that group, and none before each of them is marked: what was left of it unmarked, when those that were
        # have gone, would pass for a group that is whole.
        leaving = [agent for agent in alive if agent.pod.gang in failed]
        unmarked = [agent for agent in leaving if not agent.pod.gang_failed]
        if unmarked:
            found.actions += [FailGang("Pod", agent.pod.name, agent.pod.uid) for agent in unmarked]
        else:
            found.withdraw = [(agent, "its group did not start as a whole") for agent in leaving]
        found.hold = True
        found.wait("GangFailed", "a group that did not start as a whole is taken back")
        return found
    broken = _broken(alive, now, found)
    if broken:
        found.actions += [FailGang("Pod", agent.pod.name, agent.pod.uid) for agent in broken]
        found.hold = True
        placed = sum(bool(agent.pod.node) for agent in broken)
        found.wait("GangFailed", f"{placed} of {len(broken)} agents of a group have a node and the others find none")
        return found
    gated = [agent for agent in alive if names.GANG_GATE in agent.pod.gates]
    let_go = {agent.pod.gang for agent in alive if names.GANG_GATE not in agent.pod.gates}
    if _started(alive):
        found.actions += [_lift(agent) for agent in gated]
        return found
    attempt = max((_attempt(agent, now) for agent in agents), default=0)
    label, found.withdraw = _group_of(swarm, agents, alive, count, revision, attempt)
    found.extras = Extras(annotations={names.ANNOTATION_GANG: str(label)}, gates=(names.GANG_GATE,))
    if str(label) in let_go:
        # lifting was interrupted: the others follow, and so does who was made for one that vanished
        found.actions += [_lift(agent) for agent in gated if agent.pod.gang == str(label)]
        found.wait("GangPlacing", f"{count} agents were let start and wait for the scheduler")
        return found
    group = [agent for agent in gated if agent.pod.gang == str(label)]
    if len(group) != count:
        found.wait("GangForming", f"{len(group)} of {count} agents of the group are there")
        return found
    _look(spec, label, group, seen.survey, now, found)
    return found


def _broken(alive: Sequence[Agent], now: float, found: GangPlan) -> list[Agent]:
    """The agents of groups of which some have had a node for too long and others have none."""
    groups: dict[str, list[Agent]] = {}
    for agent in alive:
        if agent.pod.gang:
            groups.setdefault(agent.pod.gang, []).append(agent)
    out: list[Agent] = []
    for group in groups.values():
        placed = [agent for agent in group if agent.pod.node]
        if not placed or len(placed) == len(group):
            continue
        left = min(agent.pod.bound or agent.pod.created for agent in placed) + PATIENCE - now
        if left > 0:
            found.wait("GangPlacing", f"{len(placed)} of {len(group)} agents of the group have a node", left)
        else:
            out += group
    return out


def _attempt(agent: Agent, now: float) -> int:
    label = Label.parse(agent.pod.gang)
    if label is None:
        return 0
    return label.attempt + 1 if agent.pod.gang_failed else label.attempt if agent.alive else 0


def _look(
    spec: SwarmSpec, label: Label, group: Sequence[Agent], survey: Survey | None, now: float, found: GangPlan
) -> None:
    """A complete group: let it start if there is room, as soon as its time has come."""
    since = max(agent.pod.created for agent in group)
    if label.attempt:
        left = since + min(_RETRY[0] * 2.0 ** (label.attempt - 1), _RETRY[1]) - now
        if left > 0:
            found.wait("GangBackOff", f"attempt {label.attempt} to start all {label.size} agents has failed", left)
            return
    known = survey if survey and survey.group == str(label) else None
    if known:
        text = known.error or f"there is room for {known.room} of {label.size} agents: none is started"
        poll = min(max((now - since) / 10, _POLL[0]), _POLL[1])
        found.wait("GangWaiting", text, max(known.at + poll - now, 0.05))
        if now < known.at + poll:
            return
    else:
        found.wait("GangWaiting", f"room is looked for, for all {label.size} agents")
    found.actions.append(start_gang(spec, label, group))


def start_gang(spec: SwarmSpec, label: Label, group: Sequence[Agent]) -> StartGang:
    """The action that looks for the room of a group, and lets it start."""
    topology = spec.scheduling.topology
    bound = topology.required and topology.placement != "Any"
    demand = Demand(
        count=label.size,
        request=requests(spec),
        key=topology.key if bound else "",
        spread=topology.max_skew if topology.placement == "Spread" else 0,
    )
    pods = tuple((agent.pod.name, agent.pod.uid) for agent in group)
    avoid = tuple(sorted({node for agent in group for node in agent.pod.avoids}))
    return StartGang("Gang", label.group, str(label), pods, demand, avoid)


# -- other schedulers' groups ----------------------------------------------------------------------------------------


def _kueue(
    swarm: SwarmView, spec: SwarmSpec, agents: Sequence[Agent], alive: Sequence[Agent], count: int, revision: str
) -> GangPlan:
    found = GangPlan()
    queue = {KUEUE_QUEUE: spec.scheduling.queue_name or ""}
    waiting = [agent for agent in alive if KUEUE_GATE in agent.pod.gates]
    if _started(alive):
        found.extras = Extras(labels=queue, gates=(KUEUE_GATE,))
    else:
        label, found.withdraw = _group_of(swarm, agents, alive, count, revision, 0)
        annotations = {
            KUEUE_COUNT: str(count),
            KUEUE_ROLE: revision,
            KUEUE_RETRIABLE: "false",
            names.ANNOTATION_GANG: str(label),
        }
        found.extras = Extras({**queue, KUEUE_GROUP: label.group}, annotations, (KUEUE_GATE,))
    strangers = [agent for agent in waiting if agent.pod.labels.get(KUEUE_MANAGED) != "true"]
    if strangers:
        found.wait(
            "GangSchedulerMissing",
            f"Kueue does not manage {len(strangers)} agents: install it with the integration `pod`, and let its "
            f"managedJobsNamespaceSelector match namespace {swarm.namespace}",
        )
    elif waiting:
        found.wait("GangWaiting", f"{len(waiting)} agents wait for Kueue to admit them to queue {queue[KUEUE_QUEUE]}")
    return found


def pod_group(swarm: SwarmView, spec: SwarmSpec, members: int) -> dict[str, Any]:
    """The PodGroup of Volcano or of the coscheduling plugin."""
    kind, scheduling = spec.scheduling.gang, spec.scheduling
    body: dict[str, Any] = {"minMember": members}
    if members > 1:
        # by these Volcano lets a group queue before its pods are looked at, and coscheduling refuses one early
        body["minResources"] = _totals(spec, members)
    if kind == "Volcano":
        if scheduling.queue_name:
            body["queue"] = scheduling.queue_name
        if scheduling.priority_class_name:
            body["priorityClassName"] = scheduling.priority_class_name
    return {
        "apiVersion": _API[kind],
        "kind": "PodGroup",
        "metadata": metadata(swarm, names.pod_group(swarm.name)),
        "spec": body,
    }


def _totals(spec: SwarmSpec, members: int) -> dict[str, str]:
    each = {name: amount for name, amount in requests(spec).items() if name != "pods"}
    return {name: f"{amount * members}{'m' if name == 'cpu' else ''}" for name, amount in each.items()}


def digest_of(manifest: dict[str, Any]) -> str:
    """The same for equal manifests."""
    return hashlib.blake2b(json.dumps(manifest, sort_keys=True).encode(), digest_size=8).hexdigest()


def _pod_group(
    swarm: SwarmView, spec: SwarmSpec, alive: Sequence[Agent], count: int, seen: GangView, now: float
) -> GangPlan:
    found, kind = GangPlan(), spec.scheduling.gang
    group = names.pod_group(swarm.name)
    if kind == "Volcano":
        annotations = {VOLCANO_GROUP: group}
        if spec.scheduling.queue_name:
            annotations[VOLCANO_QUEUE] = spec.scheduling.queue_name
        if spec.scheduling.topology.numa != "Any":
            annotations[VOLCANO_NUMA] = _NUMA[spec.scheduling.topology.numa]
        found.extras = Extras(annotations=annotations, scheduler="volcano")
    else:
        found.extras = Extras(labels={COSCHEDULING_GROUP: group})
    manifest = pod_group(swarm, spec, 1 if _started(alive) else count)
    digest, state = digest_of(manifest), seen.group
    current = state if state and state.digest == digest else None
    limit = _GROUP_RETRY if current and current.error else _GROUP_CHECK
    if current is None or now >= current.at + limit:
        found.actions.append(EnsurePodGroup("PodGroup", group, manifest, digest))
    elif current.error:
        found.requeue = current.at + limit - now
    if current is None or current.error:
        # the next group's pods wait for it, and so do those of one that is only changed: it takes a moment
        found.hold = True
    if current is None:
        found.wait("GangForming", "the PodGroup is being written")
    elif current.error:
        found.wait("GangSchedulerMissing", current.error)
    return found
