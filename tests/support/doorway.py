"""A way from this machine to the hubs of a swarm on any cluster: straight, or by `kubectl port-forward`."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from support.kubectl import Kubectl
from swarm_agents.client import Connection
from swarm_agents.config import Hub
from swarm_agents.errors import Unreachable
from swarm_deploy.connect import resolve

__all__ = ["Doorway"]

_PATIENCE = 1.0


class Doorway:
    """Finds a swarm again and again, as a client asks for it whenever no hub answers any more."""

    def __init__(self, kubectl: Kubectl, swarm: str) -> None:
        """`kubectl` is within the swarm's namespace, and its kubeconfig the one that is resolved by."""
        self._kubectl, self._swarm = kubectl, swarm
        #: By the pod's name: what forwards to it, and the port here.
        self._forwards: dict[str, tuple[subprocess.Popen[str], int]] = {}
        os.environ["KUBECONFIG"] = str(Path(kubectl.kubeconfig))

    def find(self) -> Connection:
        """Where the swarm is now.

        Raises:
            Unreachable: it has no hub yet that can be reached.
        """
        found = resolve(f"{self._kubectl.namespace}/{self._swarm}")
        assert found is not None
        reachable = [hub for hub in found.hubs if hub.address and _answers(hub.address)]
        if not reachable:
            reachable = self._forwarded(found.hubs)
        if not reachable:
            raise Unreachable(f"no hub of {self._swarm} can be reached yet, of {len(found.hubs)}")
        return msgspec.structs.replace(found, board=None, hubs=tuple(reachable))

    def _forwarded(self, hubs: tuple[Hub, ...]) -> list[Hub]:
        pods = self._kubectl.get("pods", "-l", f"agentswarm.dev/swarm={self._swarm}")["items"]
        by_address = {pod.get("status", {}).get("podIP"): pod["metadata"]["name"] for pod in pods}
        for name, (process, _) in list(self._forwards.items()):
            if name not in by_address.values() or process.poll() is not None:
                self._end(name)
        ways = []
        for hub in hubs:
            address = urlsplit(hub.address)
            pod = by_address.get(address.hostname)
            if pod is None or address.port is None:
                continue
            port = self._port(pod, address.port)
            if port:
                ways.append(msgspec.structs.replace(hub, address=f"tcp://127.0.0.1:{port}", rest=""))
        return ways

    def _port(self, pod: str, port: int) -> int:
        if pod not in self._forwards:
            process = subprocess.Popen(
                self._kubectl.command("port-forward", f"pod/{pod}", f":{port}", "--address", "127.0.0.1"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=self._kubectl.environment(),
            )
            assert process.stdout is not None
            said = re.search(r"127\.0\.0\.1:(\d+) ->", process.stdout.readline())
            self._forwards[pod] = (process, int(said[1]) if said else 0)
        return self._forwards[pod][1]

    def _end(self, pod: str) -> None:
        process, _ = self._forwards.pop(pod)
        process.kill()
        process.communicate()

    def close(self) -> None:
        for pod in list(self._forwards):
            self._end(pod)


def _answers(address: str) -> bool:
    parts = urlsplit(address)
    try:
        with socket.create_connection((parts.hostname, parts.port), timeout=_PATIENCE):
            return True
    except OSError:
        return False
