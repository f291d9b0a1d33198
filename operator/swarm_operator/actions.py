"""What a plan is made of: values that say what to do to whom, and `stage`, which says before what.

Each action may be done twice, and any of them may fail: the next plan is made from what is then observed. Deletions
name a UID, so that a stale plan can't hit a successor of the same name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from swarm_agents.config import AGENT_PORT, Settings
from swarm_operator.capacity import Demand

if TYPE_CHECKING:
    from swarm_operator.keyrecord import Record
    from swarm_operator.placing import Placing
    from swarm_operator.rollback import Course
    from swarm_operator.rotation import Turn

__all__ = [
    "Action",
    "Apply",
    "AskAgent",
    "CreatePod",
    "Delete",
    "DeletePod",
    "DrainPod",
    "EnsureKeys",
    "EnsurePodGroup",
    "FailGang",
    "LiftGate",
    "MarkRevision",
    "Plan",
    "PushSettings",
    "RepairPod",
    "ResumePod",
    "RolePlan",
    "StartGang",
    "TurnKeys",
]


@dataclass(frozen=True)
class Action:
    """Something to do. Actions of one stage may be done at once; a later stage begins when the earlier one is done."""

    stage: ClassVar[int] = 0
    kind: str
    name: str

    def describe(self) -> str:
        """One line for people."""
        return f"{type(self).__name__} {self.kind}/{self.name}"


@dataclass(frozen=True)
class Apply(Action):
    """Make a child be as `manifest` says; `remove` is a merge patch that takes away what others added."""

    manifest: dict[str, Any] = field(repr=False)
    #: Whether one was observed: a new one must not take over an object that is someone else's.
    exists: bool = False
    remove: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        return f"{'Repair' if self.exists else 'Create'} {self.kind}/{self.name}"


@dataclass(frozen=True)
class MarkRevision(Apply):
    """Note on a ControllerRevision what became of it: `outcome` is ready or failed, `why` is for people."""

    outcome: str = ""
    why: str = ""

    def describe(self) -> str:
        return f"Mark {self.kind}/{self.name} as {self.outcome}" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True)
class EnsureKeys(Action):
    """Make the Secret hold valid keys; `missing` are those that are not."""

    missing: tuple[str, ...] = ()
    #: Base64 data of the Secret's valid keys is taken from the object itself, so that no plan carries a secret.
    exists: bool = False
    remove: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        return f"Ensure {self.kind}/{self.name}" + (f" ({', '.join(self.missing)})" if self.missing else "")


@dataclass(frozen=True)
class TurnKeys(Action):
    """Take the renewal of the keys to its next stage, if the Secret is still in the one that was observed."""

    #: After the children: the Secret is whole then.
    stage: ClassVar[int] = 1
    before: Record
    to: Record

    def describe(self) -> str:
        return f"Renew the keys in {self.kind}/{self.name}: from {self.before.stage} to {self.to.stage}"


@dataclass(frozen=True)
class CreatePod(Action):
    """Create a pod; that it is there already is success."""

    stage: ClassVar[int] = 1
    manifest: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class RepairPod(Action):
    """Give a pod its labels and owner back. The rest of a pod can't be edited in a way that matters."""

    stage: ClassVar[int] = 1
    uid: str
    metadata: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class EnsurePodGroup(Action):
    """Have the gang scheduler's PodGroup be as `manifest` says; what became of it is an observation."""

    manifest: dict[str, Any] = field(repr=False)
    digest: str

    def describe(self) -> str:
        return f"Ensure {self.kind}/{self.name} for {self.manifest['spec']['minMember']} agents"


@dataclass(frozen=True)
class StartGang(Action):
    """Let all pods of a complete group start if there is room for all, and note how much there is if not."""

    stage: ClassVar[int] = 1
    label: str
    #: Names and UIDs.
    pods: tuple[tuple[str, str], ...] = field(repr=False)
    demand: Demand
    #: Nodes on which they may not be placed.
    avoid: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"Start gang {self.name} if there is room for all {self.demand.count} agents"


@dataclass(frozen=True)
class LiftGate(Action):
    """Let one pod of a group be placed whose others were."""

    stage: ClassVar[int] = 1
    uid: str


@dataclass(frozen=True)
class FailGang(Action):
    """Note on a pod that its group did not start as a whole, so that all of it is taken back."""

    stage: ClassVar[int] = 1
    uid: str


@dataclass(frozen=True)
class PushSettings(Action):
    """Hand a running agent the settings, and learn how it is."""

    stage: ClassVar[int] = 2
    uid: str
    ip: str
    restarts: int
    revision: str
    #: Of the pod's agents; see `PodView.ports`.
    ports: tuple[int, ...] = (AGENT_PORT,)


@dataclass(frozen=True)
class AskAgent(Action):
    """Ask an agent how it is, and tell it nothing."""

    stage: ClassVar[int] = 2
    uid: str
    ip: str
    restarts: int
    ports: tuple[int, ...] = (AGENT_PORT,)


@dataclass(frozen=True)
class DrainPod(Action):
    """Ask an agent to claim nothing more; its answer says whether it is empty."""

    stage: ClassVar[int] = 2
    uid: str
    ip: str
    restarts: int
    #: It was asked before, and is asked whether it is empty by now.
    again: bool = False
    #: Of the pod's agents, in the order in which they drain.
    ports: tuple[int, ...] = (AGENT_PORT,)
    why: str = ""


@dataclass(frozen=True)
class ResumePod(Action):
    """Let an agent that was asked to drain claim tasks again."""

    stage: ClassVar[int] = 2
    uid: str
    ip: str
    restarts: int
    ports: tuple[int, ...] = (AGENT_PORT,)


@dataclass(frozen=True)
class DeletePod(Action):
    """Delete one incarnation of a pod."""

    stage: ClassVar[int] = 3
    uid: str
    why: str
    #: How its agent said that it is when this was decided. It stays if that has changed since: it may have been let go
    #: on, and be busy. Empty: whatever it says.
    state: str = ""

    def describe(self) -> str:
        return f"Delete {self.kind}/{self.name}: {self.why}"


@dataclass(frozen=True)
class Delete(Action):
    """Delete a child that is not needed any more."""

    stage: ClassVar[int] = 3
    uid: str
    manifest_api: str = ""


@dataclass(frozen=True)
class RolePlan:
    """What a plan means for the agents of one role, for the status and for people."""

    desired: int = 0
    current: int = 0
    ready: int = 0
    updated: int = 0
    draining: int = 0


@dataclass(frozen=True)
class Plan:
    """What to do now, and when to look again if nothing happens."""

    actions: tuple[Action, ...] = ()
    #: Seconds from the `now` that the plan was made with.
    requeue_after: float | None = None
    revision: str = ""
    #: Which revision is carried out and why that one; None for a Swarm that is not carried out.
    course: Course | None = None
    settings: Settings | None = None
    settings_revision: str = ""
    #: Every running agent acknowledged `settings_revision`.
    acknowledged: bool = False
    #: At least one did: where no agent runs, nobody has.
    heard: bool = False
    compute: RolePlan = RolePlan()
    standby: RolePlan = RolePlan()
    resource: RolePlan = RolePlan()
    #: What placement came to; None for a Swarm that is not carried out. For the status alone.
    placing: Placing | None = None
    #: What it does about the swarm's keys; None for a Swarm that is not carried out.
    turn: Turn | None = None
    #: Why something is not done yet, for people: nodes, pods or objects that stand in the way.
    blocked: tuple[str, ...] = ()
