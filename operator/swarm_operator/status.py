"""The status of a Swarm. Pure: what was observed, planned and refused in, the status as it should read out.

The transition times of conditions are carried over from the status as it stands: the one thing that is read from it,
and nothing is decided by it. A message names what a user can act on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from swarm_agents.config import Role
from swarm_operator import foresight, names, pod_security, troubles
from swarm_operator.accept import INVALID
from swarm_operator.actions import Plan, RolePlan
from swarm_operator.api.fields import seconds
from swarm_operator.autoscale_status import autoscaling_block, autoscaling_condition
from swarm_operator.keys_status import keys_block, keys_condition
from swarm_operator.pinning import cores_listed
from swarm_operator.placed import placement_conditions
from swarm_operator.plan import agents_of
from swarm_operator.private_board import in_pod
from swarm_operator.rollback import ROLLED_BACK, rolled_back
from swarm_operator.snapshot import Snapshot

__all__ = [
    "ACCEPTED",
    "AGENTS_FAILING",
    "DEGRADED",
    "NO_AGENTS",
    "NO_NODES",
    "PROGRESSING",
    "READY",
    "RUNNING",
    "SUSPENDED",
    "WAITING",
    "leaving_status",
    "status_of",
]

ACCEPTED: Final = "Accepted"
READY: Final = "Ready"
PROGRESSING: Final = "Progressing"
DEGRADED: Final = "Degraded"
#: Also the reason of Ready where it holds.
SUSPENDED: Final = "Suspended"

# Reasons of Ready; kubectl get shows them as the swarm's status.
RUNNING: Final = "Running"
WAITING: Final = "WaitingForAgents"
NO_NODES: Final = "NoNodes"
NO_AGENTS: Final = "NoAgents"
#: Also of Degraded.
NODES_UNREADABLE: Final = "NodesUnreadable"
DELETING: Final = "Deleting"
# Reasons of Suspended.
STOPPING: Final = "Stopping"
NOT_SUSPENDED: Final = "NotSuspended"
# Reasons of Progressing.
ROLLING: Final = "RollingOut"
ROLLING_BACK: Final = "RollingBack"
SCALING: Final = "Scaling"
PUSHING: Final = "PushingSettings"
COMPLETE: Final = "Complete"
PAUSED: Final = "RolloutPaused"
DEADLINE: Final = "ProgressDeadlineExceeded"
# Reasons of Degraded.
AGENTS_FAILING: Final = "AgentsFailing"
BLOCKED: Final = "Blocked"
API_REFUSED: Final = "RequestRefused"
AS_WANTED: Final = "AsWanted"

#: Reasons of a waiting pod that time alone seldom mends.
_STUCK: Final = frozenset(
    {
        "CrashLoopBackOff",
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "Unschedulable",
        "SchedulingGated",
    }
)
_MESSAGE_MAX: Final = 1000
_BLIND: Final = (
    "The operator may not read nodes: resource agents are kept where they are, none is made elsewhere, and agents on "
    "lost nodes are not replaced at once. Grant it list and watch on nodes (ClusterRole agentswarm-operator-nodes of "
    "deploy/rbac/namespaced.yaml), or use transport.sharedMemory.medium Memory, which has no resource agents."
)


def status_of(snapshot: Snapshot, plan: Plan, failures: Sequence[str], now: float) -> dict[str, Any]:
    """The whole status. `failures` are what the API server refused in the last attempt, for people."""
    observed, agents = snapshot.swarm.status, agents_of(snapshot)
    conditions = [
        _accepted(snapshot),
        _ready(snapshot, plan),
        _progressing(snapshot, plan, now),
        _degraded(snapshot, plan, failures, now),
        _suspended(snapshot, plan),
        *rolled_back(plan.course, snapshot.spec),
        *foresight.condition(snapshot.spec, agents, now),
        *autoscaling_condition(snapshot, _refused(snapshot)),
        _pod_security(snapshot),
        keys_condition(snapshot, plan),
        *placement_conditions(snapshot, plan, agents),
    ]
    settings = plan.settings_revision
    audit = observed.get("audit")
    if snapshot.audit:
        audit = {"entries": snapshot.audit.entries, "head": snapshot.audit.head}
    return {
        "observedGeneration": snapshot.swarm.generation,
        "replicas": plan.compute.current,
        "selector": names.selector_text(names.pod_selector(snapshot.swarm.name, Role.COMPUTE)),
        "compute": _role(plan.compute),
        "standby": _role(plan.standby),
        "resource": _role(plan.resource),
        "revision": plan.revision or observed.get("revision", ""),
        "settings": settings or observed.get("settings", ""),
        "cores": cores_listed(agents) if snapshot.spec else [],
        "observedSettings": settings if plan.heard and plan.acknowledged else observed.get("observedSettings", ""),
        "conditions": _with_times(conditions, observed.get("conditions") or [], snapshot.swarm.generation, now),
        **autoscaling_block(snapshot),
        **keys_block(snapshot),
    } | ({"audit": audit} if audit else {})


def leaving_status(snapshot: Snapshot, now: float) -> dict[str, Any]:
    """The status of a Swarm that is being deleted and is held by somebody's finalizer, or by its dependents."""
    observed, swarm = snapshot.swarm.status, snapshot.swarm
    before = [c for c in observed.get("conditions") or [] if c.get("type") not in (READY, PROGRESSING)]
    kept = [(c["type"], c["status"], c["reason"], c.get("message", "")) for c in before]
    text = (
        f"The Swarm is being deleted, by itself or with its namespace {swarm.namespace}: nothing is made for it any "
        "more. To have it again, make it anew once it is gone, in a namespace that stays."
    )
    conditions = [(READY, "False", DELETING, text), (PROGRESSING, "False", DELETING, text), *kept]
    return {
        "observedGeneration": swarm.generation,
        "conditions": _with_times(conditions, observed.get("conditions") or [], swarm.generation, now),
    }


