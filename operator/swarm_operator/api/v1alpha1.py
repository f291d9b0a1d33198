"""The Swarm, `agentswarm.dev/v1alpha1`: what a user may ask for. The CRD is generated from these models.

Invariants: everything the whole product needs has its place here from the beginning, so that later versions add fields
and move none; what this version can't do yet is listed in `accept` and refused by a condition that names the field.
Every string, list and map is bounded. Defaults are the agents' own (`swarm_agents.config`); a test compares them.

Rejected: the whole PodSpec as a template (RayJob's CRD is 1.39 MB that way, and every field of it is one through which
an owner of a Swarm could leave the namespace's policy); instead the few overrides that agents need. Rejected also:
`enabled` switches beside objects; an object that is present is on.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from swarm_operator.api.fields import (
    RULES,
    SET,
    Change,
    Cpus,
    Duration,
    LabelMap,
    Model,
    Name,
    Size,
    bounds,
    duration,
    fixed,
    live,
    plain,
    rolling,
    seconds,
)
from swarm_operator.api.network import PEER_RULE, Egress, Peer
from swarm_operator.api.pod_template import EnvVar, ObjectRef, PodTemplate, Volume
from swarm_operator.api.scheduling import Autoscaling, AutoscalingSchedule, Scheduling, Toleration, Topology

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "OBJECT_RULES",
    "PLURAL",
    "VERSION",
    "Autoscaling",
    "AutoscalingSchedule",
    "Compute",
    "Failover",
    "FailurePrediction",
    "Gpus",
    "Resource",
    "Rollout",
    "Runtime",
    "Scheduling",
    "Security",
    "Sensors",
    "SharedMemory",
    "State",
    "SwarmSpec",
    "Toleration",
    "Topology",
    "Transport",
    "ZeroMQ",
]

GROUP: Final = "agentswarm.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "Swarm"
PLURAL: Final = "swarms"

_Pattern = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.*]*$", min_length=1, max_length=128)]
_Module = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$", min_length=1, max_length=253)]
_IntOrPercent = Annotated[
    int | str,
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "pattern": r"^(100|[1-9]?[0-9])%$",
            "maxLength": 4,
            "minimum": 0,
            "maximum": 5000,
        }
    ),
]


class Gpus(Model):
    """Whole devices from a device plugin."""

    count: int = rolling(1, "Devices for each agent.", ge=1, le=64)
    resource: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9][-A-Za-z0-9_.]*$")] = rolling(
        "nvidia.com/gpu",
        "The device plugin's resource name, such as nvidia.com/gpu, amd.com/gpu or nvidia.com/mig-1g.10gb.",
        max_length=128,
    )
    memory_percent: int = rolling(
        80,
        "How much of a device's memory an agent's kernels may take, in percent. Agents that share a device (time "
        "slicing, MPS) should have less than 100 together.",
        ge=1,
        le=100,
    )


class Compute(Model):
    """The compute agents, which do the numeric work."""

    replicas: int = live(
        1,
        "How many compute agents. `kubectl scale` and an HPA write here; with min and max the autoscaler does.",
        ge=0,
        le=5000,
    )
    min: int | None = live(None, "The autoscaler's lower bound.", ge=0, le=5000)
    max: int | None = live(None, "The autoscaler's upper bound.", ge=1, le=5000)
    standby: int = live(0, "Warm agents that take a dead one's place at once.", ge=0, le=1000)
    cpus: Cpus = rolling("1", "CPUs of each agent. Whole ones can be its alone (static CPU Manager); 500m are shared.")
    memory: Size = rolling(
        "512Mi",
        "Memory of each agent. The node's shared memory is charged to the agent that made it, so this must exceed "
        "transport.sharedMemory.size by at least 128Mi.",
    )
    gpus: Gpus | None = plain(None, "GPUs of each agent; none when left out.")
    kernels: list[_Pattern] = live(
        [], "Kernels that may be called, such as risk.*; all that are registered when empty.", max_length=64, schema=SET
    )
    env: list[EnvVar] = rolling(
        [],
        "Environment variables of the compute agents.",
        max_length=64,
        schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    pod_template: PodTemplate = plain(PodTemplate(), "Overrides of the compute agents' pods.")

    @model_validator(mode="after")
    def _bounds(self) -> Compute:
        if (self.min is None) != (self.max is None):
            raise ValueError("min and max go together: give both, or neither and replicas")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min may not exceed max")
        return self


class Sensors(Model):
    """Which of a node's sensors are read."""

    disabled: list[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.]*$", max_length=64)]] = live(
        [], "Sensors that are switched off; none when empty.", max_length=32, schema=SET
    )


