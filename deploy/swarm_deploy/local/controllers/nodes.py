"""The nodes' health, and what follows from it for their pods.

A node whose Lease is not renewed for the grace period is *unknown*: its conditions say so, it gets the taints
`unreachable`, its pods are no longer ready, and those that do not tolerate the taint are deleted after the seconds
that they do. As on a real cluster they stay as terminating until the node comes back or is deleted, for nobody can
know whether they still run. Pods of a node that is no longer there are removed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from swarm_deploy.local.api.client import ApiError, LocalClient
from swarm_deploy.local.api.meta import timestamp
from swarm_deploy.local.events import Recorder
from swarm_deploy.local.informer import Informer

__all__ = ["NodeController", "tolerated_seconds"]

Object = dict[str, Any]

_UNREACHABLE = "node.kubernetes.io/unreachable"
_NOT_READY = "node.kubernetes.io/not-ready"
_CORDONED = "node.kubernetes.io/unschedulable"
_KINDS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


class NodeController:
    """Looks at all nodes a few times within the grace period, and when something about them changes."""

    def __init__(
        self,
        client: LocalClient,
        pods: Informer,
        nodes: Informer,
        *,
        grace: float = 40.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._events = Recorder(client, "node-controller")
        self._evictions = Recorder(client, "taint-eviction-controller")
        self._pods, self._nodes = pods, nodes
        self._leases = Informer(client, "leases.coordination.k8s.io")
        self._grace = grace
        self._clock = clock
        self._wake = asyncio.Event()
        #: (pod's UID, taints) -> since when its node has had them.
        self._tainted: dict[tuple[str, str], float] = {}
        #: Node -> its last renewal, and when that was seen here, so that no two clocks are compared.
        self._renewed: dict[str, tuple[str, float]] = {}
        nodes.listen(lambda old, new: self._wake.set())
        pods.listen(self._pod_changed)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and (old is None or old["spec"].get("nodeName") != new["spec"].get("nodeName")):
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._leases.run())
            group.create_task(self._watch())

    async def _watch(self) -> None:
        for informer in (self._leases, self._nodes, self._pods):
            await informer.synced.wait()
        while True:
            self._wake.clear()
            try:
                wait = await self._look()
            except ApiError:
                wait = 0.2  # somebody else wrote meanwhile
            try:
                async with asyncio.timeout(max(wait, 0.02)):
                    await self._wake.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(0.01)  # changes come in bursts: one look for all of them

    async def _look(self) -> float:
        """One round; returns after how many seconds to look again at the latest."""
        for node in self._nodes:
            dead = self._is_dead(node["metadata"]["name"])
            if dead:
                await self._mark_dead(node)
            await self._taint(node, dead)
        wait = await self._evict()
        await self._collect()
        return min(wait, self._grace / 4)

    def _is_dead(self, name: str) -> bool:
        lease = self._leases.get("kube-node-lease", name) or {}
        renewed = (lease.get("spec") or {}).get("renewTime", "")
        now = self._clock()
        held = self._renewed.get(name)
        if held is None or held[0] != renewed:
            self._renewed[name] = (renewed, now)
            return False
        return now - held[1] > self._grace

    async def _mark_dead(self, node: Object) -> None:
        conditions = node.get("status", {}).get("conditions") or []
        if conditions and all(c["status"] == "Unknown" for c in conditions if c["type"] in _KINDS):
            return
        now = timestamp(self._clock())
        unknown = {
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastTransitionTime": now,
        }
        changed = [{**c, **unknown} if c["type"] in _KINDS and c["status"] != "Unknown" else c for c in conditions]
        name = node["metadata"]["name"]
        await self._client.patch_status("nodes", name, {"conditions": changed})
        await self._events.record(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        for pod in self._pods:
            if pod["spec"].get("nodeName") == name:
                await self._not_ready(pod, now)

    async def _not_ready(self, pod: Object, now: str) -> None:
        conditions = pod.get("status", {}).get("conditions") or []
        if not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            return
        changed = [
            {**c, "status": "False", "lastTransitionTime": now} if c["type"] == "Ready" else c for c in conditions
        ]
        meta = pod["metadata"]
        try:
            await self._client.patch_status("pods", meta["name"], {"conditions": changed}, meta["namespace"])
        except ApiError as error:
            if error.code != 404:
                raise
        await self._events.record(pod, "NodeNotReady", "Node is not ready", warning=True)

    async def _taint(self, node: Object, dead: bool) -> None:
        """Give the node the taints that belong to its conditions, and take off the others."""
        ready = next((c["status"] for c in node.get("status", {}).get("conditions") or () if c["type"] == "Ready"), "")
        wanted: set[tuple[str, str]] = set()
        if dead or ready == "Unknown":
            wanted = {(_UNREACHABLE, "NoSchedule"), (_UNREACHABLE, "NoExecute")}
        elif ready != "True":
            wanted = {(_NOT_READY, "NoSchedule"), (_NOT_READY, "NoExecute")}
        if node["spec"].get("unschedulable"):
            wanted.add((_CORDONED, "NoSchedule"))
        held = node["spec"].get("taints") or []
        ours = (_UNREACHABLE, _NOT_READY, _CORDONED)
        kept = [t for t in held if t["key"] not in ours or (t["key"], t["effect"]) in wanted]
        have = {(t["key"], t["effect"]) for t in kept}
        now = timestamp(self._clock())
        for key, effect in sorted(wanted - have):
            kept.append({"key": key, "effect": effect} | ({"timeAdded": now} if effect == "NoExecute" else {}))
        if kept != held:
            version = {"resourceVersion": node["metadata"]["resourceVersion"]}
            patch = {"spec": {"taints": kept or None}, "metadata": version}
            await self._client.patch("nodes", node["metadata"]["name"], patch)

    # -- pods -----------------------------------------------------------------------------------------------------

    async def _evict(self) -> float:
        """Delete pods whose nodes have taints that they do not tolerate (any longer); when to look again."""
        now = self._clock()
        wait = float("inf")
        present = set()
        nodes = {node["metadata"]["name"]: node for node in self._nodes}
        for pod in self._pods:
            node, meta = nodes.get(pod["spec"].get("nodeName", "")), pod["metadata"]
            if node is None or meta.get("deletionTimestamp"):
                continue
            taints = [t for t in node["spec"].get("taints") or () if t.get("effect") == "NoExecute"]
            allowed = tolerated_seconds(pod, taints)
            if allowed is None:
                continue
            mark = (meta["uid"], ",".join(sorted(t["key"] for t in taints)))
            present.add(mark)
            left = self._tainted.setdefault(mark, now) + allowed - now
            if left > 0:
                wait = min(wait, left)
                continue
            text = f"Marking for deletion Pod {meta['namespace']}/{meta['name']}"
            await self._evictions.record(pod, "TaintManagerEviction", text)
            await self._delete(pod, None)
        for mark in [m for m in self._tainted if m not in present]:
            del self._tainted[mark]
        return wait

    async def _collect(self) -> None:
        """Remove the pods of nodes that are no longer there."""
        nodes = {node["metadata"]["name"] for node in self._nodes}
        for pod in self._pods:
            where = pod["spec"].get("nodeName")
            if where and where not in nodes:
                await self._delete(pod, 0)

    async def _delete(self, pod: Object, grace: int | None) -> None:
        meta = pod["metadata"]
        try:
            await self._client.delete("pods", meta["name"], meta["namespace"], grace_period=grace, uid=meta["uid"])
        except ApiError as error:
            if error.code not in (404, 409):
                raise


def tolerated_seconds(pod: Object, taints: Sequence[Object]) -> float | None:
    """How long a pod stays under these taints of effect NoExecute; None: for ever."""
    least: float | None = None
    for taint in taints:
        fitting = []
        for toleration in pod["spec"].get("tolerations") or ():
            if toleration.get("effect") not in (None, "", "NoExecute"):
                continue
            if toleration.get("key") not in (None, "", taint["key"]):
                continue
            equal = bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")
            if toleration.get("operator", "Equal") == "Exists" or equal:
                fitting.append(toleration)
        if not fitting:
            return 0.0
        limited = [float(t["tolerationSeconds"]) for t in fitting if t.get("tolerationSeconds") is not None]
        if limited:
            least = min(limited) if least is None else min(least, *limited)
    return least