def _role(plan: RolePlan) -> dict[str, int]:
    return {
        "desired": plan.desired,
        "current": plan.current,
        "ready": plan.ready,
        "updated": plan.updated,
        "draining": plan.draining,
    }


_Condition = tuple[str, str, str, str]


def _refused(snapshot: Snapshot) -> tuple[str, str] | None:
    if snapshot.spec is None:
        return INVALID, snapshot.invalid
    found = snapshot.refusals(snapshot.spec)
    return (found[0].reason, "; ".join(map(str, found))) if found else None


def _accepted(snapshot: Snapshot) -> _Condition:
    refused = _refused(snapshot)
    if refused:
        return ACCEPTED, "False", refused[0], f"{refused[1]}. Nothing is changed until the spec is."
    return ACCEPTED, "True", ACCEPTED, "The spec can be carried out."


def _lacking(plan: Plan) -> str:
    parts = [
        f"{part.ready} of {part.desired} {role} agents are ready"
        for role, part in (("compute", plan.compute), ("standby", plan.standby), ("resource", plan.resource))
        if part.ready < part.desired
    ]
    return ", ".join(parts)


def _ready(snapshot: Snapshot, plan: Plan) -> _Condition:
    refused = _refused(snapshot)
    if refused:
        return READY, "False", refused[0], "The spec is not accepted; see the condition Accepted."
    assert snapshot.spec is not None
    if snapshot.spec.suspend:
        return READY, "False", SUSPENDED, "spec.suspend is true."
    if not plan.resource.desired and not in_pod(snapshot.spec) and not snapshot.nodes_known:
        return READY, "False", NODES_UNREADABLE, _BLIND
    if not plan.resource.desired and not in_pod(snapshot.spec):
        return (
            READY,
            "False",
            NO_NODES,
            "No node matches scheduling.nodeSelector, resource.nodeSelector and scheduling.tolerations: label a node "
            "(kubectl label node), tolerate its taints, or change those fields.",
        )
    if not plan.compute.desired and in_pod(snapshot.spec):
        return READY, "False", NO_AGENTS, "Without a compute agent there is no hub: raise compute.replicas."
    lacking = _lacking(plan)
    if lacking:
        return READY, "False", WAITING, f"{lacking}."
    return READY, "True", RUNNING, "All agents are ready."


def _progressing(snapshot: Snapshot, plan: Plan, now: float) -> _Condition:
    refused = _refused(snapshot)
    if refused:
        return PROGRESSING, "False", refused[0], "The spec is not accepted; see the condition Accepted."
    assert snapshot.spec is not None
    parts = (plan.compute, plan.standby, plan.resource)
    deadline = seconds(snapshot.spec.rollout.progress_deadline)
    late = [
        agent.pod.name
        for agent in agents_of(snapshot)
        if agent.alive
        and not agent.pod.ready
        and not agent.pod.restarts
        and agent.pod.revision == plan.revision
        and now - agent.pod.created > deadline
    ]
    if late:
        return PROGRESSING, "False", DEADLINE, f"Not ready for longer than {deadline:g} s: {_some(late)}."
    outdated = sum(part.current - part.updated for part in parts)
    if outdated and (plan.course.spec if plan.course else snapshot.spec).rollout.paused:
        return PROGRESSING, "False", PAUSED, f"{outdated} agents of an older revision are kept while it is paused."
    if outdated and plan.course and plan.course.failed:
        return PROGRESSING, "True", ROLLING_BACK, f"{outdated} agents are still of a revision that failed."
    if outdated:
        return PROGRESSING, "True", ROLLING, f"{outdated} agents are still of an older revision."
    if any(part.current != part.desired or part.ready < part.desired or part.draining for part in parts):
        return PROGRESSING, "True", SCALING, f"{_lacking(plan) or 'Agents are leaving'}."
    if not plan.acknowledged:
        return PROGRESSING, "True", PUSHING, "Agents have not all acknowledged the settings."
    if plan.course and plan.course.failed:
        return PROGRESSING, "False", ROLLED_BACK, "The spec's revision failed; see the condition RolledBack."
    return PROGRESSING, "False", COMPLETE, "Everything is as the spec says."


