"""What a run of chaos stands on: a swarm, the API server that it belongs to, and, on a local cluster, its processes."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm_agents.config import BOARD_DIRECTORY_PREFIX
from swarm_agents.errors import SwarmError, Unreachable
from swarm_deploy.local.calls import call
from swarm_deploy.local.manager import Cluster
from swarm_deploy.local.record import Record, shared_memory

if TYPE_CHECKING:
    from swarm_agents.client import Connection

__all__ = ["ChaosError", "Ground", "LocalGround"]

#: The environment is everybody's: one at a time has another kubeconfig there.
_environment = threading.Lock()
_GROUP = "/apis/agentswarm.dev/v1alpha1"


class ChaosError(SwarmError):
    """The run can't go on; the message says why, and what to do."""


class Ground(ABC):
    """A swarm that is to be tried, wherever it is."""

    #: Where the agents note their commits; None: they do not.
    ledger: Path | None = None
    #: Whether the swarm has the kernel `chaos.walk`.
    walks = False

    def __init__(self, namespace: str, name: str, uid: str) -> None:
        self.namespace, self.name, self.uid = namespace, name, uid

    @abstractmethod
    def call(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> dict[str, Any]:
        """One request to the API server. Raises Unreachable."""

    @abstractmethod
    def connection(self) -> Connection:
        """How a client reaches the swarm."""

    @abstractmethod
    def impossible(self) -> dict[str, str]:
        """The kinds of faults that can't be had here, and why."""

    def boards(self) -> dict[str, Path]:
        """The board's directory on each node that has one within reach."""
        return {}

    @property
    def path(self) -> str:
        """The Swarm's."""
        return f"{_GROUP}/namespaces/{self.namespace}/swarms/{self.name}"

    def pods(self) -> list[dict[str, Any]]:
        """The swarm's pods."""
        where = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=agentswarm.dev%2Fswarm%3D{self.name}"
        return list(self.call("GET", where)["items"])

    def nodes(self) -> list[str]:
        """The names of all nodes."""
        return sorted(node["metadata"]["name"] for node in self.call("GET", "/api/v1/nodes")["items"])

    def unready(self) -> str:
        """Why the swarm is not as it should be; empty when it is."""
        try:
            swarm, pods = self.call("GET", self.path), self.pods()
        except Unreachable as error:
            return str(error)
        status = swarm.get("status") or {}
        ready: dict[str, Any] = next((c for c in status.get("conditions") or () if c["type"] == "Ready"), {})
        if ready.get("status") != "True" or ready.get("observedGeneration") != swarm["metadata"]["generation"]:
            return str(ready.get("message") or "the operator has not seen the swarm yet")
        part = status.get("compute") or {}
        if part.get("ready", 0) < part.get("desired", 0):
            return f"{part.get('ready', 0)} of {part.get('desired', 0)} compute agents are ready"
        waiting = [pod["metadata"]["name"] for pod in pods if not _is_ready(pod)]
        return f"pods that are not ready: {', '.join(waiting)}" if waiting else ""

    def wait_ready(self, timeout: float, say: Callable[[str], None] = lambda _: None) -> float:
        """Waits until the swarm is whole; returns how long that took.

        Raises:
            ChaosError: it was not within `timeout` seconds.
        """
        begun, said = time.monotonic(), ""
        while why := self.unready():
            if time.monotonic() - begun > timeout:
                raise ChaosError(f"the swarm is not ready after {timeout:.0f} s: {why}")
            if why != said:
                said = why
                say(why)
            time.sleep(0.1)
        return time.monotonic() - begun

    def close(self) -> list[str]:
        """The end; returns what is left that should not be."""
        return []


class LocalGround(Ground):
    """A local cluster that runs already, and a swarm on it."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, uid: str) -> None:
        super().__init__(namespace, name, uid)
        self.cluster = cluster
        self.unable = {
            "kill-api": "it would end a cluster that this run has not started, and with it the pods of others",
            "shm-full": "the machine's own /dev/shm is not filled: others need it",
            "disk-full": "the machine's own disk is not filled: others need it",
        }

    @property
    def record(self) -> Record:
        """What runs.

        Raises:
            ChaosError: nothing does.
        """
        record = self.cluster.record()
        if record is None:
            raise ChaosError(f"the local cluster in {self.cluster.state} does not run any more: `swarm up` starts it")
        return record

    def call(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> dict[str, Any]:
        return call(self.cluster.kubeconfig, method, path, body, kind=kind, seconds=5.0)

    def impossible(self) -> dict[str, str]:
        from swarm_deploy.chaos import partition

        found = dict(self.unable)
        if why := partition.possible():
            found["partition"] = why
        if not self.record.operator:
            found |= dict.fromkeys(("kill-operator", "stop-operator"), "the cluster was started without an operator")
        return found

    def connection(self) -> Connection:
        """As any program on this machine would, by the kubeconfig."""
        from swarm_agents.client.connection import resolve

        with _kubeconfig(self.cluster.kubeconfig):
            return resolve(f"{self.namespace}/{self.name}")

    def boards(self) -> dict[str, Path]:
        found = shared_memory(self.record.cluster).glob(f"*/{BOARD_DIRECTORY_PREFIX}{self.uid}")
        return {path.parent.name: path for path in sorted(found)}


@contextmanager
def _kubeconfig(path: Path) -> Iterator[None]:
    """Within the block KUBECONFIG is this file."""
    with _environment:
        before = os.environ.get("KUBECONFIG")
        os.environ["KUBECONFIG"] = str(path)
        try:
            yield
        finally:
            if before is None:
                del os.environ["KUBECONFIG"]
            else:
                os.environ["KUBECONFIG"] = before


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp")
