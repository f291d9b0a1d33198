"""The planner: one frozen snapshot in, the next actions out. No I/O, no clock, no randomness.

It is level-triggered: everything is decided anew from the spec and from what is observed, and nothing is remembered
between two plans; a plan that was lost, done twice or half done is no different from one that was never made. The
status is not read. What can't be computed from the snapshot (keys, the answers of agents) is an action.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from swarm_agents.config import Role, Settings, settings_revision
from swarm_operator import history, names, network, objects, troubles
from swarm_operator.actions import (
    Action,
    Apply,
    CreatePod,
    DeletePod,
    DrainPod,
    EnsureKeys,
    Plan,
    PushSettings,
    RepairPod,
    ResumePod,
    RolePlan,
)
from swarm_operator.api.fields import seconds
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.drift import as_wanted, excess, waits_for
from swarm_operator.foresight import asks_again, foresee
from swarm_operator.keyrecord import KEY_NAMES, NEXT_NAMES, RECORD
from swarm_operator.nodes import kept_nodes, losses, matching_nodes, may_start
from swarm_operator.pinning import asks
from swarm_operator.placing import Placing, remembered, settle
from swarm_operator.pods import pod_manifest
from swarm_operator.private_board import in_pod
from swarm_operator.resource_plan import decide_resource
from swarm_operator.rollback import course_of, judge
from swarm_operator.rollout import Agent, Decision, Target, budget, decide
from swarm_operator.rotation import turn
from swarm_operator.settings import hubs_of, settings_of
from swarm_operator.snapshot import Snapshot
from swarm_operator.views import PodView

__all__ = ["agents_of", "plan"]

#: How long a push that failed is put off, at first and at most.
_PUSH_RETRY = 0.5
_PUSH_RETRY_MAX = 30.0


def agents_of(snapshot: Snapshot, lost: Collection[str] = ()) -> list[Agent]:
    """The swarm's own pods: of this Swarm's UID, and named as the operator names them. `lost` are nodes."""
    known = snapshot.agents_by_lost.get(key := frozenset(lost))
    if known is not None:
        return [*known]
    found = []
    for pod in snapshot.pods:
        name = names.parse_pod_name(pod.name, snapshot.swarm.name)
        if name and _is_own(pod, snapshot.swarm.uid):
            found.append(Agent(pod, name, snapshot.report(pod), pod.node in lost))
    snapshot.agents_by_lost[key] = tuple(found)
    return found


def _is_own(pod: PodView, uid: str) -> bool:
    """By owner; a pod whose owner was edited away is known by its environment, which can't be edited."""
    return uid in pod.owners or (not pod.owners and pod.swarm_uid == uid)