class Caps(Model):
    """What each node is kept below by letting its agents work less of their time; critical tasks are taken all the
    same."""

    power_watts: int = live(0, "Watts of a node, as its sensors show or estimate them. 0: no cap.", ge=0, le=100_000)
    temperature_celsius: int = live(0, "Degrees Celsius of a node's hottest sensor. 0: no cap.", ge=0, le=150)


class Resource(Model):
    """The resource agents, one a matching node: they sense, balance, and carry work between nodes."""

    interval: Duration = duration(Change.LIVE, "100ms", "How often the sensors are read.", "10ms", "1m")
    balance: bool = live(True, "Move tasks towards idle nodes.")
    sensors: Sensors = plain(Sensors(), "Which sensors are read.")
    caps: Caps = plain(Caps(), "Caps of a node's power and heat.")
    node_selector: LabelMap = live(
        {}, "Nodes that get a resource agent, within scheduling.nodeSelector; all of those when empty.", max_length=16
    )
    cpus: Cpus = rolling("100m", "CPUs of each resource agent.")
    memory: Size = rolling("512Mi", "Memory of each resource agent; see compute.memory for what it must hold.")
    pod_template: PodTemplate = plain(PodTemplate(), "Overrides of the resource agents' pods.")


class SharedMemory(Model):
    """The node's board, over which agents of one node exchange tasks."""

    medium: Literal["HostPath", "Memory"] = fixed(
        "HostPath",
        "HostPath: the node's tmpfs, shared by the pods of a node; tasks and arrays pass between them without a copy, "
        "and the namespace has to admit hostPath volumes (Pod Security level privileged). Memory: an emptyDir within "
        "each pod, which then has a hub of its own: all pods are of the restricted level, and tasks travel by TCP.",
    )
    size: Size = fixed("256Mi", "Arena for the payloads of tasks and results, of each board.")
    # Nowhere else: whoever may make a Swarm would choose a directory of the node that an agent can read and write.
    path: Annotated[str, Field(pattern=r"^/dev/shm(/\.?[A-Za-z0-9_-][A-Za-z0-9._-]*)*$", max_length=256)] = fixed(
        "/dev/shm",
        "Directory of a tmpfs on the node, writable by all (mode 1777): /dev/shm, or what the operator's policy allows "
        "below it.",
    )
    task_slots: int = fixed(4096, "Tasks that a node's board holds at most.", ge=64, le=1 << 20)
    max_members: int = fixed(256, "Agents and clients that a node's board has room for.", ge=8, le=4096)


class ZeroMQ(Model):
    """TCP between nodes, and for clients outside."""

    port: int = rolling(7400, "Port of each node's hub.", ge=1024, le=65535)
    rest_port: int = rolling(7480, "Port of each hub's REST interface.", ge=1024, le=65535)
    encryption: Literal["Curve", "None"] = rolling("Curve", "CURVE on every connection, or None on a trusted network.")
    max_message_size: Size = rolling("256Mi", "The largest message that a hub accepts.")

    @model_validator(mode="after")
    def _distinct_ports(self) -> ZeroMQ:
        if self.port == self.rest_port or 9402 in (self.port, self.rest_port):
            raise ValueError("port and restPort must differ, and 9402 is taken by every agent's metrics")
        return self


