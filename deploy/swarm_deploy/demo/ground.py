"""What the demo stands on: an embedded cluster in a directory of its own, and the Swarm that it applies there.

Everything that the demo starts is below one temporary directory, and carries it in its command line or environment, so
that `leftovers` can tell at the end whether anything is still there. The user's own local cluster (`swarm up`) is not
touched.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from swarm_agents.config import BOARD_DIRECTORY_PREFIX
from swarm_agents.errors import SwarmError

__all__ = ["DemoError", "Ground"]

_SHM = Path("/dev/shm")
#: Each simulated node offers this many CPUs: room for the example, whatever the machine has.
_CPUS_PER_NODE = 4


class DemoError(SwarmError):
    """The demo can't go on."""


class Ground:
    """The cluster, from `start` to `stop`."""

    def __init__(self, nodes: int = 2) -> None:
        self.nodes = nodes
        self.state = Path(tempfile.mkdtemp(prefix="agentswarm-demo-"))
        self.kubeconfig = self.state / "kubeconfig"
        self.name = self.namespace = self.uid = ""
        self._cluster: Any = None
        self._loop = asyncio.Runner()
        self._api: Any = None
        self._shared: Path | None = None
        self._server: tuple[str, int] | None = None

    def start(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Starts the cluster and the operator."""
        from swarm_deploy.local.manager import Cluster

        self._cluster = Cluster(self.state)
        record = self._cluster.start(nodes=self.nodes, cpus_per_node=_CPUS_PER_NODE, progress=say)
        self._shared = _SHM / f"agentswarm-local-{record.cluster}"
        url = urlsplit(record.url)
        self._server = (str(url.hostname), int(url.port or 0))

    def apply(self, manifest: Path) -> dict[str, Any]:
        """Applies a Swarm as `kubectl apply --server-side` does; returns its spec as the API server completed it.

        Raises:
            DemoError: it was refused.
        """
        from swarm_operator.kube import ApiError, connect

        body = yaml.safe_load(manifest.read_text())
        self._api = self._loop.run(connect(str(self.kubeconfig)))
        self.name = body["metadata"]["name"]
        self.namespace = body["metadata"].get("namespace") or self._api.namespace
        body["metadata"]["namespace"] = self.namespace
        try:
            made = json.loads(self._loop.run(self._api.apply(body)))
        except ApiError as error:
            raise DemoError(f"{manifest} was refused: {error}") from error
        self.uid = made["metadata"]["uid"]
        return dict(made["spec"])

    def wait_ready(self, say: Callable[[str], None], timeout: float = 120.0) -> float:
        """Waits for the condition Ready; returns how long that took.

        Raises:
            DemoError: it did not become true in time; the message holds the conditions and the last events.
        """
        begun, said = time.monotonic(), ""
        conditions: dict[str, Any] = {}
        while time.monotonic() - begun < timeout:
            swarm = json.loads(self._loop.run(self._api.get("Swarm", self.namespace, self.name)))
            status = swarm.get("status") or {}
            conditions = {c["type"]: c for c in status.get("conditions") or ()}
            ready = conditions.get("Ready", {})
            if ready.get("status") == "True" and ready.get("observedGeneration") == swarm["metadata"]["generation"]:
                return time.monotonic() - begun
            words = str(ready.get("message") or "the operator has not seen it yet")
            if words != said:
                said = words
                say(words)
            time.sleep(0.1)
        text = "; ".join(
            f"{c['type']}={c['status']} ({c.get('reason')}: {c.get('message')})" for c in conditions.values()
        )
        raise DemoError(
            f"the swarm is not Ready after {timeout:.0f} s: {text or 'no conditions'}. "
            f"Last events: {self._events() or 'none'}"
        )

    def ready_agents(self) -> int:
        """Compute agents that are ready, as the status says."""
        swarm = json.loads(self._loop.run(self._api.get("Swarm", self.namespace, self.name)))
        return int(((swarm.get("status") or {}).get("compute") or {}).get("ready") or 0)

    def connection(self) -> Any:
        """How a client reaches the swarm: as any program on this machine would, by the kubeconfig."""
        from swarm_agents.client.connection import resolve

        before = os.environ.get("KUBECONFIG")
        os.environ["KUBECONFIG"] = str(self.kubeconfig)
        try:
            return resolve(f"{self.namespace}/{self.name}")
        finally:
            if before is None:
                del os.environ["KUBECONFIG"]
            else:
                os.environ["KUBECONFIG"] = before

    def boards(self) -> dict[str, Path]:
        """The board's directory on each simulated node."""
        if self._shared is None:
            return {}
        found = self._shared.glob(f"*/{BOARD_DIRECTORY_PREFIX}{self.uid}")
        return {path.parent.name: path for path in sorted(found)}

    def keep_logs(self, directory: Path) -> list[Path]:
        """Copies the cluster's and the operator's logs out of the state directory, for whoever looks for the reason."""
        kept = []
        for log in sorted((self.state / "log").glob("*.log")):
            directory.mkdir(parents=True, exist_ok=True)
            kept.append(Path(shutil.copy(log, directory)))
        return kept

    def stop(self) -> None:
        """Stops the cluster and removes its directory. To be called once more is harmless."""
        if self._api is not None:
            api, self._api = self._api, None
            self._loop.run(api.close())
        self._loop.close()
        if self._cluster is not None:
            cluster, self._cluster = self._cluster, None
            cluster.stop()
            self._end_stragglers()
        shutil.rmtree(self.state, ignore_errors=True)

    def _end_stragglers(self) -> None:
        """A start that was interrupted may have left a cluster that has not written down yet that it runs."""
        for number, patience in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
            until = time.monotonic() + patience
            asked: set[int] = set()
            while (pids := _processes(str(self.state))) and time.monotonic() < until:
                for pid in set(pids) - asked:
                    asked.add(pid)
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
                time.sleep(0.05)

    def leftovers(self, timeout: float = 5.0) -> list[str]:
        """What is left after `stop`: processes, files in /dev/shm, the port. Empty is as it should be."""
        until = time.monotonic() + timeout
        while (found := self._left()) and time.monotonic() < until:
            time.sleep(0.05)
        return found

    def _left(self) -> list[str]:
        found = [f"process {pid}" for pid in _processes(str(self.state))]
        if self._shared is not None and self._shared.exists():
            found.append(str(self._shared))
        if self.state.exists():
            found.append(str(self.state))
        if self._server is not None:
            with socket.socket() as probe:
                probe.settimeout(0.5)
                if probe.connect_ex(self._server) == 0:
                    found.append(f"port {self._server[1]}")
        return found

    def _events(self) -> str:
        from swarm_operator.kube import ApiError

        try:
            page = self._loop.run(self._api.list_page("Event", self.namespace))
        except ApiError as error:
            return str(error)
        events = [json.loads(bytes(item)) for item in page.items][-5:]
        return "; ".join(f"{e.get('involvedObject', {}).get('name')}: {e.get('message')}" for e in events)


def _processes(mark: str) -> list[int]:
    """Living processes but this one whose command line or environment holds the mark."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            command = Path("/proc", entry, "cmdline").read_bytes()
            text = command + b"\0" + Path("/proc", entry, "environ").read_bytes()
        except OSError:  # gone meanwhile, or somebody else's
            continue
        if command and mark.encode() in text:
            found.append(int(entry))
    return found
