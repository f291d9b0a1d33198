"""What the planner sees: one Swarm and everything that belongs to it, at one moment, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swarm_operator.accept import Refusal, refusals
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.audit import Anchor
from swarm_operator.autoscale import Decision
from swarm_operator.gang import GangView
from swarm_operator.keyrecord import KEY_NAMES, KeyState
from swarm_operator.names import Key
from swarm_operator.policy import OPEN, Policy
from swarm_operator.views import AgentReport, NodeView, ObjectView, PodView, SwarmView

__all__ = ["KEY_NAMES", "KeyState", "Refused", "Snapshot"]


@dataclass(frozen=True)
class Refused:
    """Since when (seconds since the epoch) the API server has refused to make any pod, and its last words."""

    since: float
    why: str


@dataclass(frozen=True)
class Snapshot:
    """One Swarm as observed. `spec` is None when it can't be read, and `invalid` says why."""

    swarm: SwarmView
    spec: SwarmSpec | None
    invalid: str = ""
    pods: tuple[PodView, ...] = ()
    nodes: tuple[NodeView, ...] = ()
    #: False: the operator may not read them, and `nodes` says nothing.
    nodes_known: bool = True
    #: Nodes that were seen to be removed from the cluster, and when (seconds since the epoch).
    gone_nodes: Mapping[str, float] = field(default_factory=dict)
    #: By kind and name.
    objects: Mapping[tuple[str, str], ObjectView] = field(default_factory=dict)
    #: By the pod's UID; stale ones (of another start of the pod) may be among them.
    agents: Mapping[str, AgentReport] = field(default_factory=dict)
    keys: KeyState = field(default_factory=KeyState)
    #: Where its audit trail ends; None while that is not known.
    audit: Anchor | None = None
    #: What the autoscaler decided last, for the status alone; None while it has nothing to say.
    autoscaling: Decision | None = None
    #: What owners of Swarms may ask for.
    policy: Policy = OPEN
    #: The namespace that the operator's pods run in; empty: it is no pod of the cluster.
    home: str = ""
    #: What is known of its agents' common start.
    gang: GangView = field(default_factory=GangView)
    #: That its pods are refused; None when the last ones were made.
    refused: Refused | None = None

    #: What the planner has made of the pods already, by the nodes that it holds for lost: planning and the status ask
    #: for all agents again and again, and there may be thousands.
    agents_by_lost: dict[frozenset[str], tuple[Any, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def refusals(self, spec: SwarmSpec) -> tuple[Refusal, ...]:
        """What keeps a spec of this Swarm, its own or an earlier one, from being carried out."""
        return refusals(spec, self.policy, self.swarm.name)

    @property
    def key(self) -> Key:
        """The Swarm's namespace and name."""
        return Key(self.swarm.namespace, self.swarm.name)

    def report(self, pod: PodView) -> AgentReport | None:
        """What the pod's agent said since it was started last."""
        report = self.agents.get(pod.uid)
        return report if report and report.restarts == pod.restarts else None
