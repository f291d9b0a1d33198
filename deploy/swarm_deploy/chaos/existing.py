"""The ground under a swarm that runs already: of the local cluster on this machine, or of a cluster anywhere.

To a swarm of a real cluster only what its API server offers is done: pods are deleted without grace. Its processes, its
network and its disks belong to machines that this program is not on; tools that run on the nodes (Chaos Mesh, Litmus)
do the rest there.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from swarm_agents.errors import Unreachable
from swarm_deploy.chaos.faults import KINDS
from swarm_deploy.chaos.ground import Ground, LocalGround
from swarm_deploy.connect import open_swarm
from swarm_deploy.local.manager import Cluster, default_state

if TYPE_CHECKING:
    from swarm_agents.client import Connection

__all__ = ["ClusterGround", "find_ground"]


def find_ground(target: str) -> Ground:
    """The ground of a swarm that a kubeconfig leads to; a local cluster's is known by its API server's address.

    Raises:
        Unreachable: there is no such swarm, or no API server that answers.
    """
    meta, host = asyncio.run(_look(target))
    for state in (default_state(), *_beside_kubeconfig()):
        cluster = Cluster(state)
        record = cluster.record()
        if record is not None and record.url.rstrip("/") == host.rstrip("/"):
            return LocalGround(cluster, meta["namespace"], meta["name"], meta["uid"])
    return ClusterGround(target, meta["namespace"], meta["name"], meta["uid"])


async def _look(target: str) -> tuple[dict[str, Any], str]:
    async with open_swarm(target) as (api, _, swarm):
        return swarm["metadata"], str(api.configuration.host)


def _beside_kubeconfig() -> list[Path]:
    """A local cluster writes its kubeconfig into its state directory."""
    return [Path(part).expanduser().parent for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]


class ClusterGround(Ground):
    """A swarm of a cluster that is reached by its API server alone."""

    def __init__(self, target: str, namespace: str, name: str, uid: str) -> None:
        super().__init__(namespace, name, uid)
        self._target = target

    def call(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> dict[str, Any]:
        return asyncio.run(self._call(method, path, body, kind))

    async def _call(self, method: str, path: str, body: Any, kind: str) -> dict[str, Any]:
        from swarm_operator.kube import ApiError

        bare, _, query = path.partition("?")
        pairs = dict(parse_qsl(query)) or None  # the client quotes them again
        async with open_swarm(self._target) as (api, _, _):
            try:
                data = await api.request(method, bare, query=pairs, body=body, content_type=kind)
            except ApiError as error:
                raise Unreachable(f"the API server: {error}") from error
        found: dict[str, Any] = json.loads(data)
        return found

    def impossible(self) -> dict[str, str]:
        why = "it needs the nodes themselves: a real cluster's API server offers no more than deleting pods"
        return {name: why for name in KINDS if not name.startswith("delete-")}

    def connection(self) -> Connection:
        from swarm_agents.client.connection import resolve

        return resolve(self._target)