def plan(snapshot: Snapshot, now: float) -> Plan:
    """The next actions for one Swarm. `now` is in seconds since the epoch."""
    spec, swarm = snapshot.spec, snapshot.swarm
    if spec is None or swarm.deleting or snapshot.refusals(spec):
        # Refused or going: nothing is touched. The garbage collector sees to a Swarm that is deleted.
        agents = agents_of(snapshot)
        return Plan(
            compute=_counts(agents, Role.COMPUTE, 0, ""),
            standby=_counts(agents, Role.STANDBY, 0, ""),
            resource=_counts(agents, Role.RESOURCE, 0, ""),
        )
    course = course_of(snapshot, spec)
    spec, revision = course.spec, course.revision
    missing = losses(spec, snapshot.nodes, snapshot.gone_nodes, now)
    agents = agents_of(snapshot, missing.lost)
    by_role = {role: [agent for agent in agents if agent.name.role is role] for role in Role}
    taken = _foreign_names(snapshot, agents)

    compute, standby = (_target(spec, swarm.name, role, revision) for role in (Role.COMPUTE, Role.STANDBY))
    refused = remembered(by_role, not spec.suspend, now)
    compute, standby = (
        replace(part, kept=refused.kept, foreseen=foresee(spec, by_role[part.role], part, now))
        for part in (compute, standby)
    )
    there = matching_nodes(spec, snapshot.nodes) if snapshot.nodes_known else kept_nodes(by_role[Role.RESOURCE])
    nodes = {} if spec.suspend or in_pod(spec) else there
    resource = _target(spec, swarm.name, Role.RESOURCE, revision, nodes=len(nodes))
    resource = replace(resource, foreseen=foresee(spec, by_role[Role.RESOURCE], resource, now))
    decisions = {
        Role.COMPUTE: decide(compute, by_role[Role.COMPUTE], now),
        Role.STANDBY: decide(standby, by_role[Role.STANDBY], now),
    }
    decisions[Role.RESOURCE], pinned = decide_resource(resource, by_role[Role.RESOURCE], nodes, now)
    targets = {Role.COMPUTE: compute, Role.STANDBY: standby}
    placing = settle(snapshot, spec, revision, by_role, targets, decisions, refused, now)

    going = {agent.pod.uid for d in decisions.values() for agent in (*d.drain, *(agent for agent, _ in d.delete))}
    # A hub in a pod that drains still owes others the answers to what it was sent; it sends word that it takes no more.
    ending = {agent.pod.uid for decision in decisions.values() for agent, _ in decision.delete}
    having_hubs = [
        agent
        for agent in by_role[Role.COMPUTE if in_pod(spec) else Role.RESOURCE]
        if agent.alive and agent.running and not agent.lost and agent.pod.uid not in (ending if in_pod(spec) else going)
    ]
    hubs = [door for agent in having_hubs for door in hubs_of(agent.pod, spec, snapshot.keys)]
    wanted_nodes = sum(may_start(node) or _has_agent(by_role[Role.RESOURCE], name) for name, node in nodes.items())
    verdict = judge(
        snapshot,
        course,
        {
            Role.COMPUTE: (by_role[Role.COMPUTE], compute.count),
            Role.STANDBY: (by_role[Role.STANDBY], standby.count),
            Role.RESOURCE: (by_role[Role.RESOURCE], wanted_nodes),
        },
        now,
    )
    settings = settings_of(swarm, spec, revision, hubs)
    wanted_settings = settings_revision(settings)

    actions: list[Action] = []
    blocked: list[str] = []
    actions += _children(snapshot, spec, settings, compute, blocked)
    actions += history.actions(snapshot, course, verdict, {agent.pod.revision for agent in agents}, blocked, now)
    requeue: list[float] = [wait for wait in (missing.again_in, verdict.again_in) if wait is not None]
    actions += placing.actions
    requeue += [placing.requeue] if placing.requeue is not None else []
    for decision in decisions.values():
        actions += _pod_actions(snapshot, spec, revision, decision, pinned, taken, placing)
        blocked += decision.blocked
        requeue += [decision.requeue] if decision.requeue is not None else []
    actions += _repairs(snapshot, agents)
    pushes, wait, acknowledged, heard = _pushes(agents, going, wanted_settings, now)
    asked, look_again = asks(spec, agents, going, now)
    fearing, fear_again = asks_again(spec, agents, going, now)
    actions += [*pushes, *asked, *fearing]
    turned = turn(swarm, spec, snapshot.keys, (a for a in having_hubs if a.pod.ready), acknowledged, now)
    actions += turned.actions
    silent = troubles.look_again(snapshot.pods, now)
    requeue += [delay for delay in (wait, look_again, fear_again, silent, turned.again_in) if delay is not None]
    return Plan(
        actions=tuple(sorted(actions, key=lambda action: action.stage)),
        requeue_after=min(requeue, default=None),
        revision=revision,
        course=course,
        settings=settings,
        settings_revision=wanted_settings,
        acknowledged=acknowledged,
        heard=heard,
        turn=turned,
        compute=_counts(agents, Role.COMPUTE, compute.count, revision),
        standby=_counts(agents, Role.STANDBY, standby.count, revision),
        resource=_counts(agents, Role.RESOURCE, wanted_nodes, revision),
        placing=placing,
        blocked=tuple(blocked),
    )


def _has_agent(agents: Iterable[Agent], node: str) -> bool:
    return any(agent.alive and node in (agent.pod.target_node, agent.pod.node) for agent in agents)


def _counts(agents: Iterable[Agent], role: Role, desired: int, revision: str) -> RolePlan:
    alive = [agent for agent in agents if agent.name.role is role and agent.alive]
    return RolePlan(
        desired=desired,
        current=len(alive),
        ready=sum(agent.available for agent in alive),
        updated=sum(agent.pod.revision == revision for agent in alive),
        draining=sum(agent.draining for agent in alive),
    )


def _target(spec: SwarmSpec, swarm: str, role: Role, revision: str, *, nodes: int = 0) -> Target:
    count = {Role.COMPUTE: spec.compute.replicas, Role.STANDBY: spec.compute.standby, Role.RESOURCE: nodes}[role]
    count = 0 if spec.suspend else count
    surge = budget(spec.rollout.max_surge, count, up=True)
    unavailable = budget(spec.rollout.max_unavailable, count, up=False)
    return Target(
        swarm=swarm,
        role=role,
        count=count,
        revision=revision,
        surge=surge,
        # percentages of a small count can both come to nothing; something has to move all the same
        # on a full node a resource agent has to leave before its successor can come
        unavailable=max(1, unavailable) if surge == 0 or role is Role.RESOURCE else unavailable,
        paused=spec.rollout.paused,
        drain_timeout=seconds(spec.runtime.drain_timeout),
    )


def _foreign_names(snapshot: Snapshot, agents: Iterable[Agent]) -> frozenset[str]:
    """Names of pods that carry the swarm's label and are not its own: of an earlier Swarm of the same name."""
    own = {agent.pod.uid for agent in agents}
    return frozenset(pod.name for pod in snapshot.pods if pod.uid not in own)


