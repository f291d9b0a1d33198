"""What the operator keeps of the objects it watches: small frozen values, decoded straight from the wire.

A pod as the API server sends it is 10 to 20 kB of Python objects, of which the planner reads a dozen fields. Decoding
into typed structs that skip the rest keeps 10,000 pods within tens of megabytes, and lets the reflector tell by `==`
whether an update matters: the kubelet's chatter wakes no one.

Rejected: the Kubernetes client's models (40 times the memory, and their import alone takes a second).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from swarm_agents.config import AGENT_PORT, HUB_AGENT_PORT
from swarm_operator.names import (
    ANNOTATION_GANG,
    ANNOTATION_GANG_FAILED,
    ANNOTATION_INSTEAD,
    ANNOTATION_ROTATE_KEYS,
)
from swarm_operator.quantities import amounts

__all__ = [
    "CHILD_KINDS",
    "CONTAINER",
    "HUB_CONTAINER",
    "AgentReport",
    "Manager",
    "NodeView",
    "ObjectView",
    "PodView",
    "SwarmView",
    "Taint",
    "View",
    "decode",
    "node_view",
    "object_view",
    "pod_view",
    "secret_data",
    "swarm_view",
]


#: A pod's agent, and the hub beside it where the pod has a board of its own.
CONTAINER: Final = "agent"
HUB_CONTAINER: Final = "hub"
_ONE_PORT: Final = (AGENT_PORT,)
_TWO_PORTS: Final = (HUB_AGENT_PORT, AGENT_PORT)


class Manager(Struct, frozen=True):
    """A field manager's entry, as far as it tells who wrote last. `fields` is a hash of what it owns."""

    manager: str
    operation: str
    time: str
    subresource: str
    fields: str


class SwarmView(Struct, frozen=True):
    """A Swarm as stored. `spec` and `status` are plain data; the status is kept only to tell whether it changed."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    deleting: bool
    spec: dict[str, Any]
    status: dict[str, Any]
    #: Who has written to it, but for the status.
    managers: tuple[Manager, ...] = ()
    #: Its annotation that asks for new keys.
    rotate_keys: str = ""


class PodView(Struct, frozen=True, gc=False):
    """What matters of a pod. Times are seconds since the epoch."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    labels: dict[str, str]
    owners: tuple[str, ...] = ()
    deleting: bool = False
    created: float = 0.0
    #: When its last container ended; 0 when none has.
    ended: float = 0.0
    #: From its environment, which can't be edited.
    swarm_uid: str = ""
    revision: str = ""
    #: The node it is pinned to (resource agents).
    target_node: str = ""
    node: str = ""
    phase: str = "Pending"
    ready: bool = False
    #: Whether its containers' startup probes have succeeded since they were started last.
    started: bool = False
    #: Since when it is ready, or is not (seconds since the epoch); 0 where nothing says so.
    ready_changed: float = 0.0
    ip: str = ""
    #: Where its agents answer (HTTP), in the order in which they are to leave: its hub first, if it has one.
    ports: tuple[int, ...] = _ONE_PORT
    restarts: int = 0
    #: Why it does not run: CamelCase reason and the message beside it.
    reason: str = ""
    message: str = ""
    #: When it was bound to its node; 0 while it is not.
    bound: float = 0.0
    #: Scheduling gates that are still there.
    gates: tuple[str, ...] = ()
    #: Nodes that its affinity keeps it from.
    avoids: tuple[str, ...] = ()
    #: UID of the pod that it was made for, which was predicted to fail.
    instead_of: str = ""
    #: The group that it was to start with, as its annotation says (see `gang`), and whether that start has failed.
    gang: str = ""
    gang_failed: bool = False

    @property
    def board(self) -> str:
        """Whose board it works on, by the name that the swarm has for it: its node's, or its own."""
        return self.name if self.ports == _TWO_PORTS else self.node


class Taint(Struct, frozen=True):
    """A node's taint."""

    key: str
    value: str = ""
    effect: str = ""


class NodeView(Struct, frozen=True):
    """What matters of a node."""

    name: str
    resource_version: str
    labels: dict[str, str]
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    ready: bool = True
    #: Since when it is not ready (seconds since the epoch, as the node controller says), and whether that is because
    #: nothing is heard of it any more. Both mean nothing while it is ready.
    unready_since: float = 0.0
    unreachable: bool = False
    #: What it offers to pods: thousandths of a CPU, bytes of memory, pods, and devices by their resource names.
    allocatable: dict[str, int] = {}