def _suspended(snapshot: Snapshot, plan: Plan) -> _Condition:
    if snapshot.spec is None or not snapshot.spec.suspend:
        if _refused(snapshot):
            return SUSPENDED, "Unknown", INVALID, "The spec is not accepted; see the condition Accepted."
        return SUSPENDED, "False", NOT_SUSPENDED, "spec.suspend is false."
    left = sum(agent.alive or agent.pod.deleting for agent in agents_of(snapshot))
    if left:
        return SUSPENDED, "False", STOPPING, f"spec.suspend is true; {left} agents are still leaving."
    return SUSPENDED, "True", SUSPENDED, "spec.suspend is true: no agent runs. Set it to false to go on."


def _degraded(snapshot: Snapshot, plan: Plan, failures: Sequence[str], now: float) -> _Condition:
    namespace = snapshot.swarm.namespace
    advice = pod_security.advice(snapshot.spec, failures, namespace)
    if advice:
        return DEGRADED, "True", pod_security.REFUSED, f"{advice}{_some(failures)}"
    if failures:
        known = troubles.of_refusals(snapshot.spec, failures, namespace)
        reason, advice = (known.reason, known.advice) if known else (API_REFUSED, "")
        return DEGRADED, "True", reason, _cut(f"{advice}{_some(failures)}")
    alive = [agent.pod for agent in agents_of(snapshot) if agent.alive]
    spec = plan.course.spec if plan.course else snapshot.spec  # what the pods are made by
    known_of = {pod.name: known for pod, known in troubles.of_pods(spec, alive, namespace, now)} if spec else {}
    stuck = [
        f"{pod.name}: {pod.reason or 'Pending'}" + (f" ({pod.message})" if pod.message else "")
        for pod in alive
        if pod.reason in _STUCK or pod.name in known_of
    ]
    if stuck:
        first = known_of[min(known_of)] if known_of else None
        reason, advice = (first.reason, first.advice) if first else (AGENTS_FAILING, "")
        return DEGRADED, "True", reason, _cut(f"{advice}{_some(stuck)}")
    mute = [
        f"{agent.pod.name}: {agent.report.error}"
        for agent in agents_of(snapshot)
        if agent.alive and agent.pod.ready and agent.report and agent.report.failures > 3
    ]
    if mute:
        return DEGRADED, "True", AGENTS_FAILING, f"No answer to settings: {_some(mute)}"
    if plan.blocked:
        return DEGRADED, "True", BLOCKED, _some(plan.blocked)
    if not snapshot.nodes_known and snapshot.spec and not in_pod(snapshot.spec):
        return DEGRADED, "True", NODES_UNREADABLE, _BLIND
    if plan.course and plan.course.failed:
        return DEGRADED, "True", ROLLED_BACK, "The spec's revision failed; see the condition RolledBack."
    return DEGRADED, "False", AS_WANTED, "Nothing is wrong."


def _pod_security(snapshot: Snapshot) -> _Condition:
    refused = _refused(snapshot)
    if refused or snapshot.spec is None:
        reason = refused[0] if refused else INVALID
        return pod_security.POD_SECURITY, "Unknown", reason, "The spec is not accepted; see the condition Accepted."
    return pod_security.level(snapshot.spec, snapshot.swarm.namespace)


def _some(texts: Iterable[str]) -> str:
    found = sorted(texts)
    return _cut("; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else ""))


def _cut(text: str) -> str:
    return text if len(text) <= _MESSAGE_MAX else text[: _MESSAGE_MAX - 1] + "…"


def _with_times(
    conditions: Iterable[_Condition], observed: Iterable[dict[str, Any]], generation: int, now: float
) -> list[dict[str, Any]]:
    before = {condition.get("type"): condition for condition in observed}
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    out = []
    for kind, status, reason, message in conditions:
        was = before.get(kind)
        since = was.get("lastTransitionTime") if was and was.get("status") == status else None
        out.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": since or stamp,
                "observedGeneration": generation,
            }
        )
    return out
