"""A scheduler and a kubelet that start nothing: pods are bound, run and are ready as soon as they are seen.

Each pod is written to as by a real scheduler and kubelet: one binding, one status with Running and Ready, and at the
end one deletion without grace; several at once. Against the embedded API server this runs in the server's process,
where the embedded kubelet runs, too; against a real one it sends requests (`Remote`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from swarm_deploy.local.api.client import ApiError as LocalError
from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.api.core import Api as Server
from swarm_operator.kube import RESOURCES, Api, ApiError
from swarm_operator.names import LABEL_SWARM

__all__ = ["Kubelet", "Local", "Remote"]

#: Pods that are seen to at once.
_WORKERS = 16
_STATUS = "application/strategic-merge-patch+json"


class Hands(Protocol):
    """How the kubelet writes. Every method raises when the API server refuses; the pod is then tried again."""

    async def bind(self, namespace: str, name: str, node: str) -> None: ...
    async def report(self, namespace: str, name: str, status: dict[str, Any]) -> None: ...
    async def remove(self, namespace: str, name: str, uid: str) -> None: ...


class Kubelet:
    """Told of pods by `see`, makes them ready, and ends those that are deleted."""

    def __init__(self, hands: Hands, nodes: Sequence[str], addresses: Sequence[str]) -> None:
        self._hands, self._nodes, self._addresses = hands, nodes, addresses
        self._todo: deque[dict[str, Any]] = deque()
        self._known: dict[str, bool] = {}
        self._wake = asyncio.Event()
        self._node, self._address = itertools.count(), itertools.count()

    def see(self, kind: str, pod: dict[str, Any]) -> None:
        """An event of a watch."""
        meta = pod["metadata"]
        if LABEL_SWARM not in (meta.get("labels") or {}):
            return
        if kind == "DELETED":
            self._known.pop(meta["uid"], None)
            return
        ends = "deletionTimestamp" in meta
        if self._known.get(meta["uid"]) != ends:
            self._known[meta["uid"]] = ends
            self._todo.append(pod)
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            while not self._todo:
                self._wake.clear()
                await self._wake.wait()
            pod = self._todo.popleft()
            try:
                await self._do(pod)
            except (ApiError, LocalError) as error:
                code = error.status if isinstance(error, ApiError) else error.code
                if code != 404:
                    await asyncio.sleep(0.1)
                    self._todo.append(pod)
                    self._wake.set()

    async def _do(self, pod: dict[str, Any]) -> None:
        meta = pod["metadata"]
        where = meta["namespace"], meta["name"]
        if "deletionTimestamp" in meta:
            await self._hands.remove(*where, meta["uid"])
            return
        if pod["status"].get("podIP"):
            return
        if not pod["spec"].get("nodeName"):
            try:
                await self._hands.bind(*where, self._node_of(pod["spec"]))
            except (ApiError, LocalError) as error:
                if (error.status if isinstance(error, ApiError) else error.code) != 409:  # another was faster
                    raise
        await self._hands.report(*where, _running(self._addresses[next(self._address) % len(self._addresses)]))
        await asyncio.sleep(0)

    def _node_of(self, spec: dict[str, Any]) -> str:
        """The one it is pinned to, or the next in turn."""
        affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
        terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
        pinned = [m["values"][0] for term in terms for m in term.get("matchFields") or () if m["values"]]
        return pinned[0] if pinned else self._nodes[next(self._node) % len(self._nodes)]


def _running(address: str) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": "127.0.0.1",
        "hostIPs": [{"ip": "127.0.0.1"}],
        "startTime": now,
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds],
        "containerStatuses": [
            {
                "name": "agent",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "image": "bench",
                "imageID": "",
                "state": {"running": {"startedAt": now}},
            }
        ],
    }


class Local:
    """In the API server's process."""

    def __init__(self, server: Server) -> None:
        self._server, self._client = server, LocalClient(server, "kubelet")
        self._pods = server.resource("pods")

    async def bind(self, namespace: str, name: str, node: str) -> None:
        self._server.below(self._pods, namespace, name, "binding", {"target": {"kind": "Node", "name": node}})

    async def report(self, namespace: str, name: str, status: dict[str, Any]) -> None:
        body = {"status": status}
        self._server.patch(self._pods, namespace, name, "strategic", body, subresource="status", manager="kubelet")

    async def remove(self, namespace: str, name: str, uid: str) -> None:
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        self._server.delete(self._pods, namespace, name, body)

    async def watch(self, kubelet: Kubelet) -> None:
        """Tells the kubelet of every pod, until cancelled."""
        async for event in self._server.store.watch("pods", self._server.store.revision):
            kubelet.see(event.type, event.object)


class Remote:
    """By requests."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace

    async def bind(self, namespace: str, name: str, node: str) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        await self._api.request("POST", RESOURCES["Pod"].path(namespace, name, "binding"), "Pod", body=body)

    async def report(self, namespace: str, name: str, status: dict[str, Any]) -> None:
        path = RESOURCES["Pod"].path(namespace, name, "status")
        await self._api.request("PATCH", path, "Pod", body={"status": status}, content_type=_STATUS)

    async def remove(self, namespace: str, name: str, uid: str) -> None:
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        await self._api.request("DELETE", RESOURCES["Pod"].path(namespace, name), "Pod", body=body)

    async def watch(self, kubelet: Kubelet) -> None:
        """Tells the kubelet of every pod of swarms in the namespace, until cancelled."""
        version = ""
        while True:
            try:
                if not version:
                    page = await self._api.list_page("Pod", self._namespace, selector=LABEL_SWARM, limit=0)
                    for item in page.items:
                        kubelet.see("ADDED", msgspec.json.decode(item))
                    version = page.metadata.resource_version
                lines = self._api.watch(
                    "Pod", self._namespace, selector=LABEL_SWARM, version=version, server_timeout=300, silence=400
                )
                async for line in lines:
                    event = msgspec.json.decode(line)
                    if event["type"] == "ERROR":
                        version = ""
                        break
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        kubelet.see(event["type"], event["object"])
            except ApiError as error:
                version = "" if error.status == 410 else version
                await asyncio.sleep(0.2)