class ObjectView(Struct, frozen=True):
    """Any other child, whole but for what the API server adds to the metadata."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    owners: tuple[str, ...]
    deleting: bool
    body: dict[str, Any]


#: Kinds of children beside pods.
CHILD_KINDS: Final = (
    "Service",
    "ConfigMap",
    "Secret",
    "ServiceAccount",
    "PodDisruptionBudget",
    "ControllerRevision",
    "NetworkPolicy",
)

View = SwarmView | PodView | NodeView | ObjectView


class AgentReport(Struct, frozen=True):
    """What an agent said when it was asked last, or that it did not answer. It is for one start of one pod."""

    #: The pod's restarts at that time: a restarted agent has forgotten what it was told.
    restarts: int
    #: When, in seconds of the clock that the planner is given.
    checked: float
    settings: str = ""
    state: str = ""
    running: int = 0
    #: Failed attempts in a row, and the last one's error.
    failures: int = 0
    error: str = ""
    #: Since when it has been asked to drain.
    drain_since: float | None = None
    #: Its cores (`2-3`), whether they are its own (None: nobody can tell), and why, in one word and for people.
    cores: str = ""
    exclusive: bool | None = None
    cores_code: str = ""
    cores_reason: str = ""
    #: The NUMA nodes of its cores; None where the kernel does not say.
    numa: tuple[int, ...] | None = None
    #: Why it may not work where it is; empty when it may.
    unfit: str = ""
    #: The probability that it fails soon, as it reckons itself, and why.
    failing: float = 0.0
    failing_why: str = ""
    #: Fingerprints of the keys that its hub serves, at its port and at its second one.
    keys: tuple[str, str] = ("", "")


# What follows mirrors the wire as far as it is read.


class _Owner(Struct, frozen=True):
    uid: str


class _Metadata(Struct, frozen=True, rename="camel"):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[_Owner, ...] = ()
    deletion_timestamp: str | None = None
    creation_timestamp: datetime | None = None


class _Env(Struct, frozen=True):
    name: str
    value: str = ""


class _Container(Struct, frozen=True):
    name: str = ""
    env: tuple[_Env, ...] = ()


class _Match(Struct, frozen=True):
    key: str
    operator: str = ""
    values: tuple[str, ...] = ()


class _Term(Struct, frozen=True, rename="camel"):
    match_fields: tuple[_Match, ...] = ()


class _NodeSelector(Struct, frozen=True, rename="camel"):
    node_selector_terms: tuple[_Term, ...] = ()


class _NodeAffinity(Struct, frozen=True):
    required: _NodeSelector = field(name="requiredDuringSchedulingIgnoredDuringExecution", default=_NodeSelector())


class _Affinity(Struct, frozen=True, rename="camel"):
    node_affinity: _NodeAffinity = _NodeAffinity()


class _Gate(Struct, frozen=True):
    name: str


class _PodSpec(Struct, frozen=True, rename="camel"):
    containers: tuple[_Container, ...] = ()
    scheduling_gates: tuple[_Gate, ...] = ()
    node_name: str = ""
    affinity: _Affinity | None = None


class _Condition(Struct, frozen=True, rename="camel"):
    type: str
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class _Detail(Struct, frozen=True, rename="camel"):
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None


class _State(Struct, frozen=True):
    waiting: _Detail | None = None
    terminated: _Detail | None = None


class _ContainerStatus(Struct, frozen=True, rename="camel"):
    restart_count: int = 0
    started: bool | None = None
    state: _State = _State()


class _PodStatus(Struct, frozen=True, rename="camel"):
    phase: str = "Pending"
    pod_ip: str = field(name="podIP", default="")
    reason: str = ""
    message: str = ""
    conditions: tuple[_Condition, ...] = ()
    container_statuses: tuple[_ContainerStatus, ...] = ()


class _Pod(Struct, frozen=True):
    metadata: _Metadata
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()


class _NodeSpec(Struct, frozen=True):
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False


class _NodeStatus(Struct, frozen=True):
    conditions: tuple[_Condition, ...] = ()
    allocatable: dict[str, str | int] = {}


class _Node(Struct, frozen=True):
    metadata: _Metadata
    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()


class _Any(Struct, frozen=True):
    metadata: _Metadata


#: Enough of a message for a condition; the rest is in the object.
_MESSAGE: Final = 300


def _epoch(when: datetime | None) -> float:
    return 0.0 if when is None else (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def pod_view(raw: bytes | msgspec.Raw) -> PodView:
    """A pod from JSON."""
    pod = msgspec.json.decode(raw, type=_Pod)
    meta, spec, status = pod.metadata, pod.spec, pod.status
    env = {
        e.name: e.value for c in spec.containers if c.name == CONTAINER for e in c.env if e.name.startswith("SWARM_")
    }
    terms = spec.affinity.node_affinity.required.node_selector_terms if spec.affinity else ()
    by_name = [m for t in terms for m in t.match_fields if m.key == "metadata.name" and m.values]
    pinned = [m.values[0] for m in by_name if m.operator == "In"]
    avoids = tuple(sorted(m.values[0] for m in by_name if m.operator == "NotIn"))
    conditions = {c.type: c for c in status.conditions}
    unscheduled = conditions.get("PodScheduled")
    states = [c.state for c in status.container_statuses]
    details = [s.waiting or s.terminated for s in states if s.waiting or s.terminated]
    reason, message = status.reason, status.message
    if not reason and unscheduled and unscheduled.status == "False":
        reason, message = unscheduled.reason, unscheduled.message
    if not reason and details and details[0]:
        reason, message = details[0].reason, details[0].message
    bound = _epoch(unscheduled.last_transition_time) if unscheduled and unscheduled.status == "True" else 0.0
    ended = max((_epoch(s.terminated.finished_at) for s in states if s.terminated), default=0.0)
    if not ended and status.phase == "Failed":
        ended = bound  # refused by its kubelet as soon as it was bound: no container ever was
    return PodView(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
        labels=meta.labels,
        owners=tuple(owner.uid for owner in meta.owner_references),
        deleting=meta.deletion_timestamp is not None,
        created=_epoch(meta.creation_timestamp),
        ended=ended,
        swarm_uid=env.get("SWARM_UID", ""),
        revision=env.get("SWARM_REVISION", ""),
        target_node=pinned[0] if pinned else "",
        node=spec.node_name,
        phase=status.phase,
        ready="Ready" in conditions and conditions["Ready"].status == "True",
        started=bool(status.container_statuses) and all(c.started for c in status.container_statuses),
        ready_changed=_epoch(conditions["Ready"].last_transition_time) if "Ready" in conditions else 0.0,
        ip=status.pod_ip,
        ports=_TWO_PORTS if any(c.name == HUB_CONTAINER for c in spec.containers) else _ONE_PORT,
        restarts=sum(c.restart_count for c in status.container_statuses),
        reason=reason,
        message=message[:_MESSAGE],
        bound=bound if spec.node_name else 0.0,
        gates=tuple(gate.name for gate in spec.scheduling_gates),
        avoids=avoids,
        instead_of=meta.annotations.get(ANNOTATION_INSTEAD, ""),
        gang=meta.annotations.get(ANNOTATION_GANG, ""),
        gang_failed=ANNOTATION_GANG_FAILED in meta.annotations,
    )


def node_view(raw: bytes | msgspec.Raw) -> NodeView:
    """A node from JSON."""
    node = msgspec.json.decode(raw, type=_Node)
    said = next((c for c in node.status.conditions if c.type == "Ready"), _Condition("Ready"))
    ready = said.status == "True"
    return NodeView(
        name=node.metadata.name,
        resource_version=node.metadata.resource_version,
        labels=node.metadata.labels,
        taints=node.spec.taints,
        unschedulable=node.spec.unschedulable,
        ready=ready,
        unready_since=0.0 if ready else _epoch(said.last_transition_time),
        unreachable=said.status == "Unknown",
        allocatable=amounts(node.status.allocatable, up=False),
    )


def swarm_view(raw: bytes | msgspec.Raw) -> SwarmView:
    """A Swarm from JSON."""
    meta = msgspec.json.decode(raw, type=_Any).metadata
    body = msgspec.json.decode(raw)
    return SwarmView(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
        generation=meta.generation,
        deleting=meta.deletion_timestamp is not None,
        spec=body.get("spec") or {},
        status=body.get("status") or {},
        managers=tuple(
            Manager(
                str(entry.get("manager", "")),
                str(entry.get("operation", "")),
                str(entry.get("time", "")),
                str(entry.get("subresource", "")),
                hashlib.blake2b(msgspec.json.encode(entry.get("fieldsV1"), order="sorted"), digest_size=8).hexdigest(),
            )
            for entry in body["metadata"].get("managedFields") or ()
            if entry.get("subresource") != "status"
        ),
        rotate_keys=meta.annotations.get(ANNOTATION_ROTATE_KEYS, ""),
    )


def object_view(kind: str, raw: bytes | msgspec.Raw) -> ObjectView:
    """A child of another kind from JSON."""
    meta = msgspec.json.decode(raw, type=_Any).metadata
    body = msgspec.json.decode(raw)
    metadata = {k: v for k, v in body["metadata"].items() if k in ("labels", "annotations", "ownerReferences")}
    return ObjectView(
        kind=kind,
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
        owners=tuple(owner.uid for owner in meta.owner_references),
        deleting=meta.deletion_timestamp is not None,
        body={**{k: v for k, v in body.items() if k not in ("status", "metadata")}, "metadata": metadata},
    )


_DECODE: Final[dict[str, Callable[[Any], View]]] = {
    "Swarm": swarm_view,
    "Pod": pod_view,
    "Node": node_view,
    **{kind: partial(object_view, kind) for kind in CHILD_KINDS},
}


def decode(kind: str, raw: bytes | msgspec.Raw) -> View:
    """An object of a kind from JSON."""
    return _DECODE[kind](raw)


def secret_data(view: ObjectView | None) -> dict[str, str]:
    """A Secret's data, decoded; a value that is not base64 text counts as missing."""
    out: dict[str, str] = {}
    for key, value in ((view.body.get("data") or {}) if view else {}).items():
        try:
            out[key] = base64.b64decode(value, validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            continue
    return out
