"""What the parts of one node share, and the periods that tests shorten."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from swarm_deploy.local.addresses import AddressPool
from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.events import Recorder
from swarm_deploy.local.kubelet.cpus import CpuManager
from swarm_deploy.local.kubelet.environment import Sources
from swarm_deploy.local.kubelet.runtime import Runtime
from swarm_deploy.local.kubelet.volumes import NodePaths

__all__ = ["Backoff", "NodeServices", "Timing", "TokenSource"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The defaults are those of a real cluster."""

    #: Between restarts of a container that keeps ending: the first, doubled each time, up to the last.
    crash_backoff: float = 10.0
    crash_backoff_most: float = 300.0
    #: A container that ran for so long is forgiven.
    crash_forgiven: float = 600.0
    #: How often something that is missing (a ConfigMap, a port) is looked for again, beside when it appears.
    retry: float = 2.0
    #: How often a node says that it lives, and after how long without that it is held for dead.
    heartbeat: float = 10.0
    node_grace: float = 40.0


class TokenSource(Protocol):
    """Gives tokens of service accounts: namespace, name, seconds."""

    def __call__(self, namespace: str, account: str, seconds: int, /) -> str: ...


@dataclass(slots=True)
class NodeServices:
    """One node's."""

    name: str
    client: LocalClient
    events: Recorder
    runtime: Runtime
    sources: Sources
    paths: NodePaths
    addresses: AddressPool
    cpus: CpuManager
    allocatable: Mapping[str, str]
    timing: Timing
    token: TokenSource
    #: An aiohttp session for probes.
    http: Any
    #: The API server's URL, for pods that speak to it.
    server: str = ""
    clock: Callable[[], float] = time.time
    #: Devices that the node offers, by their resource names: what somebody has written into its status.
    devices: frozenset[str] = frozenset()
    #: Moves the sharing containers when the CPUs that they share have changed.
    repin: Callable[[], None] = lambda: None


class Backoff:
    """How long to wait before the next start: not at all the first time, then longer and longer."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._next = 0.0

    def take(self, ran: float) -> float:
        """The pause after a run of `ran` seconds."""
        if ran >= self._timing.crash_forgiven:
            self._next = 0.0
        pause = self._next
        self._next = min(max(self._timing.crash_backoff, pause * 2), self._timing.crash_backoff_most)
        return pause