class Transport(Model):
    """How tasks travel."""

    shared_memory: SharedMemory = plain(
        SharedMemory(),
        "Between agents of one node.",
        json_schema_extra={
            RULES: [
                {
                    "rule": "self == oldSelf",
                    "message": "shared memory can't be changed while agents use it: "
                    "delete the Swarm and make it anew, or make a second one",
                }
            ]
        },
    )
    zeromq: ZeroMQ = plain(ZeroMQ(), "Between nodes.")


class FailurePrediction(Model):
    """Drain and replace an agent before it fails."""

    threshold: int = live(90, "Percent of certainty from which an agent is replaced.", ge=50, le=100)


class Stragglers(Model):
    """Tasks that take far longer than others of their kernel: an idle agent runs them a second time, the first answer
    counts."""

    factor: int = live(
        2, "So many times the 95th percentile of its kernel's tasks makes a task a straggler.", ge=1, le=1000
    )
    min_runtime: Duration = duration(Change.LIVE, "20ms", "A task that has run for less is none.", "0s", "24h")
    percent: int = live(
        10, "Of the tasks that run on a node, how many may run twice; one may in any case. 0: none.", ge=0, le=100
    )


class Failover(Model):
    """When an agent is held for dead, and what becomes of its tasks."""

    heartbeat_interval: Duration = duration(Change.LIVE, "20ms", "How often an agent says it lives.", "1ms", "10s")
    suspect_after: Duration = duration(
        Change.LIVE,
        "200ms",
        "Silence after which it is suspected at the latest; on a node whose heartbeats are regular it is sooner.",
        "2ms",
        "1m",
    )
    dead_after: Duration = duration(
        Change.LIVE,
        "800ms",
        "Silence after which its tasks are given to others; sooner when a second witness confirms it, and four times "
        "as long while its process is seen to wait for a core.",
        "5ms",
        "5m",
    )
    max_attempts: int = live(4, "How often a task is begun at most before it is given up.", ge=1, le=100)
    stragglers: Stragglers = plain(Stragglers(), "Which tasks are run a second time.")
    prediction: FailurePrediction | None = plain(None, "Replace agents that are predicted to fail; off when left out.")

    @model_validator(mode="after")
    def _ordered(self) -> Failover:
        if not seconds(self.heartbeat_interval) < seconds(self.suspect_after) < seconds(self.dead_after):
            raise ValueError("heartbeatInterval must be shorter than suspectAfter, and that shorter than deadAfter")
        return self


class Runtime(Model):
    """Tunables of every agent."""

    spin: Duration = duration(Change.LIVE, "50us", "How long an idle agent spins before it sleeps.", "0us", "100ms")
    drain_timeout: Duration = duration(
        Change.LIVE, "25s", "How long a leaving agent may finish its task before it hands it back.", "0s", "1h"
    )
    log_level: Literal["debug", "info", "warning", "error"] = live("info", "The agents' log level.")
    threads: int = rolling(0, "Threads of a parallel kernel; 0: the agent's whole CPUs.", ge=0, le=1024)
    kernel_modules: list[_Module] = rolling(
        [],
        "Python modules in the image that register further kernels. Installed packages with an entry point in the "
        "group agentswarm.kernels are found without being named; one that is named must be importable.",
        max_length=32,
        schema=SET,
    )


class State(Model):
    """Durable state of the agents."""

    medium: Literal["EmptyDir", "PersistentVolumeClaim"] = rolling(
        "EmptyDir", "EmptyDir: survives a container. PersistentVolumeClaim: survives a pod."
    )
    claim_name: Name | None = rolling(None, "The claim (ReadWriteMany), for medium PersistentVolumeClaim.")
    size_limit: Size = rolling("1Gi", "Size limit, for medium EmptyDir.")
    checkpoint_interval: Duration = duration(
        Change.LIVE,
        "250ms",
        "How often a kernel that asks is told to keep where it is; 250ms as well where no state is asked for.",
        "10ms",
        "24h",
    )

    @model_validator(mode="after")
    def _claim(self) -> State:
        if (self.medium == "PersistentVolumeClaim") != (self.claim_name is not None):
            raise ValueError("claimName goes with medium PersistentVolumeClaim")
        return self


