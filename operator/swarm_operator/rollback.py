"""Which revision is carried out, whether it holds, and when the one before it is gone back to. Pure.

With `rollout.autoRollback` a revision whose agents do not become ready in time is marked as failed (see `history`), and
from then on the swarm runs by the last revision whose agents were all ready: its rolling fields, and the live fields of
the spec as it is. It goes back as it came, within maxSurge and maxUnavailable. There is no way from there to the failed
revision but the user's, so two revisions can't take turns.

A revision is *ready* once each agent that is wanted is of it and has been ready for `PROVEN` seconds; the one before a
new spec also when all its agents are just ready, for otherwise nobody knows whether it was any good when half of it is
replaced. It has *failed* when

- an agent of it is older than `rollout.progressDeadline` and not ready, for more than a moment or again and again;
- its pods ended as failed (refused by their kubelets, evicted) since before that, and no agent of its role is ready;
- the API server has refused its pods for as long (a quota, an admission). Since when is known by the operator that
  tried, so another one gives it as much time again.

Not held against a revision: nodes that are not ready, gates of a scheduler, and agents that find no room when nothing
of the old revision is left that takes it. Nothing is judged while the roll-out is paused or the swarm suspended, nor is
a revision that was ready once: what happens to it later has other reasons.

Without a ready revision to go back to nothing is marked: all stays as without autoRollback. Should it be deleted later,
the failed revision is not rolled out further either: what runs goes on running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from swarm_agents.config import Role
from swarm_operator.api.fields import seconds
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.history import Record, records
from swarm_operator.revision import revision_of, with_rolling
from swarm_operator.rollout import Agent
from swarm_operator.snapshot import Snapshot

__all__ = ["PROVEN", "ROLLED_BACK", "Course", "Verdict", "course_of", "judge", "rolled_back"]

#: How long (seconds) an agent has to be ready before it counts for its revision.
PROVEN: Final = 10.0
#: How long an agent that has its time behind it must not be ready: restarts and hiccups are shorter.
_MOMENT: Final = 30.0
#: An agent that was restarted so often is not ready again and again.
_FLAPS: Final = 3
#: Agents that a reason names.
_NAMED: Final = 3

#: The condition, and its reason where it holds.
ROLLED_BACK: Final = "RolledBack"


@dataclass(frozen=True)
class Course:
    """What is carried out."""

    #: The spec with the rolling fields of `revision`.
    spec: SwarmSpec
    revision: str
    #: As the user wrote it.
    asked_spec: SwarmSpec
    asked: str
    #: Why `asked` is not carried out, or no further; empty: it is.
    failed: str = ""
    #: The revision that would be gone back to, or is; empty: there is none.
    target: str = ""
    #: `asked` was ready once.
    ready: bool = False


@dataclass(frozen=True)
class Verdict:
    """What became of the revision that the spec comes to."""

    ready: bool = False
    #: Why it has failed; empty: it has not.
    failed: str = ""
    #: The revision before it, should that be ready and not be known to be; else empty.
    former: str = ""
    #: In how many seconds this may be another one, if nothing changes.
    again_in: float | None = None


def course_of(snapshot: Snapshot, spec: SwarmSpec) -> Course:
    """Which revision to carry out: that of the spec, unless it is marked as failed."""
    asked, known = revision_of(spec), records(snapshot)
    own = next((record for record in known if record.revision == asked), None)
    newest = own is not None and own.number > max((r.number for r in known if r is not own), default=0)
    failed = own.failed if own and newest and spec.rollout.auto_rollback else ""
    course = Course(spec, asked, spec, asked, failed, ready=bool(own and newest and own.ready))
    for record in reversed(known if spec.rollout.auto_rollback else []):
        if record.ready and record.revision != asked:
            earlier = _usable(snapshot, spec, record)
            if earlier is not None:
                course = replace(course, target=record.revision)
                if failed:
                    course = replace(course, spec=earlier, revision=record.revision)
                break
    if failed and not course.target:
        held = spec.rollout.model_copy(update={"paused": True})
        course = replace(course, spec=spec.model_copy(update={"rollout": held}))
    return course


def _usable(snapshot: Snapshot, spec: SwarmSpec, record: Record) -> SwarmSpec | None:
    earlier = with_rolling(spec, record.part)
    if earlier is None or snapshot.refusals(earlier) or revision_of(earlier) != record.revision:
        return None
    return earlier


def judge(snapshot: Snapshot, course: Course, roles: Mapping[Role, tuple[Sequence[Agent], int]], now: float) -> Verdict:
    """What is to be noted of the revisions. `roles`: the agents of each role, and how many are wanted."""
    spec = course.asked_spec
    if course.failed or course.ready or spec.suspend:
        return Verdict()
    unready = {node.name for node in snapshot.nodes if not node.ready}
    alive = {role: [agent for agent in agents if agent.alive] for role, (agents, _) in roles.items()}
    outdated = {role: any(a.pod.revision != course.asked for a in found) for role, found in alive.items()}
    judged = {
        role: [a for a in found if a.pod.revision == course.asked and not _excused(a, unready, outdated[role])]
        for role, found in alive.items()
    }
    waits: list[float] = []
    ready = (
        not any(outdated.values())
        and any(alive.values())
        and all(len(alive[role]) >= count for role, (_, count) in roles.items())
        and all(not count or any(_settled(a, now) for a in judged[role]) for role, (_, count) in roles.items())
        and all(_settled(agent, now) for found in judged.values() for agent in found)
    )
    if ready:
        return Verdict(ready=True)
    young = [_since(a) + PROVEN - now for found in judged.values() for a in found if a.pod.ready]
    waits += [wait for wait in young if wait > 0]
    failed = ""
    if course.target and spec.rollout.auto_rollback and not spec.rollout.paused:
        failed = _failed(snapshot, course, roles, judged, now, waits)
    return Verdict(failed=failed, former=_former(snapshot, course, alive, unready), again_in=min(waits, default=None))


def _failed(
    snapshot: Snapshot,
    course: Course,
    roles: Mapping[Role, tuple[Sequence[Agent], int]],
    judged: Mapping[Role, Sequence[Agent]],
    now: float,
    waits: list[float],
) -> str:
    deadline = seconds(course.asked_spec.rollout.progress_deadline)
    late: list[Agent] = []
    for role, (agents, _) in roles.items():
        for agent in judged[role]:
            if agent.pod.ready:
                continue
            over = agent.pod.created + deadline
            if agent.pod.restarts < _FLAPS:
                over = max(over, _since(agent) + min(deadline, _MOMENT))
            if over < now:
                late.append(agent)
            else:
                waits.append(over - now + 0.1)
        if not any(_settled(agent, now) for agent in judged[role]):
            late += [
                agent
                for agent in agents
                if agent.pod.phase == "Failed"
                and not agent.pod.deleting
                and agent.pod.revision == course.asked
                and now - agent.pod.created > deadline
            ]
    if late:
        return f"not ready within {deadline:g} s: {_named(late)}"
    if snapshot.refused is not None:
        if now - snapshot.refused.since > deadline:
            return f"its pods were refused for {deadline:g} s: {snapshot.refused.why}"
        waits.append(snapshot.refused.since + deadline - now + 0.1)
    return ""


def _former(snapshot: Snapshot, course: Course, alive: Mapping[Role, Sequence[Agent]], unready: set[str]) -> str:
    """The newest other revision, if all agents are of it and ready: nothing of what the spec asks now is there yet."""
    others = [record for record in records(snapshot) if record.revision != course.asked]
    agents = [agent for found in alive.values() for agent in found if not _excused(agent, unready, False)]
    if not others or others[-1].ready or not agents:
        return ""
    revision = others[-1].revision
    return revision if all(a.pod.revision == revision and a.pod.ready for a in agents) else ""


def _excused(agent: Agent, unready: set[str], outdated: bool) -> bool:
    """Whether that it is not ready has other reasons than its revision."""
    pod = agent.pod
    no_room = not pod.node and pod.reason == "Unschedulable" and not outdated
    return not pod.ready and (agent.lost or pod.node in unready or bool(pod.gates) or no_room)


def _since(agent: Agent) -> float:
    return max(agent.pod.ready_changed, agent.pod.created)


def _settled(agent: Agent, now: float) -> bool:
    return agent.pod.ready and now - _since(agent) >= PROVEN


def _named(agents: Sequence[Agent]) -> str:
    texts = [
        f"{a.pod.name}: {a.pod.reason or a.pod.phase}" + (f" ({a.pod.message})" if a.pod.message else "")
        for a in sorted(agents, key=lambda a: a.name)
    ]
    return "; ".join(texts[:_NAMED]) + (f"; and {len(texts) - _NAMED} more" if len(texts) > _NAMED else "")


def rolled_back(course: Course | None, spec: SwarmSpec | None) -> list[tuple[str, str, str, str]]:
    """The condition RolledBack, where roll-backs are asked for: type, status, reason and message."""
    if spec is None or course is None or not spec.rollout.auto_rollback:
        return []
    if course.failed and course.revision == course.asked:
        text = (
            f"Revision {course.asked} failed ({course.failed}), and no earlier revision that was ready is left: no "
            "further agent is replaced. Correct the spec."
        )
        return [(ROLLED_BACK, "False", "NothingToGoBackTo", text)]
    if course.failed:
        text = (
            f"Revision {course.asked}, which the spec asks for, failed: {course.failed}. The agents run by revision "
            f"{course.revision}, the last that was ready; live fields are taken from the spec. Correct the spec's "
            "rolling fields; to have the same tried again, set rollout.autoRollback to false and back to true."
        )
        return [(ROLLED_BACK, "True", "RevisionFailed", text)]
    if course.target or course.ready:
        return [(ROLLED_BACK, "False", "AsSpecified", "The agents are of the revision that the spec asks for.")]
    text = "No revision was ready yet that could be gone back to."
    return [(ROLLED_BACK, "False", "NothingToGoBackTo", text)]
