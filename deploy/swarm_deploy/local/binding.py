"""The scheduler's loop: pods that wait for a node, and when it is worth trying again.

A pod that fits nowhere is tried again when something has changed that could make room (a node, a pod that ended), not
by the clock. What was decided a moment ago counts at once, before the informers show it, so that a burst of pods is
not all put on the node that was emptiest when it began.
"""

from __future__ import annotations

import asyncio
from typing import Any

from swarm_deploy.local.api.client import ApiError, LocalClient
from swarm_deploy.local.api.core import Api
from swarm_deploy.local.api.meta import timestamp
from swarm_deploy.local.api.special import bind
from swarm_deploy.local.events import Recorder
from swarm_deploy.local.informer import Informer
from swarm_deploy.local.scheduler import Unplaceable, place

__all__ = ["Scheduler"]

Object = dict[str, Any]

_NAME = "default-scheduler"


class Scheduler:
    """Binds pods to nodes."""

    def __init__(self, api: Api, client: LocalClient, pods: Informer, nodes: Informer, namespaces: Informer) -> None:
        self._api = api
        self._client = client
        self._events = Recorder(client, _NAME)
        self._pods, self._nodes, self._namespaces = pods, nodes, namespaces
        self._wake = asyncio.Event()
        self._assumed: dict[str, Object] = {}
        self._said: dict[str, str] = {}
        pods.listen(self._pod_changed)
        nodes.listen(lambda old, new: self._wake.set() if _matters(old, new) else None)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            assert old is not None
            self._assumed.pop(old["metadata"]["uid"], None)
            self._said.pop(old["metadata"]["uid"], None)
            self._wake.set()
            return
        uid = new["metadata"]["uid"]
        if new["spec"].get("nodeName"):
            self._assumed.pop(uid, None)
            self._said.pop(uid, None)
            if old is not None and _done(new) and not _done(old):
                self._wake.set()
            return
        if old is None or old["spec"] != new["spec"] or old["metadata"].get("labels") != new["metadata"].get("labels"):
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for pod in self._waiting():
                await self._schedule(pod)
                await asyncio.sleep(0)  # let the kubelets begin with those that have a node

    def _waiting(self) -> list[Object]:
        waiting = [
            pod
            for pod in self._pods
            if not pod["spec"].get("nodeName")
            and not pod["metadata"].get("deletionTimestamp")
            and pod["metadata"]["uid"] not in self._assumed
            and pod["spec"].get("schedulerName", _NAME) == _NAME
            and not _done(pod)
        ]
        return sorted(waiting, key=lambda p: (-(p["spec"].get("priority") or 0), p["metadata"]["creationTimestamp"]))

    async def _schedule(self, pod: Object) -> None:
        meta = pod["metadata"]
        if pod["spec"].get("schedulingGates"):
            await self._refuse(pod, "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates")
            return
        nodes = list(self._nodes)
        held = [self._assumed.get(p["metadata"]["uid"], p) for p in self._pods]
        names = {ns["metadata"]["name"]: ns for ns in self._namespaces}
        try:
            found = place(pod, nodes, held, names)
        except (KeyError, TypeError, ValueError) as error:
            found = Unplaceable(f"the pod's rules can't be read: {type(error).__name__}: {error}")
        if isinstance(found, Unplaceable):
            if self._said.get(meta["uid"]) != found.message:
                self._said[meta["uid"]] = found.message
                await self._refuse(pod, "Unschedulable", found.message)
                await self._events.record(pod, "FailedScheduling", found.message, warning=True)
            return
        body: Object = {"metadata": {"uid": meta["uid"]}, "target": {"kind": "Node", "name": found.node}}
        try:
            bind(self._api, meta["namespace"], meta["name"], body)
        except ApiError:
            return  # deleted, or bound by somebody else; the informer will say so
        self._assumed[meta["uid"]] = {**pod, "spec": {**pod["spec"], "nodeName": found.node}}
        text = f"Successfully assigned {meta['namespace']}/{meta['name']} to {found.node}"
        await self._events.record(pod, "Scheduled", text)

    async def _refuse(self, pod: Object, reason: str, message: str) -> None:
        meta = pod["metadata"]
        old = next((c for c in pod.get("status", {}).get("conditions") or () if c["type"] == "PodScheduled"), None)
        if old is not None and (old.get("reason"), old.get("message")) == (reason, message):
            return
        now = timestamp(self._api.clock())
        since = old["lastTransitionTime"] if old is not None and old["status"] == "False" else now
        others = [c for c in pod.get("status", {}).get("conditions") or () if c["type"] != "PodScheduled"]
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": None,
            "lastTransitionTime": since,
            "reason": reason,
            "message": message,
        }
        try:
            await self._client.patch_status(
                "pods", meta["name"], {"conditions": [*others, condition]}, meta["namespace"]
            )
        except ApiError:
            pass


def _done(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _matters(old: Object | None, new: Object | None) -> bool:
    """Whether a change of a node could make room."""
    if old is None or new is None:
        return True

    def facts(node: Object) -> Any:
        return node["spec"], node["metadata"].get("labels"), node.get("status", {}).get("allocatable")

    return bool(facts(old) != facts(new))
