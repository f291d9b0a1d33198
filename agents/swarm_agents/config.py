"""The settings an agent runs by: one typed model, written by the operator, read by operator and agents alike.

They reach an agent twice: at start in the file `settings.json` of the swarm's ConfigMap, and from then on by a push
(`PUT /v1/settings` on the pod). Both carry the whole model, so that a push is idempotent and no agent needs a history.
What differs between two agents of one swarm (its name, its pod's address) is not here but in `Identity`, which comes
from the environment. This module imports only `msgspec`: the operator's image has no NumPy.

Invariants: times are seconds and sizes are bytes, always; unknown fields are refused, so that a typing error in a
ConfigMap edited by hand is an error and not a silent default.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "AGENT_PORT",
    "BOARD_DIRECTORY_PREFIX",
    "HUB_AGENT_PORT",
    "HUB_PORT",
    "REST_PORT",
    "SETTINGS_FILE",
    "SETTINGS_VERSION",
    "Checkpoints",
    "Failover",
    "Hub",
    "Identity",
    "Priority",
    "Role",
    "Runtime",
    "Sensing",
    "Settings",
    "Transport",
    "board_directory",
    "decode_settings",
    "encode_settings",
    "key_fingerprint",
    "second_port",
    "settings_revision",
]

SETTINGS_VERSION = 1
SETTINGS_FILE = "settings.json"

#: Every pod serves its metrics, probes, settings and drain here (HTTP).
AGENT_PORT = 9402
#: And here serves the hub that is the second container of a compute agent's pod, where each pod has a board of its own.
HUB_AGENT_PORT = 9403
#: The hub's ZeroMQ ROUTER, for other hubs and for clients outside the node (TCP, CURVE).
HUB_PORT = 7400
#: The hub's REST interface (HTTP).
REST_PORT = 7480

BOARD_DIRECTORY_PREFIX = "agentswarm-"

Seconds = Annotated[float, Meta(ge=0)]
Bytes = Annotated[int, Meta(ge=0)]
Port = Annotated[int, Meta(ge=1, le=65535)]


class Role(StrEnum):
    """What an agent is for. A standby is a compute agent that claims nothing until a sibling has died."""

    COMPUTE = "compute"
    STANDBY = "standby"
    RESOURCE = "resource"


class Priority(StrEnum):
    """The lanes of a board, most urgent first. `lane` is the index on the board and on the wire."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    BULK = "bulk"

    #: 0 for critical to 3 for bulk.
    lane: int


for _lane, _priority in enumerate(Priority):
    _priority.lane = _lane  # a plain attribute: it is read for every task