class Security(Model):
    """Identity and isolation of the agents."""

    run_as_user: int = rolling(65532, "User ID of the agents.", ge=1, le=2147483647)
    run_as_group: int = rolling(65532, "Group ID of the agents.", ge=1, le=2147483647)
    network_policy: bool = live(
        True,
        "A NetworkPolicy for the pods. In: the hubs' ports from the swarm's own pods, the operator, pods of the "
        "namespace with the label agentswarm.dev/client: NAME-OF-THE-SWARM, and clients; metrics from anywhere. Out: "
        "the swarm's own pods, DNS, and egress. It needs a network plug-in that carries policies out.",
    )
    clients: list[Peer] = live([], "Who may reach the hubs beside them (networkPolicy).", max_length=16)
    egress: list[Egress] = live(
        [], "Whom the agents' kernels may reach beside them, such as a store of data (networkPolicy).", max_length=16
    )
    key_rotation: Duration | None = live(
        None,
        "How old the CURVE keys may become before they are renewed, from 10m to 8760h; as old as they like when left "
        "out. The annotation agentswarm.dev/rotate-keys, given another value, renews them as well.",
        schema=bounds("10m", "8760h", "720h"),
    )
    key_overlap: Duration = duration(
        Change.LIVE,
        "10m",
        "How long the old keys are still taken beside the new ones, so that clients outside can be given these.",
        "0s",
        "168h",
    )
    allow_pickle: bool = rolling(False, "Let clients submit pickled functions: whoever may submit then runs any code.")


class Rollout(Model):
    """How pods are replaced when a rolling field changes."""

    max_surge: _IntOrPercent = live("25%", "Agents beyond the wanted count meanwhile; percent round up.")
    max_unavailable: _IntOrPercent = live("25%", "Agents that may be missing meanwhile; percent round down.")
    paused: bool = live(False, "Replace no agent for now.")
    progress_deadline: Duration = duration(
        Change.LIVE, "10m", "How long a new agent may take to become ready.", "10s", "24h"
    )
    auto_rollback: bool = live(
        False,
        "When the agents of a new revision do not become ready within progressDeadline, go back to the rolling "
        "fields of the last revision that was ready, until a rolling field is changed.",
    )

    @field_validator("max_surge", "max_unavailable")
    @classmethod
    def _count_or_percent(cls, value: int | str, info: ValidationInfo) -> int | str:
        if isinstance(value, str):
            if not re.fullmatch(r"(100|[1-9]?[0-9])%", value):
                raise ValueError(f"{info.field_name}: a count or a percentage from 0% to 100%")
        elif not 0 <= value <= 5000:
            raise ValueError(f"{info.field_name}: from 0 to 5000")
        return value

    @model_validator(mode="after")
    def _moves(self) -> Rollout:
        if self.max_surge in (0, "0%") and self.max_unavailable in (0, "0%"):
            raise ValueError("maxSurge and maxUnavailable can't both be 0: no agent could be replaced")
        return self