def _pod_actions(
    snapshot: Snapshot,
    spec: SwarmSpec,
    revision: str,
    decision: Decision,
    pinned: dict[str, str],
    taken: frozenset[str],
    placing: Placing,
) -> list[Action]:
    actions: list[Action] = []
    for name in decision.create:
        instead = decision.instead.get(name)
        node = pinned.get(str(name), "")
        while str(name) in taken:
            name = name._replace(incarnation=name.incarnation + 1)
        manifest = pod_manifest(snapshot.swarm, spec, name, revision, node=node, extras=placing.of(name.role))
        if instead:
            manifest["metadata"].setdefault("annotations", {})[names.ANNOTATION_INSTEAD] = instead
        actions.append(CreatePod("Pod", str(name), manifest))
    for agent in decision.drain:
        pod, again = agent.pod, agent.report is not None and agent.report.drain_since is not None
        actions.append(
            DrainPod("Pod", pod.name, pod.uid, pod.ip, pod.restarts, again, pod.ports, decision.why.get(pod.uid, ""))
        )
    for agent in decision.resume:
        pod = agent.pod
        actions.append(ResumePod("Pod", pod.name, pod.uid, pod.ip, pod.restarts, pod.ports))
    for agent, why in decision.delete:
        state = agent.report.state if agent.report and agent.alive and agent.running else ""
        actions.append(DeletePod("Pod", agent.pod.name, agent.pod.uid, why, state))
    return actions


def _repairs(snapshot: Snapshot, agents: Iterable[Agent]) -> list[Action]:
    """Labels and owners that were edited."""
    actions: list[Action] = []
    for agent in agents:
        labels = names.pod_labels(agent.name, agent.pod.revision)
        whole = labels.items() <= agent.pod.labels.items()
        if agent.pod.deleting or (whole and snapshot.swarm.uid in agent.pod.owners):
            continue
        meta = objects.metadata(snapshot.swarm, agent.pod.name, labels)
        actions.append(RepairPod("Pod", agent.pod.name, agent.pod.uid, meta))
    return actions


def _pushes(
    agents: Iterable[Agent], going: set[str], wanted: str, now: float
) -> tuple[list[Action], float | None, bool, bool]:
    """Settings for every ready agent that has not acknowledged them, those that failed to take them less often.

    Also whether all of those that are ready have acknowledged them, and whether any has.
    """
    actions: list[Action] = []
    waits: list[float] = []
    acknowledged, heard = True, False
    for agent in agents:
        if agent.lost or not agent.alive or not agent.pod.ready or not agent.running or agent.pod.uid in going:
            continue
        report = agent.report
        if report and report.settings == wanted and not report.failures:
            heard = True
            continue
        acknowledged = False
        if report and report.failures:
            delay = min(_PUSH_RETRY * 2.0 ** min(report.failures - 1, 10), _PUSH_RETRY_MAX)
            wait = report.checked + delay - now
            if wait > 0:
                waits.append(wait)
                continue
        pod = agent.pod
        actions.append(PushSettings("Pod", pod.name, pod.uid, pod.ip, pod.restarts, wanted, pod.ports))
    return actions, min(waits, default=None), acknowledged, heard


def _children(
    snapshot: Snapshot,
    spec: SwarmSpec,
    settings: Settings,
    compute: Target,
    blocked: list[str],
) -> list[Action]:
    """What is neither a pod nor a revision: created and repaired."""
    swarm = snapshot.swarm
    wanted = [
        objects.service_account_manifest(swarm),
        objects.config_map_manifest(swarm, settings),
        objects.agents_service_manifest(swarm, spec),
        objects.api_service_manifest(swarm, spec),
        objects.budget_manifest(swarm, max(0, compute.count - max(1, compute.unavailable))),
        *network.wanted(swarm, spec, snapshot.home),
    ]
    actions: list[Action] = [*network.superfluous(swarm, spec, snapshot.objects)]
    for manifest in wanted:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        observed = snapshot.objects.get((kind, name))
        if waits_for(observed, swarm.uid, blocked):
            continue
        if observed is None:
            actions.append(Apply(kind, name, manifest))
            continue
        remove = excess(manifest, observed.body, objects.EXACT[kind])
        if remove or not as_wanted(manifest, observed):
            actions.append(Apply(kind, name, manifest, exists=True, remove=remove))
    return actions + _keys(snapshot, blocked)


def _keys(snapshot: Snapshot, blocked: list[str]) -> list[Action]:
    name = names.secret(snapshot.swarm.name)
    observed = snapshot.objects.get(("Secret", name))
    if waits_for(observed, snapshot.swarm.uid, blocked):
        return []
    if observed is None:
        return [EnsureKeys("Secret", name, snapshot.keys.missing)]
    manifest = objects.secret_manifest(snapshot.swarm, {})
    have = observed.body.get("data") or {}
    allowed = (*KEY_NAMES, RECORD, *(NEXT_NAMES if snapshot.keys.stage.has_next else ()))
    extra: dict[str, Any] = {key: None for key in have if key not in allowed}
    remove = {"data": extra} if extra else {}
    if snapshot.keys.missing or remove or not as_wanted({**manifest, "data": {}}, observed):
        return [EnsureKeys("Secret", name, snapshot.keys.missing, exists=True, remove=remove)]
    return []