class _Model(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    pass


class Hub(_Model, frozen=True, kw_only=True):
    """Where a node's resource agent listens, and the key it proves itself with."""

    node: str
    #: `tcp://IP:PORT`
    address: str
    #: CURVE public key, Z85, 40 characters; empty when the swarm's encryption is off.
    public_key: str = ""
    #: `http://IP:PORT` of its REST interface
    rest: str = ""


class Transport(_Model, frozen=True, kw_only=True):
    """Shared memory on the node and ZeroMQ between nodes."""

    #: Bytes of the payload arena of each node's board.
    arena_bytes: Bytes = 256 << 20
    #: Tasks that a board holds at most, over all lanes and clients.
    task_slots: Annotated[int, Meta(ge=64, le=1 << 20)] = 4096
    #: Agents and clients that a board has room for.
    max_members: Annotated[int, Meta(ge=8, le=4096)] = 256
    hub_port: Port = HUB_PORT
    rest_port: Port = REST_PORT
    agent_port: Port = AGENT_PORT
    #: CURVE on every TCP connection. Off only where the spec says so.
    encryption: bool = True
    #: The largest message that a hub accepts from a peer.
    max_message_bytes: Bytes = 256 << 20


class Failover(_Model, frozen=True, kw_only=True):
    """When an agent is held for dead, and what becomes of its tasks."""

    heartbeat_interval: Seconds = 0.02
    #: Without a heartbeat for this long an agent is suspected…
    suspect_after: Seconds = 0.2
    #: …and for this long it is declared dead: its epoch is raised and its tasks are claimed by others.
    dead_after: Seconds = 0.8
    #: How often a task is begun at most before it is set aside as lost.
    max_attempts: Annotated[int, Meta(ge=1, le=100)] = 4
    #: A task that has run for so many times the 95th percentile of its kernel…
    straggler_factor: Annotated[float, Meta(ge=1, le=1000)] = 2.0
    #: …and for so long is a straggler: an idle agent runs it a second time, and the first answer counts.
    straggler_least: Seconds = 0.02
    #: Of the tasks that run, the share that may run twice (one may in any case); 0: none.
    straggler_share: Annotated[float, Meta(ge=0, le=1)] = 0.1


class Sensing(_Model, frozen=True, kw_only=True):
    """The resource agent's work."""

    interval: Annotated[float, Meta(ge=0.01, le=60)] = 0.1
    #: Names of sensors to switch off; empty: all that the node has.
    disabled: tuple[str, ...] = ()
    #: Move tasks between nodes when the queues differ.
    balance: bool = True
    #: Watts and degrees Celsius that the node is kept below by letting its agents work less; 0: none.
    power_cap: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    heat_cap: Annotated[float, Meta(ge=0, le=150)] = 0.0


class Runtime(_Model, frozen=True, kw_only=True):
    """Tunables of every agent."""

    #: How long an idle agent spins before it parks on the futex.
    spin: Seconds = 50e-6
    #: Threads that a parallel kernel may use; 0: the agent's whole CPUs.
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    #: The share of a GPU's memory that an agent's kernels may take.
    gpu_memory: Annotated[float, Meta(gt=0, le=1)] = 0.8
    #: How long a stopping agent may finish its task before it hands it back.
    drain_timeout: Seconds = 25.0
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"
    #: Modules that register the owner's kernels when they are imported.
    kernel_modules: tuple[str, ...] = ()
    #: Names of kernels that may be called, `risk.*` style patterns allowed; empty: all that are registered.
    kernels: tuple[str, ...] = ()


class Checkpoints(_Model, frozen=True, kw_only=True):
    """What agents keep of themselves and of tasks that take long."""

    #: How often a kernel that asks `ctx.due()` is told to keep where it is.
    interval: Seconds = 0.25
    #: The largest value that is kept for a task.
    max_bytes: Bytes = 64 << 20
    #: What all tasks of a node may keep in shared memory.
    node_bytes: Bytes = 512 << 20
    #: How far copies on a volume may lag behind, if the swarm has one.
    volume_interval: Seconds = 1.0
    #: What may lie on the volume.
    volume_bytes: Bytes = 1 << 30


class Settings(_Model, frozen=True, kw_only=True):
    """Everything that all agents of a swarm share."""

    version: int = SETTINGS_VERSION
    swarm: str
    namespace: str
    uid: str
    #: Revision of the rolling part of the spec: the same for all pods made from it.
    revision: str = ""
    #: The Swarm's generation that these settings were made from.
    generation: int = 0
    hubs: tuple[Hub, ...] = ()
    transport: Transport = Transport()
    failover: Failover = Failover()
    sensing: Sensing = Sensing()
    runtime: Runtime = Runtime()
    checkpoints: Checkpoints = Checkpoints()


class Identity(_Model, frozen=True, kw_only=True):
    """Who this pod is: read once from the environment that the operator gives it."""

    swarm: str
    namespace: str
    uid: str
    role: Role
    ordinal: int
    #: The agent's name on the board and in the logs: its pod's, unless two agents share a pod (`SWARM_AGENT`).
    pod: str
    pod_uid: str
    pod_ip: str
    #: What has a board and a hub, by name: the node, or the pod itself where its board is its own (`SWARM_NODE`).
    node: str
    revision: str
    #: The ConfigMap's directory (`settings.json`).
    config_dir: Path
    #: The Secret's directory (`hub.public`, `hub.secret`, `client.public`, `client.secret`, `token`).
    keys_dir: Path
    #: The node's shared-memory file system; `board_directory` lies in it.
    shm_dir: Path
    #: Home of the JIT cache, writable.
    cache_dir: Path
    #: A warm cache to begin from, read-only (baked into the image); may be absent.
    cache_seed: Path | None = None
    #: A volume for durable state, when the Swarm asks for one.
    state_dir: Path | None = None
    #: Where it serves probes, metrics, settings and drain, if not at the settings' port: a second agent of one pod.
    http_port: int | None = None

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> Identity:
        """Reads the `SWARM_*`, `POD_*` and `NODE_NAME` variables.

        Raises:
            ValueError: a variable is missing or does not parse; the message names it.
        """
        env = os.environ if env is None else env

        def need(name: str) -> str:
            value = env.get(name)
            if not value:
                raise ValueError(
                    f"environment variable {name} is not set: an agent is started by the operator's pod template; "
                    "to start one by hand set the variables that `swarm plan FILE` shows"
                )
            return value

        role, ordinal = need("SWARM_ROLE"), need("SWARM_ORDINAL")
        if role not in list(Role):
            raise ValueError(f"SWARM_ROLE={role!r}: expected one of {', '.join(Role)}")
        if not ordinal.isdecimal():
            raise ValueError(f"SWARM_ORDINAL={ordinal!r}: expected a number from 0")
        seed, state = env.get("SWARM_CACHE_SEED"), env.get("SWARM_STATE_DIR")
        port = env.get("SWARM_HTTP_PORT", "")
        if port and not (port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError(f"SWARM_HTTP_PORT={port!r}: expected a port from 1 to 65535")
        return cls(
            swarm=need("SWARM_NAME"),
            namespace=need("SWARM_NAMESPACE"),
            uid=need("SWARM_UID"),
            role=Role(role),
            ordinal=int(ordinal),
            pod=env.get("SWARM_AGENT") or need("POD_NAME"),
            pod_uid=need("POD_UID"),
            pod_ip=need("POD_IP"),
            node=env.get("SWARM_NODE") or need("NODE_NAME"),
            revision=env.get("SWARM_REVISION", ""),
            config_dir=Path(need("SWARM_CONFIG_DIR")),
            keys_dir=Path(need("SWARM_KEYS_DIR")),
            shm_dir=Path(need("SWARM_SHM_DIR")),
            cache_dir=Path(need("SWARM_CACHE_DIR")),
            cache_seed=Path(seed) if seed else None,
            state_dir=Path(state) if state else None,
            http_port=int(port) if port else None,
        )


def board_directory(shm_dir: Path, uid: str) -> Path:
    """Where the board of the swarm with this UID lies on a node."""
    return shm_dir / f"{BOARD_DIRECTORY_PREFIX}{uid}"


def encode_settings(settings: Settings) -> bytes:
    """The settings as JSON with sorted keys, so that equal settings are equal bytes."""
    return msgspec.json.format(msgspec.json.encode(settings, order="sorted"), indent=1)


def decode_settings(data: bytes | str) -> Settings:
    """The settings from JSON.

    Raises:
        ValueError: not JSON, a field is unknown or out of range, or the version is another one.
    """
    try:
        version = msgspec.json.decode(data, type=dict).get("version")
        if version != SETTINGS_VERSION:
            raise ValueError(
                f"settings of version {version!r}, this agent reads version {SETTINGS_VERSION}: "
                "run the agent image that belongs to the operator"
            )
        return msgspec.json.decode(data, type=Settings)
    except msgspec.DecodeError as error:  # ValidationError is one
        raise ValueError(f"settings can't be read: {error}") from error


def settings_revision(settings: Settings) -> str:
    """A short hash of the settings' content: what an agent acknowledges, and status shows as observed."""
    return hashlib.blake2b(encode_settings(settings), digest_size=5).hexdigest()


def second_port(transport: Transport) -> int:
    """Where a hub listens as well while the swarm's keys are renewed: the port after `hub_port` that is not taken."""
    taken = (transport.rest_port, transport.agent_port, AGENT_PORT, HUB_AGENT_PORT)
    port = transport.hub_port + 1
    while port in taken:
        port += 1
    return port if port < 65536 else transport.hub_port - len(taken) - 1


def key_fingerprint(hub_public: str, client_public: str) -> str:
    """By what people and logs tell one set of keys from another: 16 hexadecimal digits; empty without keys."""
    if not (hub_public and client_public):
        return ""
    return hashlib.blake2b(f"{hub_public} {client_public}".encode(), digest_size=8).hexdigest()