class SwarmSpec(Model):
    """What the swarm should be."""

    image: Annotated[str, Field(min_length=1, max_length=512)] = rolling("agentswarm/agent:0.1.0", "The agents' image.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = rolling(
        "IfNotPresent", "When nodes pull the image."
    )
    image_pull_secrets: list[ObjectRef] = rolling(
        [],
        "Secrets for pulling the image.",
        max_length=8,
        schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    suspend: bool = live(False, "Run no agent; everything else is kept.")
    compute: Compute = plain(Compute(), "The compute agents, which do the numeric work.")
    resource: Resource = plain(
        Resource(),
        "The resource agents, one a matching node; with shared memory of medium Memory, the hub in each compute "
        "agent's pod.",
    )
    transport: Transport = plain(Transport(), "How tasks travel.")
    scheduling: Scheduling = plain(Scheduling(), "Where the pods may run.")
    autoscaling: Autoscaling | None = plain(
        None,
        "How the swarm's load decides on compute.replicas, which it does where compute.min and max are given. A count "
        "that somebody else sets is put right at once if it is too low for the load or out of bounds; one that is "
        "higher than needed stays for scaleInWindow.",
    )
    failover: Failover = plain(Failover(), "When an agent is held for dead.")
    runtime: Runtime = plain(Runtime(), "Tunables of every agent.")
    state: State | None = plain(None, "Durable state of the agents; none when left out.")
    security: Security = plain(Security(), "Identity and isolation of the agents.")
    rollout: Rollout = plain(Rollout(), "How pods are replaced.")

    @model_validator(mode="after")
    def _autoscaled(self) -> SwarmSpec:
        if self.autoscaling is not None and self.compute.max is None:
            raise ValueError("autoscaling needs compute.min and compute.max: give both, or leave autoscaling out")
        return self


#: CEL rules on objects, by the model's class: what a bound on one field can't say.
OBJECT_RULES: Final[dict[type[Model], list[dict[str, Any]]]] = {
    SwarmSpec: [
        {
            "rule": "!has(self.autoscaling) || (has(self.compute) && has(self.compute.max))",
            "message": "autoscaling needs compute.min and compute.max: give both, or leave autoscaling out",
        }
    ],
    Peer: [PEER_RULE],
    EnvVar: [
        {
            "rule": "(has(self.value) ? 1 : 0) + (has(self.secretKeyRef) ? 1 : 0) "
            "+ (has(self.configMapKeyRef) ? 1 : 0) <= 1",
            "message": "give one of value, secretKeyRef, configMapKeyRef",
        }
    ],
    Volume: [
        {
            "rule": "(has(self.configMap) ? 1 : 0) + (has(self.secret) ? 1 : 0) "
            "+ (has(self.persistentVolumeClaim) ? 1 : 0) + (has(self.emptyDir) ? 1 : 0) == 1",
            "message": "give exactly one of configMap, secret, persistentVolumeClaim, emptyDir",
        }
    ],
    PodTemplate: [
        {
            "rule": "!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && "
            "self.volumes.exists(v, v.name == m.name))",
            "message": "every entry of volumeMounts must name an entry of volumes",
        }
    ],
    Compute: [
        {
            "rule": "has(self.min) == has(self.max)",
            "message": "min and max go together: give both, or neither and replicas",
        },
        {
            "rule": "!has(self.min) || !has(self.max) || self.min <= self.max",
            "message": "min may not exceed max",
        },
    ],
    ZeroMQ: [
        {
            "rule": "self.port != self.restPort && self.port != 9402 && self.restPort != 9402",
            "message": "port and restPort must differ, and 9402 is taken by every agent's metrics",
        }
    ],
    Failover: [
        {
            "rule": "duration(self.heartbeatInterval) < duration(self.suspectAfter) && "
            "duration(self.suspectAfter) < duration(self.deadAfter)",
            "message": "heartbeatInterval must be shorter than suspectAfter, and that shorter than deadAfter",
        }
    ],
    State: [
        {
            "rule": "(self.medium == 'PersistentVolumeClaim') == has(self.claimName)",
            "message": "claimName goes with medium PersistentVolumeClaim",
        }
    ],
    Rollout: [
        {
            # of type dyn: compared only with its own type
            "rule": "!((type(self.maxSurge) == int ? self.maxSurge == 0 : self.maxSurge == '0%') && "
            "(type(self.maxUnavailable) == int ? self.maxUnavailable == 0 : self.maxUnavailable == '0%'))",
            "message": "maxSurge and maxUnavailable can't both be 0: no agent could be replaced",
        }
    ],
}
