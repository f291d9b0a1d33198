"""Disruption budgets: how many of the pods that each covers may be evicted now."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.api.core import Api
from swarm_deploy.local.api.meta import parse_time, timestamp
from swarm_deploy.local.api.scale import scale_of
from swarm_deploy.local.api.selectors import matches_labels
from swarm_deploy.local.controllers.loop import Controller
from swarm_deploy.local.informer import Informer

__all__ = ["DisruptionController", "healthy_wanted"]

Object = dict[str, Any]

_BUDGETS = "poddisruptionbudgets.policy"
_PROMISED = 120.0


def healthy_wanted(spec: Object, there: int, expected: int) -> tuple[int, int]:
    """How many pods count as expected, and how many of them have to be healthy.

    Args:
        there: pods that the selector finds now.
        expected: the replicas that their controllers are scaled to.
    """
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if isinstance(least, int):
        return there, least
    if isinstance(least, str):
        return expected, math.ceil(expected * int(least.rstrip("%")) / 100)
    if most is None:
        return there, 1
    unavailable = most if isinstance(most, int) else math.ceil(expected * int(most.rstrip("%")) / 100)
    return expected, max(0, expected - unavailable)


class DisruptionController:
    """Keeps the status of the budgets."""

    def __init__(
        self, api: Api, client: LocalClient, pods: Informer, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._api = api
        self._client = client
        self._pods = pods
        self._clock = clock
        self._loop = Controller("disruption budgets", self._sync)
        self._budgets = Informer(client, _BUDGETS, self._budget_changed)
        pods.listen(self._pod_changed)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._budgets.run())
            group.create_task(self._loop.run())

    def _budget_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._loop.add((new["metadata"]["namespace"], new["metadata"]["name"]))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        for pod in (old, new):
            if pod is None:
                continue
            namespace, labels = pod["metadata"]["namespace"], pod["metadata"].get("labels") or {}
            for budget in self._budgets:
                meta = budget["metadata"]
                if meta["namespace"] == namespace and matches_labels(budget["spec"].get("selector"), labels):
                    self._loop.add((namespace, meta["name"]))

    async def _sync(self, key: tuple[str, str]) -> None:
        budget = self._budgets.get(*key)
        if budget is None or budget["metadata"].get("deletionTimestamp"):
            return
        pods = [
            pod
            for pod in self._pods
            if pod["metadata"]["namespace"] == key[0]
            and matches_labels(budget["spec"].get("selector"), pod["metadata"].get("labels") or {})
            and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        ]
        now = self._clock()
        promised = self._promised(key, budget, pods, now)
        healthy = sum(
            not pod["metadata"].get("deletionTimestamp")
            and pod["metadata"]["name"] not in promised
            and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or ())
            for pod in pods
        )
        expected, desired = healthy_wanted(budget["spec"], len(pods), self._expected(pods))
        allowed = max(0, healthy - desired) if expected else 0
        status = _status(budget, promised, allowed, healthy, desired, expected, now)
        if status != budget.get("status"):
            await self._client.update_status(_BUDGETS, {**budget, "status": status})

    def _promised(self, key: tuple[str, str], budget: Object, pods: list[Object], now: float) -> dict[str, str]:
        """What was promised to an eviction and has not happened yet: it still counts, for a while."""
        going = {pod["metadata"]["name"]: pod["metadata"].get("deletionTimestamp") for pod in pods}
        out = {}
        for name, when in (budget.get("status", {}).get("disruptedPods") or {}).items():
            left = parse_time(when) + _PROMISED - now
            if name in going and not going[name] and left > 0:
                out[name] = when
                self._loop.add_after(key, left)
        return out

    def _expected(self, pods: list[Object]) -> int:
        """The replicas that the pods' controllers are scaled to; a pod without one stands for itself."""
        total = 0
        counted: set[str] = set()
        for pod in pods:
            ref = next((r for r in pod["metadata"].get("ownerReferences") or () if r.get("controller")), None)
            if ref is None:
                total += 1
                continue
            if ref["uid"] in counted:
                continue
            counted.add(ref["uid"])
            replicas = self._replicas(pod["metadata"]["namespace"], ref)
            if replicas is None:
                replicas = sum(
                    any(r["uid"] == ref["uid"] for r in p["metadata"].get("ownerReferences") or ()) for p in pods
                )
            total += replicas
        return total

    def _replicas(self, namespace: str, ref: Object) -> int | None:
        resource = self._api.catalog.by_kind(ref["apiVersion"].rpartition("/")[0], ref["kind"])
        if resource is None or not resource.custom or resource.subresource("scale") is None:
            return None
        owner = self._api.store.get(resource.key, namespace, ref["name"])
        if owner is None or owner["metadata"]["uid"] != ref["uid"]:
            return None
        scale = scale_of(resource, self._api.view(resource, owner))
        return int(scale.get("spec", {}).get("replicas") or 0)


def _status(
    budget: Object, promised: dict[str, str], allowed: int, healthy: int, desired: int, expected: int, now: float
) -> Object:
    state = "True" if allowed else "False"
    held = budget.get("status", {}).get("conditions") or ()
    old = next((c for c in held if c["type"] == "DisruptionAllowed"), None)
    generation = budget["metadata"].get("generation", 1)
    condition = {
        "type": "DisruptionAllowed",
        "status": state,
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"] if old and old["status"] == state else timestamp(now),
        "reason": "SufficientPods" if allowed else "InsufficientPods",
        "message": "",
    }
    status: Object = {
        "observedGeneration": generation,
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "conditions": [condition],
    }
    return status | ({"disruptedPods": promised} if promised else {})
