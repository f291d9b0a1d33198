"""Every name, label and key that the operator gives: built by one function each, here, so that they can't differ.

A pod is called `<swarm>-<role>-<ordinal>-<incarnation>`. The name is its identity for the operator: ordinal and role
are read from the name and never from a label, because labels can be edited and names can't.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from swarm_agents.config import Role

__all__ = [
    "ANNOTATION_FAILED",
    "ANNOTATION_GANG",
    "ANNOTATION_GANG_FAILED",
    "ANNOTATION_INSTEAD",
    "ANNOTATION_NODE",
    "ANNOTATION_READY",
    "ANNOTATION_RECORD",
    "ANNOTATION_ROTATE_KEYS",
    "AUTOSCALER",
    "FIELD_MANAGER",
    "GANG_GATE",
    "LABEL_AUDIT",
    "LABEL_CLIENT",
    "LABEL_ORDINAL",
    "LABEL_REVISION",
    "LABEL_ROLE",
    "LABEL_SWARM",
    "LEASE_NAME",
    "Key",
    "PodName",
    "agents_service",
    "api_service",
    "audit_segment",
    "config_map",
    "controller_revision",
    "disruption_budget",
    "network_policy",
    "object_labels",
    "parse_pod_name",
    "pod_group",
    "pod_labels",
    "pod_name",
    "pod_selector",
    "secret",
    "selector_text",
    "service_account",
]

_PREFIX: Final = "agentswarm.dev"
LABEL_SWARM: Final = f"{_PREFIX}/swarm"
LABEL_ROLE: Final = f"{_PREFIX}/role"
LABEL_ORDINAL: Final = f"{_PREFIX}/ordinal"
LABEL_REVISION: Final = f"{_PREFIX}/revision"
#: Which node a resource agent is for. An annotation, since a node's name may be longer than a label's value.
ANNOTATION_NODE: Final = f"{_PREFIX}/node"
#: Which group of agents a pod starts with: the group's name, its size, and which attempt this is, by slashes.
ANNOTATION_GANG: Final = f"{_PREFIX}/gang"
#: That the group did not come to start as a whole, on those of its pods that did.
ANNOTATION_GANG_FAILED: Final = f"{_PREFIX}/gang-failed"
#: UID of the pod, predicted to fail, for which a pod was made.
ANNOTATION_INSTEAD: Final = f"{_PREFIX}/instead-of"
#: On a ControllerRevision: when all agents of the revision were ready, or why they did not become so.
ANNOTATION_READY: Final = f"{_PREFIX}/ready"
ANNOTATION_FAILED: Final = f"{_PREFIX}/failed"
#: Scheduling gate of a pod whose group waits for room.
GANG_GATE: Final = f"{_PREFIX}/gang"
#: The facts of an Event, as JSON.
ANNOTATION_RECORD: Final = f"{_PREFIX}/record"
#: On a Swarm: whoever gives it another value asks for new keys.
ANNOTATION_ROTATE_KEYS: Final = f"{_PREFIX}/rotate-keys"
#: Whose audit trail a ConfigMap holds a part of.
LABEL_AUDIT: Final = f"{_PREFIX}/audit"
#: On a pod of somebody else's: the swarm whose hubs it may reach.
LABEL_CLIENT: Final = f"{_PREFIX}/client"
FIELD_MANAGER: Final = "agentswarm-operator"
#: The autoscaler writes replicas, and nothing else, under a name of its own.
AUTOSCALER: Final = "agentswarm-autoscaler"
LEASE_NAME: Final = "agentswarm-operator"


class Key(NamedTuple):
    """Which Swarm: the key of the work queue."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class PodName(NamedTuple):
    """What a pod's name says."""

    swarm: str
    role: Role
    ordinal: int
    incarnation: int

    def __str__(self) -> str:
        return f"{self.swarm}-{self.role}-{self.ordinal}-{self.incarnation}"


_POD = re.compile(r"(.+)-(compute|standby|resource)-(0|[1-9][0-9]*)-(0|[1-9][0-9]*)")


def pod_name(swarm: str, role: Role, ordinal: int, incarnation: int) -> str:
    """The name of one incarnation of one agent."""
    return str(PodName(swarm, role, ordinal, incarnation))


@lru_cache(maxsize=1 << 15)
def parse_pod_name(name: str, swarm: str) -> PodName | None:
    """What a name says, or None when this is no name that the operator gives to a pod of this swarm.

    Remembered, since every plan asks it of every pod.
    """
    match = _POD.fullmatch(name)
    if not match or match.group(1) != swarm:
        return None
    return PodName(swarm, Role(match.group(2)), int(match.group(3)), int(match.group(4)))


def agents_service(swarm: str) -> str:
    """The headless Service over all agents."""
    return f"{swarm}-agents"


def api_service(swarm: str) -> str:
    """The Service over the hubs: REST and ZeroMQ."""
    return swarm


def config_map(swarm: str) -> str:
    """The ConfigMap with the agents' settings."""
    return f"{swarm}-settings"


def audit_segment(swarm: str, number: int | str) -> str:
    """A ConfigMap with a part of the audit trail."""
    return f"{swarm}-audit-{number}"


def secret(swarm: str) -> str:
    """The Secret with the CURVE keys and the token."""
    return f"{swarm}-keys"


def service_account(swarm: str) -> str:
    """The agents' ServiceAccount."""
    return swarm


def disruption_budget(swarm: str) -> str:
    """The PodDisruptionBudget of the compute agents."""
    return swarm


def network_policy(swarm: str) -> str:
    """The NetworkPolicy of all the swarm's pods."""
    return swarm


def pod_group(swarm: str) -> str:
    """The gang scheduler's PodGroup of the compute agents."""
    return swarm


def controller_revision(swarm: str, revision: str) -> str:
    """The ControllerRevision that keeps the rolling part of one spec."""
    return f"{swarm}-{revision}"


def object_labels(swarm: str) -> dict[str, str]:
    """Labels of everything that belongs to a swarm; watches select by the first."""
    return {
        LABEL_SWARM: swarm,
        "app.kubernetes.io/name": "agentswarm",
        "app.kubernetes.io/instance": swarm,
        "app.kubernetes.io/managed-by": "agentswarm-operator",
    }


def pod_labels(name: PodName, revision: str) -> dict[str, str]:
    """Labels of a pod."""
    role = name.role.value
    return {
        **object_labels(name.swarm),
        "app.kubernetes.io/component": role,
        LABEL_ROLE: role,
        LABEL_ORDINAL: str(name.ordinal),
        LABEL_REVISION: revision,
    }


def pod_selector(swarm: str, role: Role | None = None) -> dict[str, str]:
    """What selects the pods of a swarm, or those of one role."""
    return {LABEL_SWARM: swarm} | ({LABEL_ROLE: role.value} if role else {})


def selector_text(labels: Mapping[str, str]) -> str:
    """A label selector as text."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
